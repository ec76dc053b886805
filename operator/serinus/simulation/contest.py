"""Releases played to their ends: one policy in one world, many runs side by side."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from serinus.simulation.policy import Outcome, Policy
from serinus.simulation.traffic import TrafficModel
from serinus.simulation.world import FloatArray, IntArray, Tick, World

HORIZON_S = 7200.0
"""How long releases are followed; harm is counted until then."""
HISTORY_S = 3600.0
"""How long the stable version is known before the run, by a policy that learns from it."""


@runtime_checkable
class Learner(Protocol):
    """A policy that looks at what the stable version did before the run."""

    def learn(self, history: Iterable[Tick]) -> None:
        """Take in the history, tick by tick. It is called once, after ``start``."""


@runtime_checkable
class Watcher(Protocol):
    """A policy whose releases pass first, and are promoted when they have been watched for a while.

    ``passed_s`` is when, in seconds, NaN before.
    """

    passed_s: FloatArray


@runtime_checkable
class Tester(Protocol):
    """A policy that tells the most evidence for harm that each family of metrics ever had, in nats."""

    peaks: dict[str, FloatArray]


@dataclass(frozen=True, slots=True)
class Releases:
    """How the releases of one policy went, all of shape (runs,).

    ``outcome`` is that at the horizon. ``ended_s`` is when it was decided, ``shipped_s`` when the release passed: it
    was promoted, or its watch began; NaN where neither happened. ``hurt`` is how many bad responses the defect caused
    until the horizon, those after a wrong promotion included.
    """

    outcome: IntArray
    ended_s: FloatArray
    shipped_s: FloatArray
    hurt: FloatArray
    peaks: dict[str, FloatArray] = field(default_factory=dict)


def play(policy: Policy, model: TrafficModel, runs: int, seed: int, horizon_s: float = HORIZON_S) -> Releases:
    """Play releases until all of them have ended, or to the horizon.

    A bad release that was promoted has all requests from then on, and goes on hurting.

    Args:
        policy: what decides.
        model: the world; a defect of it makes the releases bad.
        runs: how many releases.
        seed: another one gives another history of the same world.
        horizon_s: how long they are followed, in seconds.
    """
    world = World(model, runs, seed, policy.tick_s)
    policy.start(runs)
    if isinstance(policy, Learner):
        policy.learn(world.history(HISTORY_S))
    hurt, ended_s, shipped_s = np.zeros(runs), np.full(runs, np.nan), np.full(runs, np.nan)
    promoted = np.zeros(runs, dtype=bool)
    while world.now_s < horizon_s - 1e-9:
        going = policy.outcome == Outcome.RUNNING
        hurting = promoted & bool(model.defects)
        if not going.any() and not hurting.any():
            break
        tick = world.tick(np.select([going, hurting], [policy.weight_pct, 100.0]))
        hurt += tick.hurt
        if not going.any():
            continue
        policy.step(world.now_s, tick)
        ended_s[going & (policy.outcome != Outcome.RUNNING)] = world.now_s
        promoted = policy.outcome == Outcome.PROMOTED
        shipped = policy.passed_s if isinstance(policy, Watcher) else np.where(promoted, ended_s, np.nan)
        shipped_s = np.where(np.isnan(shipped_s), shipped, shipped_s)
    peaks = dict(policy.peaks) if isinstance(policy, Tester) else {}
    return Releases(policy.outcome.copy(), ended_s, shipped_s, hurt, peaks)
