"""The bars that the bench has to clear, checked on its table."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import exp, lgamma, log, log1p, sqrt
from statistics import fmean

from serinus.simulation.scenarios import HELD_OUT_RATES, Kind
from serinus.simulation.scoring import LEVELS, Cell, calibrations, mean_hurt, pooled_median

FALSE_ROLLBACK = 0.01
MISSED_AT_ONE = 0.05
LESS_HARM = 5.0
"""So many times fewer bad responses than the best peer's."""
UNDECIDED = 0.05
_CHANCE = 0.05
"""How likely chance alone may put any share of a bar beyond its limit before the bar counts as not met."""
_ERRORS_ALLOWED = 3.0
"""Standard errors that a share found by chance may be above what it is compared with."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What is asked, what was found, and whether that suffices; ``met`` is None when too little was played to tell."""

    asked: str
    found: str
    met: bool | None
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """Who is who in the table: our default, the same with the profile Fast, and all peers."""

    ours: str
    fast: str
    peers: tuple[str, ...]


def bars(cells: Sequence[Cell], names: Names) -> list[Bar]:
    """Return all bars as they stand in a table."""
    main = [cell for cell in cells if not cell.held_out]
    held_out = [cell for cell in cells if cell.held_out]
    middling, busy = HELD_OUT_RATES
    return [
        *_busy(main, names, 100.0, held_out=False),
        *_busy(main, names, 1000.0, held_out=False),
        *_middling(main, names, 10.0, held_out=False),
        *_quiet(main, names, 1.0),
        _calibrated(cells, names),
        *_busy(held_out, names, busy, held_out=True),
        *_middling(held_out, names, middling, held_out=True),
    ]


def _busy(cells: list[Cell], names: Names, rate: float, held_out: bool) -> list[Bar]:
    cells = [cell for cell in cells if cell.rate == rate]
    ours = [cell for cell in cells if cell.policy == names.ours]
    at = f"At {rate:g} requests a second: "
    return [
        _false_rollbacks(ours, at, held_out),
        _worst(ours, Kind.CLEAR, lambda cell: cell.shipped, 0.0, f"{at}clear defects promoted 0 %", held_out),
        _harm(cells, names, at, held_out),
        _time(ours, 10, f"{at}good releases shipped in ≤ 10 min (median)", held_out),
        _time(
            [cell for cell in cells if cell.policy == names.fast],
            4,
            f"{at}with the profile Fast in ≤ 4 min (median)",
            held_out,
        ),
    ]


def _middling(cells: list[Cell], names: Names, rate: float, held_out: bool) -> list[Bar]:
    ours = [cell for cell in cells if cell.policy == names.ours and cell.rate == rate]
    good = [cell for cell in ours if cell.kind is Kind.GOOD]
    at = f"At {rate:g} requests a second: "
    asked = f"{at}undecided ≤ 5 % of good releases"
    undecided = Bar(asked, "not measured", None, held_out)
    if good:
        share = sum(cell.undecided for cell in good) / sum(cell.runs for cell in good)
        worst = max(good, key=lambda cell: cell.open)
        words = f"{_percent(share)}; most in “{worst.scenario}”, {_percent(worst.open)}"
        undecided = Bar(asked, words, share <= UNDECIDED, held_out)
    return [_time(ours, 20, f"{at}good releases shipped in ≤ 20 min (median)", held_out), undecided]


def _quiet(cells: list[Cell], names: Names, rate: float) -> list[Bar]:
    ours = [cell for cell in cells if cell.policy == names.ours and cell.rate == rate]
    at = f"At {rate:g} request a second: "
    asked = f"{at}each clear defect promoted ≤ 5 %"
    return [
        _false_rollbacks(ours, at, held_out=False),
        _worst(ours, Kind.CLEAR, lambda cell: cell.shipped, MISSED_AT_ONE, asked, held_out=False),
    ]


def _false_rollbacks(ours: list[Cell], at: str, held_out: bool) -> Bar:
    asked = f"{at}false rollbacks ≤ 1 % in every good scenario"
    return _worst(ours, Kind.GOOD, lambda cell: cell.rolled_back, FALSE_ROLLBACK, asked, held_out)


def _worst(
    cells: list[Cell], kind: Kind, number: Callable[[Cell], int], limit: float, asked: str, held_out: bool
) -> Bar:
    """Return whether no share is beyond the limit; one that chance may have put there leaves the bar open."""
    of_kind = [cell for cell in cells if cell.kind is kind]
    if not of_kind:
        return Bar(asked, "not measured", None, held_out)

    def share(cell: Cell) -> float:
        return number(cell) / cell.runs

    beyond = sorted((cell for cell in of_kind if share(cell) > limit), key=share, reverse=True)
    worst = max(of_kind, key=share)
    words = f"at most {_percent(share(worst))}" + (f" (“{worst.scenario}”)" if share(worst) else "")
    if beyond:
        words = ", ".join(f"{_percent(share(cell))} in “{cell.scenario}”" for cell in beyond)
    words += f"; {len(of_kind)} scenarios of {worst.runs} runs"
    sure = _CHANCE / len(of_kind)
    if any(_at_least(number(cell), cell.runs, limit) < sure for cell in beyond):
        return Bar(asked, words, False, held_out)
    return Bar(asked, words + (", too few to tell" if beyond else ""), None if beyond else True, held_out)


