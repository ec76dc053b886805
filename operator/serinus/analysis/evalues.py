"""E-values for two shares against a margin.

Is the candidate's share of bad requests beyond ``rho`` times stable's plus ``delta``, or within?

An e-value is a statistic whose mean is at most 1 while the null hypothesis holds; products of them over time may be
looked at as often as one likes, and exceed ``1 / alpha`` with probability ``alpha`` at most (Ville's inequality).

The null is a half plane bounded by the line ``p_c = rho * p_b + delta``. For any alternative ``(q_c, q_b)`` beyond the
line that was fixed before the counts, let ``p`` be the point of the line that minimises
``n_c kl(q_c || p_c) + n_b kl(q_b || p_b)``. Then ``S = likelihood of q / likelihood of p`` is an e-value against every
point of the null, whatever the shares are and however they change from one block of requests to the next:
``ln E[S] <= n_c (p_c' - p_c) A + n_b (p_b' - p_b) B`` with ``A = (q_c - p_c) / (p_c (1 - p_c))``, ``B`` alike, and the
right side is at most 0, for that is what makes ``p`` the minimum on a convex set.

Sources: Turner, Ly, Grünwald, "Generic e-variables for exact sequential k-sample tests that allow for optional
stopping", 2024, arXiv 2106.02693 (the projection); Lindon, Malek, "Anytime-valid inference for multinomial count data",
NeurIPS 2022, arXiv 2011.03567 (counts given their sum); Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and
safe anytime-valid inference", 2023, arXiv 2210.01948 (e-processes).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LEAST = 1e-12
_NEAR = 1e-4
"""So much evidence the search for the nearest point may cost; it is subtracted, so nothing is feigned."""
_ROUNDS = 30
_STEPS = 7
"""After so many an upper bound is exact to 1e-8."""
_MANY, _TOGETHER = 4096, 4
"""Of so many points 97 of 100 are found after so many rounds, and the others are searched for alone."""


def project(
    q_c: Floats, q_b: Floats, n_c: Floats, n_b: Floats, rho: Floats, delta: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the point of the line that is nearest to the alternative, and how far from nearest it may be.

    Newton's steps along the line, on the first and second derivative of what is minimised; where one would lead out of
    what is known to hold the point, that is halved. All arguments broadcast against each other.

    Args:
        q_c: the candidate's share in the alternative, between 0 and 1, both excluded.
        q_b: stable's.
        n_c: requests to the candidate.
        n_b: requests to stable.
        rho: slope of the line, 0 or more.
        delta: where it begins, 0 or more.

    Returns:
        ``p_c``, ``p_b``, and a bound on ``ln E[S]`` that is left because the search has an end.
    """
    most = _within((1 - _LEAST - delta) / np.maximum(rho, _LEAST), 2 * _LEAST)
    first = np.minimum(np.maximum(_poisson_point(q_c, q_b, n_c, n_b, rho, delta), _LEAST), most)
    rounds = _TOGETHER if first.size >= _MANY else _ROUNDS
    ends = np.full_like(first, _LEAST), most + np.zeros_like(first)
    p_b, left, low, high = _search(rounds, first, *ends, most, q_c, q_b, n_c, n_b, rho, delta)
    far = left >= _NEAR
    if rounds < _ROUNDS and far.any():
        rest = np.broadcast_arrays(p_b, low, high, most, q_c, q_b, n_c, n_b, rho, delta)
        p_b[far], left[far], *_ = _search(_ROUNDS, *(each[far] for each in rest))
    return _within(rho * p_b + delta), p_b, left


