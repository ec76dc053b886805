"""How much more than chance stable's own pods differ among each other, measured on the two halves of them.

Tests on requests take each request for a draw of its own. Where pods differ for a while (a slow node, a full cache),
bad requests come in clusters, and such tests cry wolf. So the evidence of a block is divided by
``1 + kappa * E * theta * (1 - theta)``, with ``E`` bad requests of which the candidate's expected share is ``theta``:
by how much the variance of its bad requests exceeds that of chance, when the pods' rates vary with relative variance
``kappa``. Dividing an e-value's logarithm leaves an e-value (Jensen's inequality).

``kappa`` is estimated by moments at three lengths of time, so that slow variation is seen too, and the largest counts.

Callers' sidecars count failures by pod, latency they do not. There ``kappa`` is estimated from how much stable's share
of slow requests differs from one stretch of time to the next, as if every pod varied for itself. What all pods go
through together is in it too, so it is too large rather than too small: latency is judged more slowly where it moves.
"""

from dataclasses import dataclass

import numpy as np

from serinus.analysis.evalues import Floats

SPAN_S = 10.0
"""Least length of a block of the halves' requests, in seconds."""
SPANS = (1, 6, 18)
"""Lengths over which the halves are compared, in blocks."""
FIRST_GUESS = 0.2
"""Relative variance between the halves that is assumed before anything is measured."""
FIRST_WEIGHT = 20.0
"""How much measuring outweighs the first guess, as a sum of squared variances."""
CORRELATED = 12.0
"""Blocks for which a pod's rate is taken to stay much the same: of ``n`` blocks ``n / 12`` count as independent."""
OUTLIER = 25.0
"""Squared deviations count up to so many times their variance: a single blip is for the cap on a block's evidence."""


@dataclass(slots=True)
class Dispersion:
    """Running sums, for each span: ``open`` are the counts of the span under way, as ``(bad 1, bad, n 1, n)``.

    Shapes: ``open`` (3, 4, N), ``excess`` and ``scale`` (3, N); ``blocks`` counts blocks.
    """

    open: Floats
    excess: Floats
    scale: Floats
    blocks: int = 0

    @classmethod
    def start(cls, runs: int) -> "Dispersion":
        """Return the sums before anything was measured."""
        spans = len(SPANS)
        return cls(np.zeros((spans, 4, runs)), np.zeros((spans, runs)), np.zeros((spans, runs)))

    def add(self, bad_1: Floats, n_1: Floats, bad_2: Floats, n_2: Floats) -> None:
        """Take in one block: bad requests and requests of the two halves, each of shape (N,)."""
        self.blocks += 1
        self.open += np.stack([bad_1, bad_1 + bad_2, n_1, n_1 + n_2])
        for index, span in enumerate(SPANS):
            if self.blocks % span:
                continue
            first, every, requests_1, requests = self.open[index]
            theta = requests_1 / np.maximum(requests, 1)
            variance = every * theta * (1 - theta)
            deviation = np.minimum((first - every * theta) ** 2, OUTLIER * np.maximum(variance, 0.25))
            self.excess[index] += np.where(variance > 0, deviation - variance, 0.0)
            self.scale[index] += variance**2
            self.open[index] = 0.0

    def kappa(self) -> Floats:
        """Return the relative variance between the two halves' rates, as if in each block anew; shape (N,).

        Only what exceeds one standard deviation of chance counts; it is taken for larger as long as it was seen for
        a short time only.
        """
        spans = np.array(SPANS, float)[:, None]
        beyond = np.maximum(self.excess - np.sqrt(2 * self.scale), 0.0)
        measured = spans * beyond / (self.scale + FIRST_WEIGHT)
        guess = FIRST_GUESS * FIRST_WEIGHT / (self.scale[0] + FIRST_WEIGHT)
        doubt = 1 + 3 * np.sqrt(2 * CORRELATED / max(self.blocks, 1))
        return np.asarray(measured.max(axis=0) * doubt + guess)

    def between(self, pods_c: Floats, pods_b: Floats) -> Floats:
        """Return ``kappa`` for arms of so many pods each, from that of stable's halves. Shapes (N,)."""
        per_pod = self.kappa() / 2 * np.maximum(pods_b, 2) / 2
        return np.asarray(per_pod * (1 / np.maximum(pods_c, 1) + 1 / np.maximum(pods_b, 1)))


USUAL = 9.0
"""A stretch that deviates more than so many times what is usual counts as if it deviated so much."""
ALIKE = 0.35
"""Correlation between two stretches that follow one another, of rates that keep for a minute."""


@dataclass(slots=True)
class Drift:
    """Running sums about stable's shares of bad requests over time, by row.

    Shapes: ``open`` and ``last`` (3, 2, rows, N), bad requests and requests of the stretch under way and of the one
    before; ``excess``, ``scale`` and ``usual`` (3, rows, N).
    """

    open: Floats
    last: Floats
    excess: Floats
    scale: Floats
    usual: Floats
    blocks: int = 0

    @classmethod
    def start(cls, rows: int, runs: int) -> "Drift":
        """Return the sums before anything was measured."""
        spans = len(SPANS)
        pairs, singles = (spans, 2, rows, runs), (spans, rows, runs)
        return cls(np.zeros(pairs), np.zeros(pairs), np.zeros(singles), np.zeros(singles), np.ones(singles))

    def add(self, bad: Floats, n: Floats) -> None:
        """Take in one block of stable's requests, each of shape (rows, N)."""
        self.blocks += 1
        self.open += np.stack([bad, n])
        for index, span in enumerate(SPANS):
            if self.blocks % span:
                continue
            (bad_1, n_1), (bad_2, n_2) = self.last[index], self.open[index]
            both = n_1 + n_2
            theta, every = n_1 / np.maximum(both, 1), bad_1 + bad_2
            scale = every * theta * (1 - theta)
            chance = np.maximum(scale * (1 - every / np.maximum(both, 1)), 0.25)
            ratio = np.minimum((bad_1 - every * theta) ** 2 / chance, USUAL * np.maximum(self.usual[index], 1.0))
            seen = (n_1 > 0) & (n_2 > 0) & (every > 0)
            self.excess[index] += np.where(seen, (ratio - 1) * chance, 0.0)
            self.scale[index] += np.where(seen, scale**2, 0.0)
            self.usual[index] += np.where(seen, 0.1 * (ratio - self.usual[index]), 0.0)
            self.last[index], self.open[index] = self.open[index].copy(), 0.0

    def between(self, pods_c: Floats, pods_b: Floats) -> Floats:
        """Return ``kappa`` by row for arms of so many pods each, (rows, N), as if drawn anew for every block."""
        spans = np.array(SPANS, float)[:, None, None]
        beyond = np.maximum(self.excess - np.sqrt(2 * self.scale), 0.0)
        measured = (spans * beyond / (self.scale + FIRST_WEIGHT)).max(axis=0)
        doubt = 1 + 3 * np.sqrt(2 * CORRELATED / max(self.blocks, 1))
        per_pod = LATENCY_GUESS + measured * doubt / 2 * np.maximum(pods_b, 1) / (1 - ALIKE)
        return np.asarray(per_pod * (1 / np.maximum(pods_c, 1) + 1 / np.maximum(pods_b, 1)))


LATENCY_GUESS = 0.0025
"""Relative variance of a pod's share of slow requests that is taken for granted."""
