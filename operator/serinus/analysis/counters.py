"""A user's metric as counters of both versions, through the same tests as failed requests.

Four counters are read: bad (or good) ones and all, of the candidate and of the stable version. What they rose by since
they were last read together is what ``serinus.analysis.monitor`` gathers into blocks.

* A counter that fell gives nothing, and counting goes on from where it is now: a pod went and took its counts along.
  Where the others rose by more than what went, the fall does not show, and that block is wrong; one block alone decides
  nothing (``Settings.cap``).
* The counters are not read at the same moment, so that more may be bad than there are in all. Then the next reading is
  awaited, until the two agree; after ``Settings.longest_s`` what is too much is left out, and the finding says so.
* How much pods differ is not known of these counters, for they come without pods. So evidence is tempered for good as
  if each version had one pod and these differed as is assumed before anything is measured
  (``serinus.analysis.dispersion.FIRST_GUESS``, a relative variance of 0.2).
* What stable had counted before tells the alternatives which share to expect; it is no evidence.
"""

import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from serinus.analysis import record
from serinus.analysis.engine import Arms
from serinus.analysis.findings import excess, needed
from serinus.analysis.model import Finding, Numbers, Reading, Verdict
from serinus.analysis.monitor import Scrape, Watched, monitor_of
from serinus.analysis.questions import Gap, gap, questions, value_of
from serinus.analysis.settings import Margin, Row, Settings, Tolerance
from serinus.analysis.words import TIMES, percent
from serinus.api.analysis import CountQueries, Line, UserMetric

PROMISE = Margin(1.2, 0.001)
TOLERANCE = Tolerance(0.0, 1.5, 0.01)
"""What holds where the metric says nothing else."""
_MOST_HISTORY = 5000.0
"""A long history of stable's weighs no more than so many; what it does now is soon more important."""
_SHORTEST_S = 1.0
_NOISE = 1e-9
"""Relative error of floating-point counters."""


def row_of(metric: UserMetric, counts: CountQueries) -> Row:
    """Return the row to test."""
    promise, tolerance = _line(counts.promise) or PROMISE, _line(counts.tolerance)
    safe = Tolerance(0.0, tolerance.rho, tolerance.delta) if tolerance else TOLERANCE
    return Row(metric.name, promise, (safe,))


def _line(line: Line | None) -> Margin | None:
    return Margin(line.ratio, line.points / 100) if line is not None else None


class Read(NamedTuple):
    """The counters as they were read together: all, and bad or good ones, of the candidate and of stable."""

    total_c: float
    part_c: float
    total_b: float
    part_b: float

    def fell(self, before: "Read") -> bool:
        """Whether any counter is lower than before."""
        return any(now < then for now, then in zip(self, before, strict=True))

    def since(self, before: "Read", good: bool) -> "Read":
        """Return by how much all and bad ones rose. ``good`` tells that the parts are good ones."""
        rose = Read(*(now - then for now, then in zip(self, before, strict=True)))
        if not good:
            return rose
        return Read(rose.total_c, rose.total_c - rose.part_c, rose.total_b, rose.total_b - rose.part_b)

    def plus(self, other: "Read") -> "Read":
        """Return the sums."""
        return Read(*(one + more for one, more in zip(self, other, strict=True)))

    def clipped(self) -> "Read":
        """Return the same with no fewer bad ones than none, and no more than there are in all."""
        return Read(self.total_c, _within(self.part_c, self.total_c), self.total_b, _within(self.part_b, self.total_b))


_NOTHING = Read(0.0, 0.0, 0.0, 0.0)


def _within(part: float, total: float) -> float:
    return min(max(part, 0.0), total)


class _Weighed(NamedTuple):
    """What the tests have come to: evidence as a part of what decides, and how many more requests it takes to pass."""

    harm: float
    safe: float
    needed: int | None


