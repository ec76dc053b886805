"""The simulated world: a traffic model played in virtual time, for many releases side by side.

It yields what the evidence reader would have seen, and beside it what only a simulation can know: how many bad
responses the defect caused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from zlib import crc32

import numpy as np
from numpy.random import SeedSequence, default_rng

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.simulation.answers import Answers, Service, Showing
from serinus.simulation.defects import Onset, shows
from serinus.simulation.disturbances import Conditions, Disturbances
from serinus.simulation.latencies import FloatArray, Number
from serinus.simulation.scrapes import IntArray, Scrapes
from serinus.simulation.series import Series
from serinus.simulation.timeline import Timeline, of_changes, of_series
from serinus.simulation.traffic import TrafficModel

__all__ = ["ArmCounts", "FloatArray", "IntArray", "Tick", "World"]

BUCKETS = len(LATENCY_EDGES_MS) + 1
_ARMS = 3
_NEGLIGIBLE = 1e-12
"""Latency buckets with less than this share of the requests stay empty."""


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """What the evidence reader saw of one arm in one tick, as differences of counters.

    ``requests`` and ``failures`` have the shape ``(runs,)``. ``buckets`` are the tries per latency bucket, not
    cumulative, shape ``(13, runs)``; what was not answered at all is in none.
    """

    requests: IntArray
    failures: IntArray
    buckets: IntArray


@dataclass(frozen=True, slots=True)
class Tick:
    """What was seen of both versions in one tick; ``stable`` are two halves of its pods.

    ``arms`` are the two groups of an experiment, the candidate's first, as if nothing failed on purpose; None without.
    ``hurt`` is how many bad responses (failed, or slower than the slow line) the defects, not the noise, are expected
    to have caused among the requests of this tick, those to the candidate's group included, whether a scrape saw these
    or not; shape ``(runs,)``.
    """

    candidate: ArmCounts
    stable: tuple[ArmCounts, ArmCounts]
    hurt: FloatArray
    arms: tuple[ArmCounts, ArmCounts] | None = None


class World:
    """A service with its stable version and a candidate, in ``runs`` independent copies.

    The same model, seed and calls give the same numbers. Requests are a Poisson process, so the requests in each
    latency bucket are independent Poisson counts; failures are binomial, and independent of latency.
    """

    now_s: float
    """Virtual seconds since the begin of the run; negative during the history."""

    def __init__(self, model: TrafficModel, runs: int, seed: int, tick_s: float = 2.0) -> None:
        """Make a world at the begin of the run.

        Args:
            model: the traffic model, with the numbers of its files, as ``load_traffic`` returns it.
            runs: how many releases are simulated side by side.
            seed: another one gives another history of the same world.
            tick_s: time between two scrapes, in seconds.

        Raises:
            ValueError: a series of the model has not been read from its file.
        """
        self.now_s = 0.0
        self._model = model
        self._runs = runs
        self._tick_s = tick_s
        canonical = model.model_dump_json(by_alias=True, exclude={"faults"})  # these are not this world's luck
        streams = SeedSequence(crc32(f"{canonical}\n{seed}".encode())).spawn(5)
        arrivals, shared, stable, candidate, scrapes = (default_rng(stream) for stream in streams)
        self._random = arrivals
        self._requests, self._errors = _timelines(model)
        self._service = Service(model)
        self._disturbances = Disturbances(model, runs, shared, stable, candidate)
        self._onsets = [(defect, Onset(defect)) for defect in model.defects]
        self._scrapes = Scrapes(scrapes, model.noise, runs)

    def history(self, span_s: float) -> Iterator[Tick]:
        """Play the time before the run, when there is only the stable version, tick by tick; ``past`` is much faster.

        Use it up before the first ``tick``.

        Args:
            span_s: how long, in seconds; whole ticks of it are played, and the last ends as the run begins.
        """
        ticks = ceil(span_s / self._tick_s - 1e-9)
        nothing = np.zeros(self._runs)
        for left in range(ticks, 0, -1):
            self.now_s = -left * self._tick_s
            yield self._play(nothing, self._model.pods.candidate)
        self.now_s = 0.0

    def past(self, span_s: float) -> ArmCounts:
        """Return all that was counted of the stable version in the time before the run, as good scrapes would have it.

        It is drawn at once, in the place of ``history``, and tells nothing of single ticks.

        Args:
            span_s: how long, in seconds; whole ticks of it are played, and the last ends as the run begins.
        """
        ticks = ceil(span_s / self._tick_s - 1e-9)
        if not ticks:
            nothing = np.zeros(self._runs, dtype=np.int64)
            return ArmCounts(nothing, nothing, np.zeros((BUCKETS, self._runs), dtype=np.int64))
        times = [(-left * self._tick_s, (1 - left) * self._tick_s) for left in range(ticks, 0, -1)]
        rates = np.array([self._requests.mean(*time) for time in times])
        errors = np.array([self._errors.mean(*time) for time in times]) / 100
        conditions = self._disturbances.before(self._tick_s, rates)
        answers = self._service.stable(errors[:, np.newaxis], conditions)
        counts = self._random.poisson(answers.buckets * rates[:, np.newaxis] * self._tick_s / 2)
        with_latency = counts.sum(axis=0)
        failures = self._random.binomial(with_latency, answers.failing)
        return ArmCounts(with_latency.sum(axis=(0, 1)), failures.sum(axis=(0, 1)), counts.sum(axis=(1, 2)))

    def tick(self, weight_pct: FloatArray, candidate_pods: int | None = None, arms_pct: float = 0.0) -> Tick:
        """Play the next ``tick_s`` seconds.

        Args:
            weight_pct: the candidate's share of the requests in percent, shape ``(runs,)``; 0 where a run is over.
            candidate_pods: how many pods it has; None means as many as the model says.
            arms_pct: which share of the requests each of an experiment's two groups gets, before the weight divides
                the rest.

        Raises:
            ValueError: the weights have another shape or are not between 0 and 100.
        """
        if weight_pct.shape != (self._runs,) or weight_pct.min() < 0 or weight_pct.max() > 100:
            raise ValueError(f"weights are {self._runs} percentages from 0 to 100, one for each run")
        pods = self._model.pods.candidate if candidate_pods is None else max(1, candidate_pods)
        return self._play(weight_pct, pods, arms_pct)

    def _play(self, weight_pct: FloatArray, pods: int, arms_pct: float = 0.0) -> Tick:
        begin_s, end_s = self.now_s, self.now_s + self._tick_s
        every = self._requests.mean(begin_s, end_s)
        rate = every * (1 - 2 * arms_pct / 100)
        candidate_rate, stable_rate = rate * weight_pct / 100, rate * (1 - weight_pct / 100)
        errors = self._errors.mean(begin_s, end_s) / 100
        candidate, stable = self._disturbances.advance(self._tick_s, candidate_rate, stable_rate, pods)
        showing = [(defect, onset.advance(begin_s, self._tick_s, weight_pct)) for defect, onset in self._onsets]
        answers, harm = self._candidate(errors, candidate, showing, pods)
        of_stable = self._service.stable(errors, stable)
        happened = self._draw(
            np.stack([candidate_rate, stable_rate / 2, stable_rate / 2]) * self._tick_s, answers, of_stable
        )
        arms = self._groups(every * arms_pct / 100 * self._tick_s, answers, of_stable) if arms_pct else None
        seen = self._scrapes.read(happened, end_s, self._tick_s)
        self.now_s = end_s
        clean = [ArmCounts(seen[0, arm], seen[1, arm], seen[2:, arm]) for arm in range(_ARMS)]
        met = happened[0, 0] + (arms[0].requests if arms else 0)
        return Tick(clean[0], (clean[1], clean[2]), met * harm, arms)

    def _groups(self, expected: float, candidate: Answers, stable: Answers) -> tuple[ArmCounts, ArmCounts]:
        """Return what an experiment's groups count, each of which gets so many requests; no scrape of it fails."""
        counts = self._draw(
            np.full((_ARMS, self._runs), [[expected], [expected / 2], [expected / 2]]), candidate, stable
        )
        both = counts[:, 0], counts[:, 1] + counts[:, 2]
        one, two = (ArmCounts(each[0], each[1], each[2:]) for each in both)
        return one, two

    def _candidate(
        self, errors: float, conditions: Conditions, showing: list[Showing], pods: int
    ) -> tuple[Answers, Number]:
        """Return how the candidate answers, and which share of its answers is bad because of its defects."""
        showing = [(defect, size) for defect, size in showing if shows(size)]
        good = self._service.candidate(errors, conditions, [], pods)
        if not showing:
            return good, 0.0
        answers = self._service.candidate(errors, conditions, showing, pods)
        return answers, np.maximum(answers.bad - good.bad, 0.0)

    def _draw(self, expected: FloatArray, candidate: Answers, stable: Answers) -> IntArray:
        """Return the counts of a tick for ``Scrapes``. ``expected`` are the arms' requests, shape ``(arms, runs)``."""
        failing = np.empty_like(expected)
        failing[0], failing[1:] = candidate.failing, stable.failing
        unanswered = np.zeros_like(expected)
        unanswered[0] = candidate.unanswered
        answered = expected * (1 - unanswered)
        shares = np.empty((BUCKETS, *expected.shape))
        shares[:, 0] = candidate.buckets
        of_stable = stable.buckets
        shares[:, 1:] = of_stable if of_stable.ndim == shares.ndim else of_stable[:, np.newaxis]
        counts = np.zeros((2 + BUCKETS, *expected.shape), dtype=np.int64)
        likely = shares.max(axis=(1, 2)) > _NEGLIGIBLE
        counts[2:][likely] = self._random.poisson(shares[likely] * answered)
        with_latency = counts[2:].sum(axis=0)
        refused = self._random.poisson(expected * unanswered) if unanswered.any() else 0
        others = np.clip((failing - unanswered) / np.maximum(1 - unanswered, 1e-300), 0.0, 1.0)
        counts[0] = with_latency + refused
        counts[1] = refused + self._random.binomial(with_latency, others)
        return counts


def _timelines(model: TrafficModel) -> tuple[Timeline, Timeline]:
    """Return requests per second and the error rate in percent."""
    requests, errors = model.requests, model.errors
    return (
        _read(requests.series)
        if requests.series
        else of_changes(requests.per_second or 0.0, [(change, change.to) for change in requests.changes]),
        _read(errors.series)
        if errors.series
        else of_changes(errors.percent, [(change, change.to) for change in errors.changes]),
    )


def _read(series: Series) -> Timeline:
    if not series.values:
        raise ValueError(f'the series in "{series.file}" has not been read; load the model by load_traffic')
    return of_series(series)