def share_bar(found: Sequence[tuple[str, int, int]], limit: float, asked: str) -> Bar:
    """Return whether no share is beyond the limit; one that chance may have put there leaves the bar open.

    Args:
        found: what was played, how often it went wrong, and how often it was played.
        limit: the greatest share that is allowed.
        asked: the bar, in words.
    """
    if not found:
        return Bar(asked, "not measured", None)
    name, number, runs = max(found, key=lambda each: each[1] / each[2])
    words = f"at most {_percent(number / runs)}" + (f" (“{name}”)" if number else "") + f"; {len(found)} of {runs} runs"
    beyond = [each for each in found if each[1] / each[2] > limit]
    if any(_at_least(wrong, of, limit) < _CHANCE / len(found) for _, wrong, of in beyond):
        return Bar(asked, words, False)
    return Bar(asked, words, None if beyond else True)


def _at_least(number: int, runs: int, share: float) -> float:
    """Return the chance of so many or more among so many runs, each with this chance: a binomial tail."""
    if share <= 0:
        return float(number <= 0)
    ways = (lgamma(runs + 1) - lgamma(k + 1) - lgamma(runs - k + 1) for k in range(number))
    fewer = sum(exp(way + k * log(share) + (runs - k) * log1p(-share)) for k, way in enumerate(ways))
    return max(0.0, 1 - fewer)


def _harm(cells: list[Cell], names: Names, at: str, held_out: bool) -> Bar:
    asked = f"{at}bad responses ≤ 1/5 of the best peer's (mean over clear defects)"
    clear = [cell for cell in cells if cell.kind is Kind.CLEAR]
    ours = [cell for cell in clear if cell.policy == names.ours]
    peers = {name: own for name in names.peers if (own := [cell for cell in clear if cell.policy == name])}
    if not ours or not peers:
        return Bar(asked, "not measured", None, held_out)
    mine = mean_hurt(ours)
    harm = {name: mean_hurt(own) for name, own in peers.items()}
    best = min(harm, key=lambda name: harm[name])
    words = f"{mine:.0f}; best peer {best} {harm[best]:.0f}, {harm[best] / max(mine, 1e-9):.1f} times as many"
    if good := [cell.false_rollback for cell in cells if cell.policy == best and cell.kind is Kind.GOOD]:
        words += f"; it rolls {_percent(fmean(good))} of good releases back"
    return Bar(asked, words, mine * LESS_HARM <= harm[best], held_out)


def _time(cells: list[Cell], limit_min: float, asked: str, held_out: bool) -> Bar:
    good = [cell for cell in cells if cell.kind is Kind.GOOD]
    if not good:
        return Bar(asked, "not measured", None, held_out)
    middle = pooled_median(good)
    slow = [cell for cell in good if (own := pooled_median([cell])) is None or own > limit_min * 60]
    words = _minutes(middle)
    if slow:
        words += "; longer in " + ", ".join(f"“{cell.scenario}” ({_minutes(pooled_median([cell]))})" for cell in slow)
    return Bar(asked, words, middle is not None and middle <= limit_min * 60, held_out)


def _calibrated(cells: Iterable[Cell], names: Names) -> Bar:
    """Return whether evidence reaches the inverse of each level no more often than that, up to chance."""
    asked = "Evidence reaches 1/alpha in at most alpha of the runs of candidates that keep their promise, up to chance"
    every = calibrations(cell for cell in cells if cell.policy == names.ours)
    if not every:
        return Bar(asked, "not measured", None)
    worst = {
        level: max(every, key=lambda one, index=index: one.alarms[index] / one.runs)  # type: ignore[misc]
        for index, level in enumerate(LEVELS)
    }
    shares = {level: one.alarms[LEVELS.index(level)] / one.runs for level, one in worst.items()}
    met = all(
        share <= level + _ERRORS_ALLOWED * sqrt(level * (1 - level) / worst[level].runs)
        for level, share in shares.items()
    )
    words = "; ".join(f"at most {_percent(share)} at alpha = {_percent(level)}" for level, share in shares.items())
    return Bar(asked, words, met)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "0 %"


def _minutes(time_s: float | None) -> str:
    return "not in two hours" if time_s is None else f"{time_s / 60:.1f} min"
