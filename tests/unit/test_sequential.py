"""The tests on counts: exact where they can be enumerated, within their chance where they are played through."""

import random
from math import comb, exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.analysis.sequential import log_e_difference, log_e_share


def binomial(bad: int, tries: int, share: float) -> float:
    return comb(tries, bad) * share**bad * (1 - share) ** (tries - bad)


@pytest.mark.parametrize("limit", [0.0, 0.01, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("below", [1.0, 0.9, 0.3, 0.0])
@pytest.mark.parametrize("tries", [1, 7, 40])
def test_within_the_limit_the_evidence_is_1_at_most_on_average(limit: float, below: float, tries: int) -> None:
    share = limit * below
    mean = sum(
        chance * exp(log_e_share(bad, tries, limit))
        for bad in range(tries + 1)
        if (chance := binomial(bad, tries, share))
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("stable_share", [0.0, 0.01, 0.3, 0.7])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 20), (12, 4)])
def test_within_the_margin_the_evidence_is_1_at_most_on_average(
    margin: float, stable_share: float, sizes: tuple[int, int]
) -> None:
    tries, stable_tries = sizes
    mean = sum(
        chance * exp(log_e_difference(bad, tries, stable_bad, stable_tries, margin))
        for bad in range(tries + 1)
        for stable_bad in range(stable_tries + 1)
        if (chance := binomial(bad, tries, stable_share + margin) * binomial(stable_bad, stable_tries, stable_share))
    )
    assert mean <= 1 + 1e-9


def test_without_tries_there_is_no_evidence() -> None:
    assert log_e_share(0, 0, 0.01) == 0
    assert log_e_difference(5, 5, 0, 0, 0.01) == 0
    assert log_e_difference(0, 0, 5, 5, 0.01) == 0


COUNTS = st.integers(1, 10_000).flatmap(lambda tries: st.tuples(st.integers(0, tries), st.just(tries)))


@given(COUNTS, st.floats(0, 1))
def test_one_more_bad_try_is_never_less_evidence_of_harm(counts: tuple[int, int], limit: float) -> None:
    bad, tries = counts
    if bad / tries > limit and bad < tries:
        assert log_e_share(bad + 1, tries + 1, limit) >= log_e_share(bad, tries, limit) - 1e-6


@given(COUNTS, COUNTS, st.floats(0, 0.5))
def test_a_candidate_within_the_margin_never_gathers_evidence(
    counts: tuple[int, int], stable: tuple[int, int], margin: float
) -> None:
    if counts[0] / counts[1] <= stable[0] / stable[1] + margin:
        assert log_e_difference(*counts, *stable, margin) <= 1e-6


def play(share: float, stable_share: float, margin: float, alpha: float, seed: int) -> int | None:
    """Return the bad tries at which harm was found, looking after every tick; None if never."""
    chance = random.Random(seed)
    bad = tries = stable_bad = stable_tries = 0
    for _ in range(60):
        tries += 4
        stable_tries += 12
        bad += sum(chance.random() < share for _ in range(4))
        stable_bad += sum(chance.random() < stable_share for _ in range(12))
        if log_e_difference(bad, tries, stable_bad, stable_tries, margin) >= log(1 / alpha):
            return bad
    return None


def test_looked_at_60_times_a_candidate_at_the_limit_is_called_harmful_no_oftener_than_allowed() -> None:
    alpha, runs = 0.05, 400
    false = sum(play(0.15, 0.05, 0.1, alpha, seed) is not None for seed in range(runs))
    assert false <= alpha * runs + 3 * (alpha * runs) ** 0.5


def test_looked_at_60_times_two_equal_versions_are_not_called_different() -> None:
    assert sum(play(0.02, 0.02, 0.01, 0.001, seed) is not None for seed in range(200)) == 0


def test_a_candidate_that_fails_a_fifth_of_its_tries_is_found_after_a_dozen_failures() -> None:
    found = sorted(bad for seed in range(60) if (bad := play(0.2, 0.001, 0.01, 0.001, seed)) is not None)
    assert len(found) >= 59
    assert found[len(found) // 2] <= 12