class CountTest:
    """The test of one metric. Its state is what ``dump`` returns.

    Most looks find no new answers. So the tests' state is read only when there are some, and what it had come to is
    remembered beside it.
    """

    def __init__(self, metric: UserMetric, counts: CountQueries, settings: Settings):
        self._name = metric.name
        self._good = counts.good is not None
        self._asked = questions(metric)
        self._monitor = monitor_of(settings, (row_of(metric, counts),))
        self._watched: dict[str, Any] | None = None
        self._weighed: _Weighed | None = None
        self._mark = _NOTHING
        self._sequences: list[int] = []
        self._seen = _NOTHING
        self._clips = 0
        self._gap: Gap | None = None

    def restore(self, raw: dict[str, Any]) -> None:
        """Go on from what ``dump`` returned.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        mark, seen = Read(*raw["mark"]), Read(*raw["seen"])
        weighed = _Weighed(*raw["weighed"]) if raw["weighed"] is not None else None
        self._sequences, self._clips = list(raw["sequences"]), int(raw["clips"])
        self._watched, self._weighed, self._mark, self._seen = raw["watched"], weighed, mark, seen

    def dump(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "watched": self._watched,
            "weighed": list(self._weighed) if self._weighed is not None else None,
            "mark": list(self._mark),
            "seen": list(self._seen),
            "sequences": self._sequences,
            "clips": self._clips,
        }

    def take(self, answers: dict[str, Reading], now_s: float) -> None:
        """Take in the last answer to each query, at ``now_s`` seconds of the run."""
        self._gap = gap(self._asked, answers)
        if self._gap is not None:
            return
        sequences = [answers[question.name].sequence for question in self._asked]
        if any(now == then for now, then in zip(sequences, self._sequences, strict=False)):
            return
        read = Read(*(value_of(answers[question.name]) or 0.0 for question in self._asked))
        watched = self._opened()
        if watched is not None and not read.fell(self._mark):
            self._advance(watched, read, sequences, now_s)
            return
        if watched is None:
            watched = self._monitor.start(1, _history(read, self._good))
        watched.now_s = now_s
        self._close(watched)
        self._mark, self._sequences = read, sequences

    def _opened(self) -> Watched | None:
        """Return the tests as they stand; None before the first answers, or where another version wrote them."""
        if self._watched is None:
            return None
        with suppress(KeyError, TypeError, ValueError):
            watched = record.load(self._watched)
            return watched if self._monitor.engine.fits(watched.state) else None
        return None

    def _close(self, watched: Watched) -> None:
        """Note the tests, and what they have come to."""
        settings = self._monitor.settings
        readout = self._monitor.engine.read(watched.state, watched.now_s)
        harm = float(readout.harm[self._name][0]) / -math.log(settings.alpha)
        safe = float(readout.safe[0, 0]) / -math.log(settings.beta)
        self._watched = record.dump(watched)
        self._weighed = _Weighed(harm, safe, needed(self._monitor, watched, readout, 0))

    def _advance(self, watched: Watched, read: Read, sequences: list[int], now_s: float) -> None:
        length_s = now_s - watched.now_s
        rose = read.since(self._mark, self._good)
        clipped = rose.clipped()
        noise = _NOISE * (read.total_c + read.total_b)
        off = any(abs(within - every) > noise for within, every in zip(clipped, rose, strict=True))
        if length_s < _SHORTEST_S or (off and length_s < self._monitor.settings.longest_s):
            return
        self._clips += off
        arms = Arms.of(*(np.full((1, 1), each) for each in _arms(clipped)))
        one_pod = np.ones(1)
        self._monitor.take(watched, Scrape(arms, np.zeros((4, 1)), one_pod, one_pod), now_s)
        self._close(watched)
        self._seen = self._seen.plus(clipped)
        self._mark, self._sequences = read, sequences

    def finding(self, settings: Settings) -> Finding:
        """Return what the counters say."""
        if self._weighed is None:
            missing = self._gap or Gap("", "the counters are awaited")
            words = f"{self._name}: {missing.words}"
            return Finding(self._name, Verdict.UNDECIDED, outcome=missing.outcome, message=words)
        verdict, numbers = self._numbers(self._weighed)
        if verdict is not Verdict.HARM and self._gap and not (self._gap.idle and verdict is Verdict.SAFE):
            verdict = Verdict.UNDECIDED
        row = self._monitor.engine.rows[0]
        limit = _limit(row.promise if verdict is Verdict.HARM else row.tolerances[0])
        return Finding(
            self._name,
            verdict,
            _share(self._seen.part_c, self._seen.total_c),
            _share(self._seen.part_b, self._seen.total_b),
            limit,
            self._gap.outcome if self._gap else "Value",
            f"{self._name}: {self._sentence(verdict, limit, numbers, settings)}",
            numbers,
        )

    def _numbers(self, weighed: _Weighed) -> tuple[Verdict, Numbers]:
        harm, safe = weighed.harm, weighed.safe
        verdict = Verdict.HARM if harm >= 1 else Verdict.SAFE if safe >= 1 else Verdict.UNDECIDED
        bad, total = round(self._seen.part_c), round(self._seen.total_c)
        stable_bad, stable_total = round(self._seen.part_b), round(self._seen.total_b)
        return verdict, Numbers(
            bad,
            total,
            stable_bad,
            stable_total,
            excess(bad, total, stable_bad, stable_total),
            round(100 * max(harm, -9.0), 1),
            round(100 * min(max(safe, -9.0), 9.0), 1),
            weighed.needed,
        )

    def _sentence(self, verdict: Verdict, limit: str, numbers: Numbers, settings: Settings) -> str:
        share, stable = _share(numbers.bad, numbers.requests), _share(numbers.stable_bad, numbers.stable_requests)
        if share is None:
            seen = "nothing was counted of the candidate yet"
        else:
            seen = f"{percent(share)} of {numbers.requests:,} were bad"
            seen += f" (stable {percent(stable)} of {numbers.stable_requests:,})" if stable is not None else ""
        if self._clips:
            part = "good" if self._good else "bad"
            seen += f"; at times more were {part} than there were in all, check that {part} and total count the same"
        if verdict is Verdict.HARM:
            seen += f"; the limit is {limit}; chance alone does that in less than {settings.alpha:.2g} of all runs"
        if self._gap is not None:
            return f"{seen}; {self._gap.words}"
        if verdict is not Verdict.UNDECIDED or share is None:
            return seen
        if stable is None:
            return f"{seen}; nothing was counted of the stable version yet"
        if numbers.needed is None:
            return f"{seen}; it is not shown to be within the limit of {limit}"
        return f"{seen}; about {numbers.needed:,} more of the candidate's show whether it is within {limit}"


def _history(read: Read, good: bool) -> Arms:
    """Return what stable had counted before, as the engine takes it."""
    _, _, bad, total = _arms(read.since(_NOTHING, good).clipped())
    scale = min(1.0, _MOST_HISTORY / max(total, 1.0))
    zero = np.zeros((1, 1))
    return Arms.of(zero, zero, zero + bad * scale, zero + total * scale)


def _arms(rose: Read) -> tuple[float, float, float, float]:
    return rose.part_c, rose.total_c, rose.part_b, rose.total_b


def _share(bad: float, total: float) -> float | None:
    return 100 * bad / total if total > 0 else None


def _limit(margin: Margin | Tolerance) -> str:
    """Return the line in words: a promise is factor and points together, a tolerance the easier of the two."""
    points = f"{100 * margin.delta:g} points"
    if margin.rho == 1:
        return f"stable's share + {points}"
    factor = f"stable's share {TIMES} {margin.rho:g}"
    return f"{factor} {'+' if isinstance(margin, Margin) else 'or +'} {points}" if margin.delta else factor
