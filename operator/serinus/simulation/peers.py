"""The rules by which Flagger, Argo Rollouts and Kayenta decide about a release, as policies of the bench.

They look once a minute at numbers of that minute, as Prometheus would give them. What is left out is in the peers'
favour: counts are exact (``rate()`` extrapolates, and does not see the first increment of a new series), a query never
fails, a look takes no time, and the first requests are there before the first look.

One thing can be against them: a query gives NaN, never an empty result. Where a query of Argo's is empty until the
first success, an outage from the first request on gives errors, not failures; at the fifth in a row, ten seconds apart,
the release is aborted: after 100 seconds, not after four minutes.

Sources: Flagger's ``pkg/controller/scheduler.go`` and ``scheduler_metrics.go``, as of July 2026, with the numbers of
its tutorial for Istio; Argo Rollouts' ``analysis/analysis.go`` and ``utils/evaluate/evaluate.go``, as of August 2026;
Prometheus' ``histogram_quantile``; for Kayenta see ``serinus.simulation.kayenta``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.simulation.kayenta import classify, fails
from serinus.simulation.policy import Outcome, Policy
from serinus.simulation.world import ArmCounts, FloatArray, IntArray, Tick

WEIGHTS_PCT = (1.0, 5.0, 10.0, 25.0, 50.0)
"""The weights of every rule that goes by steps."""
MOST_ERRORS_PCT = 1.0
"""The fixed line: a success rate of 99 %, that of Flagger's tutorial."""
MOST_P99_MS = 500.0
MORE_ERRORS_POINTS = 0.5
"""What a relative or tuned line allows more than the stable version has, in percentage points."""
P99_FACTOR = 1.3
_MINUTE_S, _TICK_S = 60.0, 10.0

Bools = NDArray[np.bool_]


