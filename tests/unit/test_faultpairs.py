"""The fault gate's bench: the product's own judgement, seeded, and what its bars and table say."""

import pytest

from serinus.simulation.faultpairs import LOADS, PAIRS, Pair, PairCell, cells, pair_bars, pair_table

BIG = next(pair for pair in PAIRS if pair.name == "0.2 % and 30 %")
EQUAL = PAIRS[0]


def named(name: str) -> Pair:
    return next(pair for pair in PAIRS if pair.name == name)


def test_a_big_loss_is_found_at_every_load_and_equal_versions_pass() -> None:
    for cell in cells(6, 1, (BIG, EQUAL)):
        assert cell.runs == 6
        assert (cell.failed, cell.passed) == ((6, 0) if cell.pair is BIG else (0, 6))


@pytest.mark.parametrize("name", ["storm of retries", "no recovery"])
def test_what_every_answer_hides_is_found(name: str) -> None:
    assert all(cell.failed == cell.runs for cell in cells(3, 2, (named(name),)))


def test_what_neither_recovers_from_is_not_blamed_on_the_candidate() -> None:
    assert not any(cell.failed for cell in cells(3, 3, (named("no recovery of either"),)))


def test_the_same_seed_gives_the_same_table() -> None:
    one, two = (pair_table(cells(2, 4, (EQUAL,))) for _ in range(2))
    assert one == two
    assert len(one.splitlines()) == 2 + len(LOADS)


def test_bars_are_met_open_or_not_met() -> None:
    def cell(pair: Pair, failed: int, runs: int) -> PairCell:
        return PairCell(pair, 10.0, failed=failed, seconds=[1.0] * runs, spent=[0] * runs)

    equal, big, odd = pair_bars([cell(EQUAL, 0, 100), cell(BIG, 100, 100)])
    assert (equal.met, big.met, odd.met) == (True, True, None)
    assert pair_bars([cell(EQUAL, 2, 100)])[0].met is None
    assert pair_bars([cell(EQUAL, 20, 100)])[0].met is False
    assert pair_bars([cell(BIG, 60, 100)])[1].met is False
