"""A number that changes with time, and its mean over any span."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise

from serinus.api.base import seconds
from serinus.simulation.series import Change, Series


@dataclass(frozen=True, slots=True)
class Timeline:
    """A piecewise linear function of time. Make one with ``of_changes`` or ``of_series``.

    ``starts_s`` are the begins of the pieces; before the first of them the function is constant. ``values`` and
    ``slopes`` (per second) are those at the begin of a piece, ``sums`` the integral from the first begin to there.
    ``period_s`` is after how long the pieces are played again; None means that the last piece goes on for ever.
    """

    starts_s: tuple[float, ...]
    values: tuple[float, ...]
    slopes: tuple[float, ...]
    sums: tuple[float, ...]
    period_s: float | None = None

    def mean(self, begin_s: float, end_s: float) -> float:
        """Return the function's mean between two times; ``end_s`` is the greater one."""
        if len(self.starts_s) == 1 and self.slopes[0] == 0 and self.period_s is None:
            return self.values[0]
        return max(0.0, (self._integral(end_s) - self._integral(begin_s)) / (end_s - begin_s))

    def _integral(self, time_s: float) -> float:
        first = self.starts_s[0]
        if time_s <= first:
            return self.values[0] * (time_s - first)
        before = 0.0
        if self.period_s is not None:
            rounds, since = divmod(time_s - first, self.period_s)
            before, time_s = rounds * self._within(first + self.period_s), first + since
        return before + self._within(time_s)

    def _within(self, time_s: float) -> float:
        piece = bisect_right(self.starts_s, time_s) - 1
        since = time_s - self.starts_s[piece]
        return self.sums[piece] + (self.values[piece] + self.slopes[piece] * since / 2) * since


def of_changes(value: float, changes: list[tuple[Change, float]]) -> Timeline:
    """Return the timeline that begins with ``value`` and goes through the changes, each with its goal, in order."""
    pieces = [(0.0, value, 0.0)]
    for change, goal in changes:
        after_s, over_s = seconds(change.after), seconds(change.over)
        if over_s:
            pieces.append((after_s, value, (goal - value) / over_s))
        pieces.append((after_s + over_s, goal, 0.0))
        value = goal
    return _of_pieces(pieces, None)


def of_series(series: Series) -> Timeline:
    """Return the timeline in which each of the series' numbers holds for one interval, again and again."""
    interval_s, start_s = seconds(series.interval), seconds(series.start)
    pieces = [(row * interval_s - start_s, value * series.factor, 0.0) for row, value in enumerate(series.values)]
    return _of_pieces(pieces, len(pieces) * interval_s)


def _of_pieces(pieces: list[tuple[float, float, float]], period_s: float | None) -> Timeline:
    areas = ((one[1] + one[2] * (other[0] - one[0]) / 2) * (other[0] - one[0]) for one, other in pairwise(pieces))
    starts_s, values, slopes = zip(*pieces, strict=True)
    return Timeline(starts_s, values, slopes, tuple(accumulate(areas, initial=0.0)), period_s)