def histogram_quantile(quantile: float, buckets: IntArray | FloatArray) -> FloatArray:
    """Return quantiles in milliseconds as Prometheus estimates them, shape (runs,).

    Within a bucket requests are taken to be spread evenly, the first bucket begins at 0, and a quantile in the open
    bucket is the last finite edge. NaN where there is no request.

    Args:
        quantile: above 0 and below 1.
        buckets: requests per bucket of ``LATENCY_EDGES_MS``, not cumulative, shape (13, runs).
    """
    edges = np.array([0.0, *LATENCY_EDGES_MS])
    up_to = np.cumsum(buckets, axis=0, dtype=np.float64)
    rank = quantile * up_to[-1]
    bucket = (up_to[:-1] < rank).sum(axis=0)
    in_open = bucket == len(LATENCY_EDGES_MS)
    at = np.where(in_open, 0, bucket)[np.newaxis]
    inside = np.take_along_axis(np.asarray(buckets, dtype=np.float64), at, axis=0)[0]
    below = np.take_along_axis(up_to, at, axis=0)[0] - inside
    part = np.divide(rank - below, inside, out=np.zeros_like(rank), where=inside > 0)
    low, high = edges[at[0]], edges[at[0] + 1]
    found = np.where(in_open, edges[-1], low + (high - low) * part)
    return np.where(up_to[-1] > 0, found, np.nan)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a query for one version gives for one minute, each of shape (runs,); NaN where there was no request."""

    errors_pct: FloatArray
    p99_ms: FloatArray


@dataclass(frozen=True, slots=True)
class Minute:
    """What is known of both versions in one minute."""

    candidate: Numbers
    stable: Numbers


def minute_of(ticks: Sequence[Tick]) -> Minute:
    """Return the numbers of a minute from its ticks; there is at least one."""
    return Minute(
        _numbers([tick.candidate for tick in ticks]), _numbers([half for tick in ticks for half in tick.stable])
    )


def _numbers(counts: Sequence[ArmCounts]) -> Numbers:
    requests = np.sum([one.requests for one in counts], axis=0)
    failures = np.sum([one.failures for one in counts], axis=0)
    return Numbers(
        _percent(failures, requests), histogram_quantile(0.99, np.sum([one.buckets for one in counts], axis=0))
    )


def _percent(failures: IntArray, requests: IntArray) -> FloatArray:
    share: FloatArray = np.divide(failures, requests, out=np.full(requests.shape, np.nan), where=requests > 0)
    return 100 * share


class Minutely(ABC):
    """A rule that looks once a minute; it is a ``Policy``, and has its attributes."""

    tick_s = _TICK_S
    weight_pct: FloatArray
    outcome: IntArray

    def __init__(self, name: str, weights_pct: Sequence[float] = WEIGHTS_PCT) -> None:
        """Make a rule that goes through these weights, in percent."""
        self.name = name
        self._weights_pct = np.array(weights_pct)

    def start(self, runs: int) -> None:
        """Begin so many releases, at the first weight."""
        self.weight_pct = np.full(runs, self._weights_pct[0])
        self.outcome = np.full(runs, Outcome.RUNNING, dtype=np.int64)
        self._ticks: list[Tick] = []
        self._minutes = 0

    def step(self, now_s: float, tick: Tick) -> None:
        """Take in ten seconds; decide when they complete a minute."""
        self._ticks.append(tick)
        if len(self._ticks) * self.tick_s < _MINUTE_S:
            return
        minute = minute_of(self._ticks)
        self._ticks = []
        self._minutes += 1
        self._look(minute)

    @abstractmethod
    def _look(self, minute: Minute) -> None:
        """Look at the minute that has just ended."""

    def _running(self) -> Bools:
        running: Bools = self.outcome == Outcome.RUNNING
        return running

    def _scheduled(self, minutes: int) -> None:
        """Set the weight of the releases that still run, when each weight lasts so long; promote after the last."""
        if self._minutes % minutes:
            return
        weight = self._minutes // minutes
        if weight < len(self._weights_pct):
            self.weight_pct[self._running()] = self._weights_pct[weight]
        else:
            self.outcome[self._running()] = Outcome.PROMOTED


class Flagger(Minutely):
    """Flagger's canary analysis, with an interval of a minute and a threshold of five failed checks.

    A look begins with the failed checks that there are: have they reached the threshold, the release is rolled back,
    which is one look after the last of them. Else a success rate below the line, a p99 above it, or no value at all is
    one more failed check, and the weight stays. When all is well, the next weight is set, or after the last the
    candidate is promoted. Failed checks are never forgotten while the analysis lasts. A duration is in whole
    milliseconds.
    """

    def __init__(self, name: str, threshold: int = 5) -> None:
        """Make it, with the fixed lines."""
        super().__init__(name)
        self._threshold = threshold

    def start(self, runs: int) -> None:
        """Begin so many releases."""
        super().start(runs)
        self._at = np.zeros(runs, dtype=np.int64)
        self._failed_checks = np.zeros(runs, dtype=np.int64)
        self._most_errors_pct = np.full(runs, MOST_ERRORS_PCT)

    def _look(self, minute: Minute) -> None:
        running = self._running()
        too_many = running & (self._failed_checks >= self._threshold)
        self.outcome[too_many] = Outcome.ROLLED_BACK
        running &= ~too_many
        seen = minute.candidate
        well = (seen.errors_pct <= self._most_errors_pct) & (np.floor(seen.p99_ms) <= MOST_P99_MS)
        self._failed_checks += running & ~well
        last = self._at == len(self._weights_pct) - 1
        self.outcome[running & well & last] = Outcome.PROMOTED
        self._at += running & well & ~last
        self.weight_pct = self._weights_pct[self._at]


class TunedFlagger(Flagger):
    """Flagger with a line for each service: half a point above the error rate of the hour before the release.

    Nobody sets lines so well by hand for every service and keeps them so: this is an oracle, in Flagger's favour.
    """

    def learn(self, history: Iterable[Tick]) -> None:
        """Set the lines from the stable version's history."""
        requests, failures = (np.zeros(len(self.outcome), dtype=np.int64) for _ in range(2))
        for tick in history:
            for half in tick.stable:
                requests += half.requests
                failures += half.failures
        self._most_errors_pct = np.nan_to_num(_percent(failures, requests), nan=0.0) + MORE_ERRORS_POINTS


