"""What the evidence reader sees of what happened: counts that come late, or never.

It does as ``serinus.mesh.scrape`` does with the answers of one caller's sidecar, which counts for both versions: a
scrape that fails is covered by the next one; what a sidecar had counted since the last good scrape is lost when it
restarts, and what it counts afterwards is not; a series that was not there before counts in full when it appears.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from serinus.api.base import seconds
from serinus.simulation.latencies import FloatArray
from serinus.simulation.trouble import Noise

IntArray = NDArray[np.int64]


class Scrapes:
    """The counts of all arms between what happens and what is read.

    Counts have the shape ``(2 + buckets, arms, runs)``: requests, failures, and answers by latency. The first arm is
    the candidate. Latencies may be fewer than requests; the difference failed.
    """

    def __init__(self, random: Generator, noise: Noise, runs: int) -> None:
        self._random = random
        self._missing = noise.missing_scrapes.percent / 100 if noise.missing_scrapes else 0.0
        self._late_s = seconds(noise.late_series.after) if noise.late_series else 0.0
        self._first_s = np.full(runs, np.inf)
        self._reset_every_s = seconds(noise.counter_resets.every) if noise.counter_resets else 0.0
        self._next_reset_s = random.exponential(self._reset_every_s, runs) if self._reset_every_s else np.zeros(runs)
        self._waiting: IntArray | None = None
        self._plain = not (self._missing or self._late_s or self._reset_every_s)

    def read(self, happened: IntArray, end_s: float, tick_s: float) -> IntArray:
        """Return what the scrape at the end of a tick adds to what was read before.

        Args:
            happened: counts of the tick.
            end_s: when it ends, in seconds since the begin of the run.
            tick_s: its length.
        """
        if self._plain:
            return happened
        waiting = np.zeros_like(happened) if self._waiting is None else self._waiting
        if self._reset_every_s:
            waiting, happened = self._after_resets(waiting, happened, tick_s)
        waiting = waiting + happened
        read = np.where(self._seen(happened, end_s, tick_s), waiting, 0)
        self._waiting = waiting - read
        return read

    def _seen(self, happened: IntArray, end_s: float, tick_s: float) -> NDArray[np.bool_]:
        """Return which arms are in the scrape, shape ``(arms, runs)``."""
        arms, runs = happened.shape[1:]
        seen = np.ones((arms, runs), dtype=bool)
        if self._missing:
            seen &= self._random.random(runs) >= self._missing
        if self._late_s:
            began = np.isinf(self._first_s) & (happened[0, 0] > 0)
            self._first_s[began] = end_s - tick_s
            seen[0] &= end_s - self._first_s >= self._late_s
        return seen

    def _after_resets(self, waiting: IntArray, happened: IntArray, tick_s: float) -> tuple[IntArray, IntArray]:
        """Return both counts without what sidecars that restarted had counted before."""
        last_s: FloatArray = np.full(len(self._next_reset_s), -1.0)
        while (due := self._next_reset_s < tick_s).any():
            last_s[due] = self._next_reset_s[due]
            self._next_reset_s[due] += self._random.exponential(self._reset_every_s, int(due.sum()))
        self._next_reset_s -= tick_s
        reset = last_s >= 0
        if reset.any():
            waiting, happened = waiting.copy(), happened.copy()
            waiting[:, :, reset] = 0
            happened[:, :, reset] = self._thinned(happened[:, :, reset], 1 - last_s[reset] / tick_s)
        return waiting, happened

    def _thinned(self, counts: IntArray, share: FloatArray) -> IntArray:
        """Return how many of the counts fall into a share of the time in which they happened."""
        requests, failures, buckets = counts[0], counts[1], counts[2:]
        answered = buckets.sum(axis=0)
        unanswered = requests - answered
        kept_buckets = self._random.binomial(buckets, share)
        kept_answered = kept_buckets.sum(axis=0)
        kept_unanswered = self._random.binomial(unanswered, share)
        answered_failures = failures - unanswered
        kept_failures = kept_unanswered + self._random.hypergeometric(
            answered_failures, answered - answered_failures, kept_answered
        )
        return np.concatenate([[kept_answered + kept_unanswered], [kept_failures], kept_buckets])
