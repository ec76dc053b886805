"""How strongly each of the candidate's defects shows in a tick."""

import numpy as np

from serinus.api.base import seconds
from serinus.simulation.latencies import FloatArray, Number
from serinus.simulation.trouble import Defect


class Onset:
    """When one defect shows, and how much of it, for many runs side by side."""

    def __init__(self, defect: Defect) -> None:
        self._after_s = seconds(defect.after)
        self._over_s = seconds(defect.over)
        self._lasts_s = seconds(defect.lasts) if defect.lasts else np.inf
        self._from_weight = defect.from_weight
        self._shown_s: Number = 0.0

    def advance(self, now_s: float, tick_s: float, weight_pct: FloatArray) -> Number:
        """Return the mean share of the defect's full size in the tick, 0 to 1.

        Args:
            now_s: begin of the tick, in seconds since the begin of the run.
            tick_s: its length.
            weight_pct: the candidate's weight, shape ``(runs,)``.

        Returns:
            A float when the weight does not matter, else an array of the shape ``(runs,)``.
        """
        due_s: Number = min(tick_s, max(0.0, now_s + tick_s - self._after_s))
        if self._from_weight:
            due_s = np.where(weight_pct >= self._from_weight - 1e-9, due_s, 0.0)
        begin_s = self._shown_s
        end_s = self._shown_s = np.minimum(begin_s + due_s, self._lasts_s)
        share = (self._grown(end_s) - self._grown(begin_s)) / tick_s
        return share if self._from_weight else float(share)

    def _grown(self, shown_s: Number) -> Number:
        """Return the integral of the size from the onset on: rising for ``over``, then 1."""
        if not self._over_s:
            return shown_s
        rising_s = np.minimum(shown_s, self._over_s)
        return rising_s * rising_s / (2 * self._over_s) + (shown_s - rising_s)


def shows(share: Number) -> bool:
    """Whether any of a defect shows in any run."""
    return bool(np.any(share))