def _search(
    rounds: int,
    p_b: Floats,
    low: Floats,
    high: Floats,
    most: Floats,
    q_c: Floats,
    q_b: Floats,
    n_c: Floats,
    n_b: Floats,
    rho: Floats,
    delta: Floats,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Go at most so many rounds from ``p_b``; return where that led, what is left, and what holds the nearest point."""
    good_c, good_b, weight = 1 - q_c, 1 - q_b, n_c * rho
    for last in (False,) * (rounds - 1) + (True,):
        p_c = _within(rho * p_b + delta)
        rest_c, rest_b = 1 - p_c, 1 - p_b
        hit_c, miss_c, hit_b, miss_b = q_c / p_c, good_c / rest_c, q_b / p_b, good_b / rest_b
        slope = weight * (miss_c - hit_c) + n_b * (miss_b - hit_b)
        left = (p_b - np.where(slope > 0, _LEAST, most)) * slope
        if last or left.max(initial=0.0) < _NEAR:
            break
        below = slope < 0
        low, high = np.where(below, p_b, low), np.where(below, high, p_b)
        curve = weight * rho * (hit_c / p_c + miss_c / rest_c) + n_b * (hit_b / p_b + miss_b / rest_b)
        step = p_b - slope / np.maximum(curve, _LEAST)
        p_b = np.where((step >= low) & (step <= high), step, (low + high) / 2)
    return p_b, left, low, high


def _within(share: Floats, least: float = _LEAST) -> Floats:
    """``np.clip`` to what a share may be, at a third of its price for small arrays."""
    return np.minimum(np.maximum(share, least), 1 - _LEAST)


def _poisson_point(q_c: Floats, q_b: Floats, n_c: Floats, n_b: Floats, rho: Floats, delta: Floats) -> Floats:
    """Return ``p_b`` of the nearest point for small shares, where counts are Poisson: the root of a quadratic."""
    a = n_c * rho**2 + n_b * rho
    b = n_c * rho * (delta - q_c) + n_b * (delta - rho * q_b)
    c = n_b * q_b * delta
    root = np.sqrt(b * b + 4 * a * c)
    falling = (root - b) / np.maximum(2 * a, _LEAST)
    rising = 2 * c / np.maximum(root + b, _LEAST)
    return np.where(b < 0, falling, np.where(c > 0, rising, q_b))


def log_e(
    bad_c: Floats,
    n_c: Floats,
    bad_b: Floats,
    n_b: Floats,
    q_c: Floats,
    q_b: Floats,
    rho: Floats,
    delta: Floats,
) -> Floats:
    """Return the logarithm of the e-value of one block of requests. All arguments broadcast against each other.

    Args:
        bad_c: bad ones among the candidate's ``n_c`` requests.
        n_c: requests to the candidate in this block.
        bad_b: bad ones among stable's ``n_b`` requests.
        n_b: requests to stable in this block.
        q_c: the alternative, fixed before the block: the candidate's share of bad ones, between 0 and 1.
        q_b: stable's share. The pair must lie on the side of the line that is not the null.
        rho: the null's slope.
        delta: the null's offset.
    """
    p_c, p_b, left = project(q_c, q_b, n_c, n_b, rho, delta)
    candidate = bad_c * np.log(q_c / p_c) + (n_c - bad_c) * np.log((1 - q_c) / (1 - p_c))
    stable = bad_b * np.log(q_b / p_b) + (n_b - bad_b) * np.log((1 - q_b) / (1 - p_b))
    return candidate + stable - left


def log_e_ratio(bad_c: Floats, n_c: Floats, bad_b: Floats, n_b: Floats, ratio: Floats, rho: Floats) -> Floats:
    """Return the logarithm of the e-value of counts given their sum, against "the rates' ratio is at most ``rho``".

    Given all bad events of a block, the candidate's are binomial with share ``r n_c / (r n_c + n_b)``, whatever the
    base rate is and does. Exact for Poisson counts, where ``n_c`` and ``n_b`` are exposures; for shares of requests it
    errs on the safe side.

    Args:
        bad_c: the candidate's events, over its exposure ``n_c``.
        n_c: the candidate's exposure in this block, such as requests.
        bad_b: stable's events, over its exposure ``n_b``.
        n_b: stable's exposure in this block.
        ratio: the alternative, above ``rho`` to find harm, below to find safety.
        rho: the greatest ratio that is good.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        value = bad_c * np.log(ratio / rho) - (bad_c + bad_b) * np.log((ratio * n_c + n_b) / (rho * n_c + n_b))
    return np.where((n_c > 0) & (n_b > 0), value, 0.0)


def upper_bound(bad: Floats, n: Floats) -> Floats:
    """Return an upper bound of the share of bad requests: ``sup {p: n kl(bad / n || p) <= 3 + ln(1 + n) / 2}``.

    It holds at all times at once, with a probability of about 95 %. Without a request it is 1.

    Newton's steps in ``-ln(1 - p)``, in which ``kl`` is convex and nearly straight at both ends, from above, so that
    none leads below the bound. They begin where Pinsker's inequality would have it or, near 1, an entropy of ``ln 2``.

    Source: Garivier, Cappé, "The KL-UCB algorithm for bounded stochastic bandits and beyond", COLT 2011.
    """
    share, level = np.minimum(bad / np.maximum(n, 1), 1.0), (3.0 + 0.5 * np.log1p(n)) / np.maximum(n, _LEAST)
    pinsker = -np.log1p(-_within(share + np.sqrt(level / 2)))
    place = np.minimum(pinsker, (level + np.log(2)) / np.maximum(1 - share, _LEAST))
    for _ in range(_STEPS):
        bound = _within(-np.expm1(-place))
        over = np.maximum(_kl(share, bound) - level, 0.0)
        place = place - over * bound / np.maximum(bound - share, _LEAST)
    return np.where(n > 0, -np.expm1(-place), 1.0)


def _kl(q: Floats, p: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(q > 0, q * np.log(q / p), 0.0)
        miss = np.where(q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0.0)
    return hit + miss
