"""How both versions behave while a call of theirs fails on purpose, as a traffic model says it, and what is counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from serinus.analysis.model import LATENCY_EDGES_MS, Counts
from serinus.api.base import Duration, Strict, seconds
from serinus.simulation.fields import Percent, SomeTime


class Coping(Strict):
    """How one version behaves while calls of a dependency fail: nothing changes by default."""

    errors: Percent = 0
    """How many percent of its requests fail because of that."""
    slow: Percent = 0
    """How many percent of its answers take longer."""
    slow_by: SomeTime = "1s"
    """By how much these take longer."""
    calls: Annotated[float, Field(ge=0, le=100)] = 1
    """Calls of the dependency for each request."""
    recovers_after: Duration = "0s"
    """How long after the fault it still behaves like that."""


class Failing(Strict):
    """What happens while an experiment of the Canary lets calls fail."""

    experiment: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    """Its name in the Canary. Without it, all experiments that no other entry names."""
    stable: Coping = Coping()
    """How the stable version behaves."""
    candidate: Coping | None = None
    """How the candidate behaves. Without it, like the stable version."""
    spill_over: Percent = 0
    """How many percent of the requests outside of the two groups fail because of the experiment."""

    @property
    def both(self) -> tuple[Coping, Coping]:
        """The candidate's way, and the stable version's."""
        return self.candidate or self.stable, self.stable


def failing(entries: Sequence[Failing], experiment: str) -> Failing:
    """Return what the model says of an experiment."""
    named = [each for each in entries if each.experiment == experiment]
    others = [each for each in entries if each.experiment is None]
    return (named or others or [Failing()])[0]


@dataclass(slots=True)
class Groups:
    """What the two groups of an experiment have counted: tries and calls, of the candidate's group and of stable's.

    A call of a group is one to the dependency; without a fault each request makes one.
    """

    random: np.random.Generator
    counted: list[Counts]
    calls: list[int]

    @classmethod
    def start(cls, seed: int) -> "Groups":
        """Return groups that have counted nothing. Their luck is their own, and another seed gives another."""
        return cls(np.random.default_rng([seed, 5]), [Counts(), Counts()], [0, 0])

    def take(self, group: int, seen: Counts, way: Coping | None) -> Counts:
        """Add what a group has answered in a tick, and return it.

        Args:
            group: 0 for the candidate's, 1 for stable's.
            seen: what it would have counted without the fault.
            way: how it behaves now; None where nothing fails.
        """
        if way is not None:
            seen = Counts(seen.requests, seen.failures, self._slowed(seen.buckets, way))
            seen = self.failed(seen, way.errors)
        self.counted[group] += seen
        self.calls[group] += int(self.random.poisson(seen.requests * (way.calls if way else 1.0)))
        return seen

    def failed(self, seen: Counts, percent: float) -> Counts:
        """Return counts of which so many percent more failed."""
        more = int(self.random.binomial(seen.requests - seen.failures, percent / 100))
        return Counts(seen.requests, seen.failures + more, seen.buckets)

    def _slowed(self, buckets: tuple[int, ...], way: Coping) -> tuple[int, ...]:
        if not way.slow:
            return buckets
        found = list(buckets)
        for index, number in enumerate(buckets):
            slow = int(self.random.binomial(number, way.slow / 100))
            found[index] -= slow
            found[_later(index, 1000 * seconds(way.slow_by))] += slow
        return tuple(found)


def _later(index: int, more_ms: float) -> int:
    """Return the bucket of an answer that would have been in this one, had it not taken so much longer."""
    last = len(LATENCY_EDGES_MS)
    if index >= last:
        return last
    took_ms = LATENCY_EDGES_MS[index] + more_ms
    return next((at for at, edge in enumerate(LATENCY_EDGES_MS) if took_ms <= edge), last)
