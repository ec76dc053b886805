"""How much more than chance stable's own pods differ among each other, measured on the two halves of them.

Tests on requests take each request for a draw of its own. Where pods differ for a while (a slow node, a full cache),
bad requests come in clusters, and such tests cry wolf. So the evidence of a block is divided by
``1 + kappa * E * theta * (1 - theta)``, with ``E`` bad requests of which the candidate's expected share is ``theta``:
by how much the variance of its bad requests exceeds that of chance, when the pods' rates vary with relative variance
``kappa``. Dividing an e-value's logarithm leaves an e-value (Jensen's inequality).

``kappa`` is estimated by moments at three lengths of time, so that slow variation is seen too, and the largest counts.

Callers' sidecars count failures by pod, latency they do not. There the relative variance is estimated from how much the
ratio of both versions' shares of slow requests differs from one stretch of time to the next. A candidate that is slower
by a constant factor does not show in that, nor does what both versions go through together.
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
"""How much measuring outweighs the first guess, as a sum of squared variances; of long spans it takes as much more."""
CORRELATED = 24.0
"""Blocks for which a pod's rate is taken to stay much the same: of ``n`` blocks ``n / 24`` count as independent."""
BEYOND = 1.5
"""Standard deviations of chance by which the halves must differ before anything of it counts."""
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

        Only what exceeds chance by ``BEYOND`` standard deviations counts; it is taken for larger as long as it was seen
        for a short time only.
        """
        spans = np.array(SPANS, float)[:, None]
        beyond = np.maximum(self.excess - BEYOND * np.sqrt(2 * self.scale), 0.0)
        measured = spans * beyond / (self.scale + FIRST_WEIGHT * spans)
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
LATENCY_GUESS = 0.01
"""Relative variance of a pod's latency that is taken for granted: 10 %."""


@dataclass(slots=True)
class Drift:
    """Running sums about how the ratio of both versions' shares of bad requests moves, by row.

    Shapes: ``open`` (3, 4, rows, N), the stretch under way as ``(bad_c, n_c, bad_b, n_b)``; ``last`` (3, 2, rows, N),
    logarithm of the ratio in the stretch before and its variance by chance, 0 where there was none; ``excess``,
    ``scale`` and ``usual`` (3, rows, N); ``seen`` (rows, N), how many pairs of blocks were compared.
    """

    open: Floats
    last: Floats
    excess: Floats
    scale: Floats
    usual: Floats
    seen: Floats
    blocks: int = 0

    @classmethod
    def start(cls, rows: int, runs: int) -> "Drift":
        """Return the sums before anything was measured."""
        spans, singles = len(SPANS), (len(SPANS), rows, runs)
        return cls(
            open=np.zeros((spans, 4, rows, runs)),
            last=np.zeros((spans, 2, rows, runs)),
            excess=np.zeros(singles),
            scale=np.zeros(singles),
            usual=np.ones(singles),
            seen=np.zeros((rows, runs)),
        )

    def add(self, counts: Floats) -> None:
        """Take in one block of both versions' requests, (4, rows, N), as ``Arms`` has them."""
        self.blocks += 1
        self.open += counts
        for index, span in enumerate(SPANS):
            if self.blocks % span:
                continue
            ratio, chance = _log_ratio(*self.open[index])
            before, chance_before = self.last[index]
            both = (chance > 0) & (chance_before > 0)
            variance = np.where(both, chance + chance_before, 1.0)
            odd = np.minimum((ratio - before) ** 2 / variance, USUAL * np.maximum(self.usual[index], 1.0))
            self.excess[index] += np.where(both, (odd - 1) / variance, 0.0)
            self.scale[index] += np.where(both, variance**-2, 0.0)
            self.usual[index] += np.where(both, 0.1 * (odd - self.usual[index]), 0.0)
            self.last[index] = ratio, chance
            self.open[index] = 0.0
            if index == 0:
                self.seen += both

    def between(self, pods_c: Floats, pods_b: Floats, share: Floats) -> Floats:
        """Return ``kappa`` by row between the arms, (rows, N), as if drawn anew for every block.

        The smaller ``share``, stable's share of slow requests, the more it moves when latency does: in the tail of a
        log-normal distribution by about ``0.5 - 0.7 ln(share)`` times as much.
        """
        spans = np.array(SPANS, float)[:, None, None]
        beyond = np.maximum(self.excess - BEYOND * np.sqrt(2 * self.scale), 0.0)
        measured = (spans * beyond / (self.scale + FIRST_WEIGHT * spans)).max(axis=0) / (2 * (1 - ALIKE))
        doubt = 1 + 3 * np.sqrt(2 * CORRELATED / np.maximum(self.seen, 1))
        moves = 0.5 - 0.7 * np.log(np.clip(share, 1e-5, 1.0))
        guess = LATENCY_GUESS * moves**2 * (1 / np.maximum(pods_c, 1) + 1 / np.maximum(pods_b, 1))
        return np.asarray(guess + measured * doubt)


def _log_ratio(bad_c: Floats, n_c: Floats, bad_b: Floats, n_b: Floats) -> tuple[Floats, Floats]:
    """Return the logarithm of the ratio of two shares and its variance by chance; both 0 where too little was seen."""
    enough = (bad_c >= FEWEST) & (bad_b >= FEWEST)
    share_c, share_b = (bad_c + 0.5) / (n_c + 1), (bad_b + 0.5) / (n_b + 1)
    variance = (1 - share_c) / (bad_c + 0.5) + (1 - share_b) / (bad_b + 0.5)
    return np.where(enough, np.log(share_c / share_b), 0.0), np.where(enough, np.maximum(variance, 1e-6), 0.0)


FEWEST = 3
"""With fewer bad requests in a stretch nothing is known of its ratio."""
