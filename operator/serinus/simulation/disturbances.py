"""Noise as it comes: bursts, glitches, each pod's luck, cold pods and overload, for many runs side by side.

Every source draws from a generator of its own, and as much in one tick as in any other; so what happens to a service
does not depend on how a release moves its traffic.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from serinus.api.base import seconds
from serinus.simulation.latencies import FloatArray, Number
from serinus.simulation.processes import Episodes, Luck
from serinus.simulation.traffic import TrafficModel
from serinus.simulation.trouble import Glitches, Noise, Overload, WarmUp


@dataclass(frozen=True, slots=True)
class Conditions:
    """What noise does to an arm in one tick: ``error_factor`` times the errors, plus ``error_share`` (0 to 1)."""

    error_factor: Number = 1.0
    error_share: Number = 0.0
    latency_factor: Number = 1.0

    @property
    def plain(self) -> bool:
        """Whether they are numbers, the same for all runs."""
        return all(isinstance(each, float) for each in (self.error_factor, self.error_share, self.latency_factor))

    def with_more(self, error_share: Number = 0.0, latency_factor: Number = 1.0) -> "Conditions":
        """Return these conditions with more of the same."""
        return Conditions(
            self.error_factor, self.error_share + error_share, _times(self.latency_factor, latency_factor)
        )


def _times(one: Number, other: Number) -> Number:
    return other if isinstance(one, float) and one == 1.0 else one * other


class Pods:
    """The noise of single pods of one version."""

    def __init__(self, random: Generator, noise: Noise, pods: int, runs: int) -> None:
        self._pods = pods
        self._errors = self._latency = None
        if luck := noise.pods:
            correlation_s = seconds(luck.correlation)
            if luck.errors_cv:
                self._errors = Luck(random, (pods, runs), luck.errors_cv, correlation_s)
            if luck.latency_cv:
                self._latency = Luck(random, (pods, runs), luck.latency_cv, correlation_s)
        self._glitches = _glitches(random, noise.glitches, pods, runs)
        self._glitch_share = noise.glitches.percent / 100 if noise.glitches else 0.0

    def advance(self, tick_s: float, weights: FloatArray) -> Conditions:
        """Return the next tick's conditions of one or several arms.

        Args:
            tick_s: length of the tick, in seconds.
            weights: each pod's share of an arm, the last axis is the pods'.

        Returns:
            Numbers, or arrays of the shape of ``weights`` with runs in place of pods.
        """
        self._grow(weights.shape[-1])
        live = slice(weights.shape[-1])
        return Conditions(
            1.0 if self._errors is None else weights @ self._errors.advance(tick_s)[live],
            0.0 if self._glitches is None else weights @ self._glitches.advance(tick_s)[live] * self._glitch_share,
            1.0 if self._latency is None else weights @ self._latency.advance(tick_s)[live],
        )

    def _grow(self, pods: int) -> None:
        if pods > self._pods:
            for part in (self._errors, self._latency, self._glitches):
                if part is not None:
                    part.grow(pods)
            self._pods = pods


def _glitches(random: Generator, glitches: Glitches | None, pods: int, runs: int) -> Episodes | None:
    if glitches is None:
        return None
    return Episodes(random, (pods, runs), seconds(glitches.every), seconds(glitches.lasts), fixed=True)


class Cold:
    """How cold the candidate's pods are: 1 until a pod's first request, then falling exponentially."""

    def __init__(self, warm_up: WarmUp, runs: int) -> None:
        self._warm_up = warm_up
        self._decay_s = seconds(warm_up.decay)
        self._cold = np.ones((0, runs))

    def advance(self, conditions: Conditions, tick_s: float, serving: NDArray[np.bool_], pods: int) -> Conditions:
        """Return the next tick's conditions with what cold pods add.

        Args:
            conditions: those without it.
            tick_s: length of the tick, in seconds.
            serving: which runs send requests to the candidate.
            pods: how many there are; new ones are cold.
        """
        present, runs = self._cold.shape
        if pods != present:
            self._cold = np.concatenate([self._cold[:pods], np.ones((max(0, pods - present), runs))])
        left = float(np.exp(-tick_s / self._decay_s))
        cold = self._cold.mean(axis=0) * (1 - left) * self._decay_s / tick_s
        self._cold[:, serving] *= left
        what = self._warm_up
        return Conditions(
            _times(conditions.error_factor, 1 + (what.errors_factor - 1) * cold),
            conditions.error_share + what.error_points / 100 * cold,
            _times(conditions.latency_factor, 1 + (what.latency_factor - 1) * cold),
        )


def overloaded(conditions: Conditions, overload: Overload, per_pod: FloatArray) -> Conditions:
    """Return the conditions with what too many requests per second and pod add."""
    excess = np.maximum(per_pod / overload.per_pod - 1, 0.0)
    return conditions.with_more(overload.error_points / 100 * excess, 1 + (overload.latency_factor - 1) * excess)


def halves(pods: int) -> FloatArray:
    """Return each pod's share of the two halves of a version's requests, shape ``(2, pods)``.

    The middle one of an odd number of pods belongs to both halves, so that these do not differ.
    """
    place = np.arange(pods)
    first = np.clip(pods / 2 - place, 0.0, 1.0)
    return np.stack([first, 1 - first]) / (pods / 2)


class Disturbances:
    """All noise of a model that changes how requests are answered."""

    def __init__(self, model: TrafficModel, runs: int, shared: Generator, stable: Generator, candidate: Generator):
        noise = model.noise
        self._noise = noise
        self._runs = runs
        self._bursts = None
        if bursts := noise.bursts:
            self._bursts = Episodes(shared, (runs,), seconds(bursts.every), seconds(bursts.lasts), fixed=False)
        self._stable = Pods(stable, noise, model.pods.stable, runs)
        self._stable_weights = halves(model.pods.stable)
        self._candidate = Pods(candidate, noise, model.pods.candidate, runs)
        self._cold = Cold(noise.warm_up, runs) if noise.warm_up else None

    def advance(
        self, tick_s: float, candidate_rate: FloatArray, stable_rate: FloatArray, candidate_pods: int
    ) -> tuple[Conditions, Conditions]:
        """Return the next tick's conditions of the candidate, and of the two halves of the stable version.

        Args:
            tick_s: length of the tick, in seconds.
            candidate_rate: requests per second to the candidate, shape ``(runs,)``.
            stable_rate: requests per second to the whole stable version, shape ``(runs,)``.
            candidate_pods: how many share the candidate's requests.

        Returns:
            Conditions whose numbers are floats or have the shapes ``(runs,)`` and ``(2, runs)``, or ``(runs,)``.
        """
        candidate = self._candidate.advance(tick_s, np.full(candidate_pods, 1 / candidate_pods))
        stable = self._stable.advance(tick_s, self._stable_weights)
        if self._cold is not None:
            candidate = self._cold.advance(candidate, tick_s, candidate_rate > 0, candidate_pods)
        if (burst := self._burst(tick_s)) is not None:
            candidate, stable = candidate.with_more(*burst), stable.with_more(*burst)
        if overload := self._noise.overload:
            candidate = overloaded(candidate, overload, candidate_rate / candidate_pods)
            stable = overloaded(stable, overload, stable_rate / self._stable_weights.shape[1])
        return candidate, stable

    def before(self, tick_s: float, stable_rates: FloatArray) -> Conditions:
        """Return the conditions of the two halves of the stable version in ticks before the run, all at once.

        Args:
            tick_s: length of a tick, in seconds.
            stable_rates: requests per second to the whole stable version, shape ``(ticks,)``.

        Returns:
            Conditions whose numbers have the shape ``(2, ticks, runs)``.
        """
        ticks = len(stable_rates)
        met = np.empty((3, 2, ticks, self._runs))
        for tick in range(ticks):
            stable = self._stable.advance(tick_s, self._stable_weights)
            if (burst := self._burst(tick_s)) is not None:
                stable = stable.with_more(*burst)
            met[0, :, tick], met[1, :, tick] = stable.error_factor, stable.error_share
            met[2, :, tick] = stable.latency_factor
        conditions = Conditions(*met)
        if overload := self._noise.overload:
            per_pod = stable_rates[:, np.newaxis] / self._stable_weights.shape[1]
            conditions = overloaded(conditions, overload, per_pod)
        return conditions

    def _burst(self, tick_s: float) -> tuple[FloatArray, FloatArray] | None:
        """Return what a burst of trouble in the next tick adds to the errors, and its factor on latencies."""
        bursts = self._noise.bursts
        if bursts is None or self._bursts is None:
            return None
        share = self._bursts.advance(tick_s)
        return bursts.error_points / 100 * share, 1 + (bursts.latency_factor - 1) * share
