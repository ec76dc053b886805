"""The sign test by betting: its level, its power, what late starts cost."""

import math
import random

import pytest

from serinus.analysis.ranks import BETS, SignTest

ALPHA, BETA = 0.01, 0.05
RUNS, COMPARISONS = 1500, 120


def played(chance_beyond: float, *, runs: int, comparisons: int = COMPARISONS, seed: int = 1) -> tuple[float, float]:
    """Return in which shares of all runs the evidence for harm and for safety ever sufficed."""
    chance, harm, safe = random.Random(seed), 0, 0
    for _ in range(runs):
        test, harmful, shown = SignTest(), False, False
        for _ in range(comparisons):
            test.take(chance.random() < chance_beyond)
            harmful = harmful or test.harm() >= math.log(1 / ALPHA)
            shown = shown or test.safe() >= math.log(1 / BETA)
        harm, safe = harm + harmful, safe + shown
    return harm / runs, safe / runs


def test_equal_medians_are_called_harmful_and_safe_no_more_often_than_allowed() -> None:
    harm, safe = played(0.5, runs=RUNS)
    assert 0 < harm <= ALPHA + 3 * math.sqrt(ALPHA / RUNS)
    assert 0 < safe <= BETA + 3 * math.sqrt(BETA / RUNS)


@pytest.mark.parametrize("beyond", [True, False])
def test_no_stake_is_expected_to_grow_while_the_chance_is_one_half(beyond: bool) -> None:
    path = [beyond, not beyond, beyond, beyond]
    test = SignTest()
    for step in path:
        one, other = SignTest.load(test.dump()), SignTest.load(test.dump())
        one.take(True)
        other.take(False)
        for evidence in (SignTest.harm, SignTest.safe):
            expected = (math.exp(evidence(one)) + math.exp(evidence(other))) / 2
            assert expected == pytest.approx(math.exp(evidence(test)), rel=1e-12)
        test.take(step)


def test_before_the_first_comparison_the_evidence_is_one() -> None:
    assert SignTest().harm() == pytest.approx(0)
    assert SignTest().safe() == pytest.approx(0)


@pytest.mark.parametrize(("share", "least"), [(0.75, 0.9), (0.9, 0.99), (1.0, 1.0)])
def test_a_number_that_is_mostly_beyond_the_line_is_found_within_an_hour(share: float, least: float) -> None:
    assert played(share, runs=200, comparisons=120)[0] >= least
    assert played(1 - share, runs=200, comparisons=120)[1] >= least


def test_no_seven_comparisons_are_harm_and_no_four_are_safe() -> None:
    test = SignTest()
    for _ in range(7):
        test.take(True)
    assert test.harm() < math.log(1 / ALPHA)
    other = SignTest()
    for _ in range(4):
        other.take(False)
    assert other.safe() < math.log(1 / BETA)


def test_what_is_still_needed_is_what_it_then_takes() -> None:
    test = SignTest()
    for beyond in (False, True, True, False, True):
        test.take(beyond)
    needed = test.needed(math.log(1 / BETA))
    for step in range(needed):
        assert test.safe() < math.log(1 / BETA), step
        test.take(False)
    assert test.safe() >= math.log(1 / BETA)
    assert test.needed(math.log(1 / BETA)) == 0


def test_stakes_of_other_bets_are_refused() -> None:
    raw = SignTest().dump()
    with pytest.raises(ValueError, match="other bets"):
        SignTest.load(raw | {"harm": [0.0] * (len(BETS) + 1)})
