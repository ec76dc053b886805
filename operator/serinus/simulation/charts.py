"""Charts of a release: its numbers as points in a drawing, ready for a template that only has shape. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from serinus.api.status import Reason
from serinus.simulation.counter import Arm
from serinus.simulation.release import Moment, Release

_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_TICKS = 8
_BINS, _POINTS = 90, 440
_MOST_EVIDENCE = 120.0
_NOTABLE = {
    Reason.WATCHING: "passed",
    Reason.PROMOTED: "promoted",
    Reason.ROLLED_BACK: "rolled back",
    Reason.DEADLINE: "deadline",
    Reason.PROGRESS_DEADLINE: "pods late",
    Reason.WAITING: "approval",
    Reason.SUSPENDED: "suspended",
}
_APART, _BESIDE, _BELOW, _ROW = 84.0, 5.0, 24.0, 15.0
"""Room for a word at a mark, its distance from that and from the top, and the height of a row of words."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plane:
    """Where things are in each drawing, in its own units: its size, and the edges of the plane in it."""

    width: float = 880.0
    height: float = 170.0
    left: float = 58.0
    right: float = 864.0
    top: float = 12.0
    bottom: float = 146.0


PLANE = Plane()


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid: where it is along its axis, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: its style, its name in the legend, and its path."""

    style: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A decision: where it is, all that was said; its word, where that stands, and how it is aligned there."""

    at: float
    message: str
    word: str
    word_at: Point
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. ``threshold`` is the line at which something is decided; ``words`` belong to marks."""

    title: str
    says: str
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    threshold: Tick | None = None
    threshold_style: str = ""
    words: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """All charts of a release, one above the other, along the same time."""

    charts: tuple[Chart, ...]
    times: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    plane: Plane = PLANE


def draw(release: Release) -> Drawing:
    """Return weight, failures, and evidence for harm and for safety over the time of a release."""
    end_s = max([2.0, *(moment.second for moment in release.moments), *(at_s for at_s, _ in release.weights)])
    scale = _Scale(end_s)
    marks = _marks(release, scale)
    charts = (
        _weights(release, scale, marks),
        _failures(release.moments, scale),
        _evidence(release.moments, scale, 0, "Evidence for harm", "at 100 % it is rolled back"),
        _evidence(release.moments, scale, 1, "Evidence for safety", "all metrics need 100 % to pass"),
    )
    return Drawing(charts, scale.times(), marks)


class _Scale:
    """From seconds to the horizontal axis, and from numbers to the vertical one."""

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s

    def x(self, second: float) -> float:
        return round(PLANE.left + (PLANE.right - PLANE.left) * min(second, self.end_s) / self.end_s, 1)

    def y(self, value: float, most: float) -> float:
        return round(PLANE.top + (PLANE.bottom - PLANE.top) * (1 - min(max(value / most, 0.0), 1.0)), 1)

    def times(self) -> tuple[Tick, ...]:
        step_s = next((step for step in _STEPS_S if self.end_s / step <= _MOST_TICKS), _STEPS_S[-1])
        return tuple(
            Tick(self.x(second), f"{second} s" if step_s < 60 else f"{second // 60} min")
            for second in range(0, int(self.end_s) + 1, step_s)
        )

    def path(self, points: Iterable[Point | None], most: float) -> str:
        """Return a path through the points; it is broken where there is none."""
        parts, pen = [], "M"
        for point in points:
            if point is None:
                pen = "M"
                continue
            parts.append(f"{pen}{self.x(point[0])} {self.y(point[1], most)}")
            pen = "L"
        return "".join(parts)


def _weights(release: Release, scale: _Scale, words: tuple[Mark, ...]) -> Chart:
    points: list[Point] = []
    for (at_s, share), (until_s, _) in pairwise((*release.weights, (scale.end_s, 0.0))):
        if at_s <= scale.end_s:
            points += [(at_s, share), (until_s, share)]
    line = Line("candidate", "", scale.path(points, 100.0))
    return Chart("Weight", "the candidate's share of the requests", _ticks(scale, 100.0), (line,), words=words)


def _failures(moments: Sequence[Moment], scale: _Scale) -> Chart:
    bins = max(1, ceil(len(moments) / _BINS))
    groups = [moments[start : start + bins] for start in range(0, len(moments), bins)]
    ends = [group[-1].second for group in groups]
    arms = [
        ("candidate", [_sum(moment.candidate for moment in group) for group in groups]),
        ("stable", [_sum(moment.stable for moment in group) for group in groups]),
    ]
    most = _round_up(1.15 * max((_usual(counts) for _, counts in arms), default=0.0))
    lines = []
    for name, counts in arms:
        points = [
            (end, 100 * arm.failures / arm.requests) if arm.requests else None
            for end, arm in zip(ends, counts, strict=True)
        ]
        lines.append(Line(name, name, scale.path(points, most)))
    return Chart("Failed requests", f"in each {2 * bins} s, in percent", _ticks(scale, most), tuple(lines))


def _sum(arms: Iterable[Arm]) -> Arm:
    counts = [(arm.requests, arm.failures) for arm in arms]
    return Arm(sum(requests for requests, _ in counts), sum(failures for _, failures in counts))


def _usual(counts: Sequence[Arm]) -> float:
    """Return the share of failures in percent below which 99 % of the requests are: few requests make no scale."""
    shares = sorted((100 * arm.failures / arm.requests, arm.requests) for arm in counts if arm.requests)
    left = 0.99 * sum(requests for _, requests in shares)
    for share, requests in shares:
        left -= requests
        if left <= 0:
            return share
    return 0.0


def _evidence(moments: Sequence[Moment], scale: _Scale, which: int, title: str, says: str) -> Chart:
    names = list(dict.fromkeys(name for moment in moments for name in moment.evidence))
    every = max(1, ceil(len(moments) / _POINTS))
    kept = [*moments[::every], *moments[-1:]]
    lines = []
    for number, name in enumerate(names):
        values = [(moment.second, moment.evidence.get(name, (None, None))[which]) for moment in kept]
        if any(value is not None for _, value in values):
            points = [None if value is None else (second, value) for second, value in values]
            lines.append(Line(f"metric-{number % 4}", name, scale.path(points, _MOST_EVIDENCE)))
    ticks = tuple(Tick(scale.y(value, _MOST_EVIDENCE), f"{value} %") for value in (0, 50))
    threshold = Tick(scale.y(100.0, _MOST_EVIDENCE), "100 %")
    return Chart(title, says, ticks, tuple(lines), threshold, ("harm", "safe")[which])


def _ticks(scale: _Scale, most: float) -> tuple[Tick, ...]:
    return tuple(Tick(scale.y(value, most), f"{value:g} %") for value in (0, most / 2, most))


def _round_up(value: float) -> float:
    return next((most for most in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if value <= most), 100)


def _marks(release: Release, scale: _Scale) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    row = 0
    for happening in release.happenings:
        word = _NOTABLE.get(happening.reason)
        if word is None:
            continue
        at = scale.x(happening.second)
        row = (row + 1) % 3 if marks and at - marks[-1].at < _APART else 0
        before = at > PLANE.right - _APART
        word_at = at - _BESIDE if before else at + _BESIDE, PLANE.top + _BELOW + _ROW * row
        marks.append(Mark(at, happening.message, word, word_at, "end" if before else "start"))
    return tuple(marks)
