"""Which share of an arm's requests fails or is slow: the service, what noise does to it, and the defects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce

import numpy as np

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.api.base import seconds
from serinus.simulation.disturbances import Conditions
from serinus.simulation.latencies import FloatArray, Latencies, Number, shares_above, shifted
from serinus.simulation.traffic import Endpoint, TrafficModel
from serinus.simulation.trouble import Defect

Showing = tuple[Defect, Number]
"""A defect and how much of it shows, 0 to 1."""


@dataclass(frozen=True)
class Answers:
    """Shares of an arm's requests, 0 to 1. Numbers are for all runs, arrays have runs on their last axis.

    ``failing`` includes ``unanswered``, which has no latency. ``above`` are the shares of the others that take longer
    than each of ``LATENCY_EDGES_MS``; its first axis is the edges'. ``bad`` fail or are slower than the slow line.
    """

    failing: Number
    unanswered: Number
    above: FloatArray
    bad: Number

    @cached_property
    def buckets(self) -> FloatArray:
        """The share of the answered requests in each latency bucket; the first axis is the buckets'."""
        ends = np.ones((1, *self.above.shape[1:]))
        return np.maximum(-np.diff(np.concatenate([ends, self.above, 0 * ends]), axis=0), 0.0)


@dataclass(frozen=True)
class _Part:
    """Some of the requests: their share of all, their error rate, and their latencies.

    ``own_errors`` do not change with time; ``following`` is the share of the part that has the service's error rate.
    """

    share: float
    own_errors: float
    following: float
    latencies: Latencies
    endpoint: str = ""

    def answers(self, errors: Number, conditions: Conditions, defects: Sequence[Showing]) -> Answers:
        """Return the answers to this part. Causes of errors add up; factors multiply."""
        if defects or not isinstance(errors, float) or not conditions.plain:
            return self._answers(errors, conditions, tuple(defects))
        return self._known(errors, conditions, ())

    @cached_property
    def _known(self) -> Callable[[float, Conditions, tuple[Showing, ...]], Answers]:
        """``_answers``, which remembers them: where nothing happens, one tick is like another."""
        return lru_cache(maxsize=64)(self._answers)

    def _answers(self, errors: Number, conditions: Conditions, defects: tuple[Showing, ...]) -> Answers:
        ratio: Number = 1.0
        points: Number = 0.0
        unanswered: Number = 0.0
        factor, tails = conditions.latency_factor, []
        for defect, size in defects:
            added = size * (1.0 if defect.outage else (defect.error_points or 0.0) / 100)
            points = points + added
            unanswered = unanswered + (added if defect.unanswered else 0.0)
            if defect.error_ratio is not None:
                ratio = ratio * (1 + (defect.error_ratio - 1) * size)
            if defect.latency_factor is not None:
                factor = factor * (1 + (defect.latency_factor - 1) * size)
            if defect.slow_tail is not None:
                tails.append((defect.slow_tail.percent / 100 * size, seconds(defect.slow_tail.add) * 1000))
        base = self.own_errors + self.following * errors
        failing = np.clip(base * ratio * conditions.error_factor + points + conditions.error_share, 0.0, 1.0)
        above = self._above(factor, tails)
        return Answers(failing, np.minimum(unanswered, 1.0), above[:-1], failing + (1 - failing) * above[-1])

    def _above(self, factor: Number, tails: Sequence[tuple[Number, float]]) -> FloatArray:
        plain = self.latencies.above(factor)
        return reduce(
            lambda above, tail: above + tail[0] * (self.latencies.above(factor, tail[1]) - plain), tails, plain
        )


def _mixed(shares: Sequence[tuple[float, Answers]]) -> Answers:
    if len(shares) == 1:
        return shares[0][1]
    return Answers(
        sum(share * answers.failing for share, answers in shares),
        sum(share * answers.unanswered for share, answers in shares),
        sum((share * answers.above for share, answers in shares), start=np.zeros((1, 1))),
        sum(share * answers.bad for share, answers in shares),
    )


class Service:
    """A model's service, as it answers."""

    def __init__(self, model: TrafficModel) -> None:
        self._plain = shares_above(model.latency)
        self._limits_ms = (*LATENCY_EDGES_MS, seconds(model.slow_line) * 1000)
        rest = Endpoint(name="*", percent=max(0.0, 100 - sum(each.percent for each in model.endpoints)))
        endpoints = [each for each in (*model.endpoints, rest) if each.percent]
        broken = {defect.endpoint for defect in model.defects}
        self._whole = self._part(endpoints)
        alone = [self._part([each], each.name) for each in endpoints if each.name in broken]
        others = [each for each in endpoints if each.name not in broken]
        self._parts = [*alone, self._part(others)] if alone and others else alone or [self._whole]

    def stable(self, errors: Number, conditions: Conditions) -> Answers:
        """Return how the stable version answers. ``errors`` is the service's error rate, 0 to 1.

        It may be an array, in conditions that are arrays, too.
        """
        return self._whole.answers(errors, conditions, ())

    def candidate(self, errors: float, conditions: Conditions, defects: Sequence[Showing], pods: int) -> Answers:
        """Return how the candidate answers with these defects, of which some show in one of its pods only."""
        if not any(defect.one_pod_only for defect, _ in defects):
            return self._one_kind(errors, conditions, defects)
        elsewhere = [(defect, size) for defect, size in defects if not defect.one_pod_only]
        one, others = (self._one_kind(errors, conditions, showing) for showing in (defects, elsewhere))
        return _mixed([(1 / pods, one), (1 - 1 / pods, others)])

    def _one_kind(self, errors: float, conditions: Conditions, defects: Sequence[Showing]) -> Answers:
        return _mixed(
            [
                (
                    part.share,
                    part.answers(
                        errors, conditions, [each for each in defects if each[0].endpoint in (None, part.endpoint)]
                    ),
                )
                for part in self._parts
            ]
        )

    def _part(self, endpoints: Sequence[Endpoint], name: str = "") -> _Part:
        """Return the part of the requests that these endpoints have together."""
        total = sum(each.percent for each in endpoints)
        shares = [(each, each.percent / total) for each in endpoints]
        if all(each.latency_factor == 1 for each in endpoints):
            above = self._plain
        else:
            above = np.sum([share * shifted(self._plain, each.latency_factor) for each, share in shares], axis=0)
        own = sum(share * each.errors / 100 for each, share in shares if each.errors is not None)
        following = sum(share for each, share in shares if each.errors is None)
        return _Part(total / 100, own, following, Latencies(above, self._limits_ms), name)
