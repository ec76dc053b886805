"""How many answers take longer than each limit, for any factor that all latencies are multiplied by."""

from functools import lru_cache
from math import erfc, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serinus.api.base import seconds
from serinus.simulation.traffic import Latency

FloatArray = NDArray[np.float64]
Number = float | FloatArray
"""One number for all runs, or an array with one for each run on its last axis."""

_LOW, _HIGH, _STEP = log(1e-3), log(1e8), 0.002
_GRID = np.arange(_LOW, _HIGH, _STEP)
_NEVER = 1e-3
"""A limit in milliseconds that every answer exceeds."""


def shares_above(latency: Latency) -> FloatArray:
    """Return the share of answers that take longer than ``exp(grid)`` milliseconds, for the grid of ``Latencies``.

    A log-normal distribution's share above x is ``erfc(z / sqrt 2) / 2`` with ``z = ln(x / median) / sigma``. With
    quantiles, z is linear in ln x between the given points, and beyond the outer ones.
    """
    if latency.quantiles:
        logs = [log(seconds(point.at) * 1000) for point in latency.quantiles]
        scores = [NormalDist().inv_cdf(point.percent / 100) for point in latency.quantiles]
        return _normal_above(_linear(logs, scores))
    above = _log_normal(latency.median, latency.sigma)
    if latency.slow is None:
        return above
    share = latency.slow.percent / 100
    return (1 - share) * above + share * _log_normal(latency.slow.median, latency.slow.sigma)


def _log_normal(median: str, sigma: float) -> FloatArray:
    return _normal_above((_GRID - log(seconds(median) * 1000)) / sigma)


def _normal_above(scores: FloatArray) -> FloatArray:
    return np.array([erfc(score / sqrt(2)) / 2 for score in scores])


def _linear(logs: list[float], scores: list[float]) -> FloatArray:
    """Return the scores at the grid, going on beyond both ends with the slope of the outer pieces."""
    inside: FloatArray = np.interp(_GRID, logs, scores)
    first = (scores[1] - scores[0]) / (logs[1] - logs[0])
    last = (scores[-1] - scores[-2]) / (logs[-1] - logs[-2])
    inside += np.minimum(_GRID - logs[0], 0) * first + np.maximum(_GRID - logs[-1], 0) * last
    return inside


class Latencies:
    """One latency distribution, asked for its shares above fixed limits (ms). Not thread-safe."""

    def __init__(self, above: FloatArray, limits_ms: tuple[float, ...]) -> None:
        self._above = above
        self._limits_ms = limits_ms
        self._steps = np.append(np.diff(above), 0.0)
        self._logs = lru_cache(maxsize=64)(self._logs_after)
        self._same = lru_cache(maxsize=256)(self._look_up)

    def above(self, factor: Number, added_ms: float = 0.0) -> FloatArray:
        """Return the share of answers above each limit when each latency is ``factor`` times, and then adds, so much.

        Args:
            factor: a float, or an array of some shape ``S``.
            added_ms: in milliseconds.

        Returns:
            Shape ``(limits, 1)`` for a float, else ``(limits, *S)``. Do not write into it.
        """
        if isinstance(factor, float):
            return self._same(factor, added_ms)
        return self._look_up(factor, added_ms)

    def _logs_after(self, added_ms: float) -> FloatArray:
        return np.array([log(max(limit - added_ms, _NEVER)) for limit in self._limits_ms])

    def _look_up(self, factor: Number, added_ms: float) -> FloatArray:
        shift = np.log(np.atleast_1d(factor))
        logs = self._logs(added_ms).reshape(-1, *(1,) * shift.ndim)
        place = np.clip((logs - shift - _LOW) / _STEP, 0, len(self._above) - 1)
        index = place.astype(np.int64)
        found: FloatArray = self._above[index] + self._steps[index] * (place - index)
        return found


def shifted(above: FloatArray, factor: float) -> FloatArray:
    """Return the shares of a distribution whose latencies are ``factor`` times those of ``above``."""
    return np.interp(_GRID - log(factor), _GRID, above)
