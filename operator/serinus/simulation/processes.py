"""Random processes in time, many side by side; ticks of any length give the same process."""

import numpy as np
from numpy.random import Generator

from serinus.simulation.latencies import FloatArray


class Episodes:
    """Times of trouble that come and go at random moments: one alternating renewal process for each cell.

    Gaps are exponential with mean ``every_s``; lengths are ``lasts_s``, as a mean of exponential ones unless ``fixed``.
    The processes are stationary from the first tick on.
    """

    def __init__(self, random: Generator, shape: tuple[int, ...], every_s: float, lasts_s: float, fixed: bool) -> None:
        self._random = random
        self._every_s = every_s
        self._lasts_s = lasts_s
        self._fixed = fixed
        self._begin, self._end = self._first(shape)

    def advance(self, tick_s: float) -> FloatArray:
        """Return which share of the next tick lies within episodes, 0 to 1, for each cell."""
        covered = self._within(tick_s)
        while (over := self._end < tick_s).any():
            begin = self._end[over] + self._random.exponential(self._every_s, int(over.sum()))
            self._begin[over], self._end[over] = begin, begin + self._lengths(begin.shape)
            covered += np.where(over, self._within(tick_s), 0.0)
        self._begin -= tick_s
        self._end -= tick_s
        return covered / tick_s

    def grow(self, rows: int) -> None:
        """Have so many cells along the first axis, the present ones among them."""
        begin, end = self._first((rows - len(self._begin), *self._begin.shape[1:]))
        self._begin = np.concatenate([self._begin, begin])
        self._end = np.concatenate([self._end, end])

    def _within(self, tick_s: float) -> FloatArray:
        covered: FloatArray = np.minimum(self._end, tick_s) - np.maximum(self._begin, 0.0)
        return covered.clip(min=0.0)

    def _first(self, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Begin in the middle of an episode with the probability of being in one; both parts of it are then random."""
        begin = self._random.exponential(self._every_s, shape)
        end = begin + self._lengths(shape)
        left = self._random.random(shape) * self._lasts_s if self._fixed else self._lengths(shape)
        inside = self._random.random(shape) < self._lasts_s / (self._every_s + self._lasts_s)
        return np.where(inside, 0.0, begin), np.where(inside, left, end)

    def _lengths(self, shape: tuple[int, ...]) -> FloatArray:
        return np.full(shape, self._lasts_s) if self._fixed else self._random.exponential(self._lasts_s, shape)


class Luck:
    """A factor for each pod and run with mean 1, log-normal, whose logarithm is a first-order autoregressive process.

    With a coefficient of variation c the logarithm's variance is ``ln(1 + c^2)``; over t seconds it keeps
    ``exp(-t / correlation)`` of its deviation.
    """

    def __init__(self, random: Generator, shape: tuple[int, int], cv: float, correlation_s: float) -> None:
        self._random = random
        self._variance = float(np.log1p(cv * cv))
        self._correlation_s = correlation_s
        self._state = random.standard_normal(shape)

    def advance(self, tick_s: float) -> FloatArray:
        """Return the factors of the next tick, shape ``(pods, runs)``."""
        kept = float(np.exp(-tick_s / self._correlation_s))
        self._state *= kept
        self._state += np.sqrt(1 - kept * kept) * self._random.standard_normal(self._state.shape)
        factors: FloatArray = np.exp(np.sqrt(self._variance) * self._state - self._variance / 2)
        return factors

    def grow(self, rows: int) -> None:
        """Have so many pods, the present ones among them."""
        more = self._random.standard_normal((rows - len(self._state), self._state.shape[1]))
        self._state = np.concatenate([self._state, more])