class Argo(Minutely):
    """Argo Rollouts' canary steps, each weight followed by a pause, with an analysis in the background.

    The analysis measures every minute, for the first time after one (``initialDelay``). A measurement that is not
    within its line fails, and so does NaN, since no comparison with it is true. Failures of a metric add up over the
    whole release; it is aborted when one has more than ``failureLimit``. Whatever else was measured, the candidate is
    promoted when the last pause ends.
    """

    def __init__(self, name: str, relative: bool = False, failure_limit: int = 3, pause_min: int = 5) -> None:
        """Make it, with the fixed lines or with lines relative to the stable version."""
        super().__init__(name)
        self._relative = relative
        self._failure_limit = failure_limit
        self._pause_min = pause_min

    def start(self, runs: int) -> None:
        """Begin so many releases."""
        super().start(runs)
        self._failures = np.zeros((2, runs), dtype=np.int64)

    def _look(self, minute: Minute) -> None:
        most_errors_pct: FloatArray | float = MOST_ERRORS_PCT
        most_p99_ms: FloatArray | float = MOST_P99_MS
        if self._relative:
            most_errors_pct = minute.stable.errors_pct + MORE_ERRORS_POINTS
            most_p99_ms = minute.stable.p99_ms * P99_FACTOR
        seen = minute.candidate
        within = np.stack([seen.errors_pct <= most_errors_pct, seen.p99_ms <= most_p99_ms])
        self._failures += ~within
        self.outcome[self._running() & (self._failures > self._failure_limit).any(axis=0)] = Outcome.ROLLED_BACK
        self._scheduled(self._pause_min)


class Kayenta(Minutely):
    """Releases that Kayenta's judge decides, at the end of each weight, from one point a minute since it was set.

    Metrics are the error rate in percent and the p99 in milliseconds; a single High rolls back. The baseline is the
    whole stable version: Spinnaker recommends a new baseline of the candidate's size, whose points are noisier. Here
    there is less noise, and no pod of the baseline is cold; the first is in Kayenta's favour.
    """

    def __init__(self, name: str, points: int, weights_pct: Sequence[float] = WEIGHTS_PCT) -> None:
        """Make it; each weight lasts for so many points."""
        super().__init__(name, weights_pct)
        self._points = points

    def start(self, runs: int) -> None:
        """Begin so many releases."""
        super().start(runs)
        self._series: list[Minute] = []

    def _look(self, minute: Minute) -> None:
        self._series.append(minute)
        if len(self._series) == self._points:
            at = np.flatnonzero(self._running())
            if at.size:
                self.outcome[at[fails(self._labels(at))]] = Outcome.ROLLED_BACK
            self._series = []
        self._scheduled(self._points)

    def _labels(self, at: NDArray[np.intp]) -> IntArray:
        """Return the labels of both metrics for these releases, shape (2, releases)."""
        candidate = np.array([[m.candidate.errors_pct[at], m.candidate.p99_ms[at]] for m in self._series])
        stable = np.array([[m.stable.errors_pct[at], m.stable.p99_ms[at]] for m in self._series])
        labels = classify(candidate.reshape(self._points, -1), stable.reshape(self._points, -1))
        return labels.reshape(2, -1)


_TUNED, _RELATIVE, _HOUR, _STEPS = "flagger, tuned", "argo, relative", "kayenta, 60 min", "kayenta, steps"
POLICIES: dict[str, Callable[[], Policy]] = {
    "flagger": partial(Flagger, "flagger"),
    _TUNED: partial(TunedFlagger, _TUNED),
    "argo": partial(Argo, "argo"),
    _RELATIVE: partial(Argo, _RELATIVE, relative=True),
    _HOUR: partial(Kayenta, _HOUR, points=60, weights_pct=(5.0,)),
    _STEPS: partial(Kayenta, _STEPS, points=10),
}
"""The peers' rules by name, each made anew by a call."""
