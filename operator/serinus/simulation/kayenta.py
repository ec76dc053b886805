"""The judge of Kayenta, ``NetflixACAJudge-v1.0``, for many series side by side.

Every metric is a series of points of the candidate and one of its baseline. Where the Mann-Whitney interval of the
shift between them, at 98 %, lies beyond a quarter of the estimated shift, the metric is High or Low.

The interval's ends are found by Brent's method, to an absolute tolerance of 1e-4 whatever the unit is, on a function
with steps. An exact interval would be another one, above all with ties and many zeros: found by halving, it makes
candidates High that Kayenta passes. So the method is followed step by step.

Sources: Kayenta's ``NetflixACAJudge``, ``MannWhitneyClassifier``, ``MannWhitney``, ``BrentSolver`` and
``WeightedSumScorer``, as of April 2025; Mann, Whitney, "On a test of whether one of two random variables is
stochastically larger than the other", Annals of Mathematical Statistics 18 (1947); Hodges, Lehmann, "Estimates of
location based on rank tests", Annals of Mathematical Statistics 34 (1963); Brent, "Algorithms for minimization without
derivatives", 1973, chapter 4.
"""

from dataclasses import dataclass
from enum import IntEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from serinus.simulation.world import FloatArray, IntArray

CONFIDENCE = 0.98
TOLERANCE = 0.25
"""What part of the estimated shift the interval must be beyond."""
ALLOWED_RATIO = 1.0
"""A metric is High only if its mean is at least so many times the baseline's, and Low only if it is at most that."""
_NOISE = 1e-5
"""Constant series get noise of this part of their value, so that they have no ties."""
_ROOT_TOLERANCE = 1e-4
_EPSILON = 2.220446049250313e-16
_MOST_STEPS = 1001

Bools = NDArray[np.bool_]


class Label(IntEnum):
    """What a metric is, beside its baseline."""

    PASS = 0
    HIGH = 1
    LOW = 2
    NODATA = 3
    """One of the two has no points."""
    ERROR = 4
    """The interval cannot be computed, since all points are alike after a shift; such a metric does not count."""


@dataclass(frozen=True, slots=True)
class Shift:
    """The Mann-Whitney interval of the shift ``x - y`` and its Hodges-Lehmann estimate, each of shape (rows,).

    All are NaN where no interval can be computed.
    """

    low: FloatArray
    high: FloatArray
    estimate: FloatArray


def mann_whitney(x: FloatArray, y: FloatArray, confidence: float = CONFIDENCE) -> Shift:
    """Return intervals of the shift, from the normal approximation with corrections for continuity and ties.

    An end that would lie beyond all differences is the outermost difference.

    Args:
        x: points, shape (points, rows); NaN is no point, and each row has at least one.
        y: the same of what it is compared with; it may have another number of points.
        confidence: of the interval, two-sided.
    """
    x_rows, y_rows = x.T, y.T
    rows = len(x_rows)
    left = np.nanmin(x_rows, axis=1) - np.nanmax(y_rows, axis=1)
    right = np.nanmax(x_rows, axis=1) - np.nanmin(y_rows, axis=1)
    at_left, at_right = _deviate(left, x_rows, y_rows), _deviate(right, x_rows, y_rows)
    able = ~np.isnan(at_left) & ~np.isnan(at_right)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    ends = []
    for quantile, clamped in ((z, True), (-z, True), (0.0, False)):
        above, below = at_left - quantile, at_right - quantile
        to_left = able & (above <= 0) & clamped
        to_right = able & (below >= 0) & clamped & ~to_left
        root = np.select([to_left, to_right], [left, right], np.full(rows, np.nan))
        open_ = np.flatnonzero(able & ~to_left & ~to_right)
        root[open_] = _roots(
            left[open_], right[open_], above[open_], below[open_], x_rows[open_], y_rows[open_], quantile
        )
        ends.append(root)
    return Shift(*ends)


def classify(candidate: FloatArray, baseline: FloatArray) -> IntArray:
    """Return the ``Label`` of each metric, shape (rows,).

    NaN points are removed (the strategy "remove"), a change in either direction counts, and the effect size is the
    ratio of means, which is ignored where a mean is 0. High is what fails a metric whose direction is "increase".

    Args:
        candidate: points, shape (points, rows).
        baseline: the same of the baseline; it may have another number of points.
    """
    labels = np.full(candidate.shape[1], Label.PASS, dtype=np.int64)
    empty = np.isnan(candidate).all(axis=0) | np.isnan(baseline).all(axis=0)
    labels[empty] = Label.NODATA
    compared = np.flatnonzero(~empty)
    compared = compared[~_identical(candidate[:, compared], baseline[:, compared])]
    if not compared.size:
        return labels
    x, y = _without_ties(candidate[:, compared], baseline[:, compared])
    shift = mann_whitney(x, y)
    bound = TOLERANCE * np.abs(shift.estimate)
    x_mean, y_mean = np.nanmean(x, axis=0), np.nanmean(y, axis=0)
    known = (x_mean != 0) & (y_mean != 0)
    ratio = np.divide(x_mean, y_mean, out=np.full_like(x_mean, np.nan), where=known)
    labels[compared] = np.select(
        [
            np.isnan(shift.estimate),
            (shift.low > bound) & ~(ratio < ALLOWED_RATIO),
            (shift.high < -bound) & ~(ratio > ALLOWED_RATIO),
        ],
        [Label.ERROR, Label.HIGH, Label.LOW],
        Label.PASS,
    )
    return labels


def fails(labels: IntArray) -> Bools:
    """Return which releases fail, shape (runs,).

    A release fails when one of its metrics is High, or when half of them or more have no data: the score is 0 then.

    Args:
        labels: of its metrics, all of which may only increase, shape (metrics, runs).
    """
    failing: Bools = (labels == Label.HIGH).any(axis=0) | (2 * (labels == Label.NODATA).sum(axis=0) >= len(labels))
    return failing


def _identical(x: FloatArray, y: FloatArray) -> Bools:
    """Return where both have the same points, in any order, or all points are one value."""
    both = np.concatenate([x, y])
    one_value: Bools = np.nanmax(both, axis=0) == np.nanmin(both, axis=0)
    if len(x) != len(y):
        points = max(len(x), len(y))
        x, y = (np.pad(z, ((0, points - len(z)), (0, 0)), constant_values=np.nan) for z in (x, y))
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    same: Bools = ((x == y) | (np.isnan(x) & np.isnan(y))).all(axis=0)
    return same | one_value


def _without_ties(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return both with Gaussian noise where both are constant. The noise is the same in every call."""
    constant = (np.nanmin(x, axis=0) == np.nanmax(x, axis=0)) & (np.nanmin(y, axis=0) == np.nanmax(y, axis=0))
    if not constant.any():
        return x, y
    random = np.random.default_rng(0)
    x, y = (z + np.where(constant, _NOISE * z, 0.0) * random.standard_normal(z.shape) for z in (x, y))
    return x, y


def _deviate(shift: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Return the standardised rank sum of ``x - shift`` beside ``y``; NaN where all points are tied.

    ``x`` and ``y`` have the shape (rows, points) here, ``shift`` (rows,).
    """
    values = np.concatenate([x - shift[:, np.newaxis], y], axis=1)
    of_x = np.zeros(values.shape, dtype=bool)
    of_x[:, : x.shape[1]] = ~np.isnan(x)
    n, m = of_x.sum(axis=1).astype(float), (~np.isnan(y)).sum(axis=1).astype(float)
    order = np.argsort(values, axis=1)
    values, of_x = np.take_along_axis(values, order, axis=1), np.take_along_axis(of_x, order, axis=1)
    changes = values[:, 1:] != values[:, :-1]
    position = np.arange(values.shape[1])
    first = np.zeros(values.shape, dtype=np.int64)
    first[:, 1:] = np.where(changes, position[1:], 0)
    first = np.maximum.accumulate(first, axis=1)
    last = np.full(values.shape, position[-1], dtype=np.int64)
    last[:, :-1] = np.where(changes, position[:-1], position[-1])
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    rank_sum = np.where(of_x, (first + last) / 2 + 1, 0.0).sum(axis=1)
    tied = ((last - first + 1) ** 2 - 1).sum(axis=1)
    above = rank_sum - n * (n + 1) / 2 - n * m / 2
    sigma = np.sqrt(n * m / 12 * ((n + m + 1) - tied / ((n + m) * (n + m - 1))))
    deviates: FloatArray = np.divide(
        above - np.sign(above) * 0.5, sigma, out=np.full(len(sigma), np.nan), where=sigma > 0
    )
    return deviates


def _roots(
    left: FloatArray,
    right: FloatArray,
    at_left: FloatArray,
    at_right: FloatArray,
    x: FloatArray,
    y: FloatArray,
    quantile: float,
) -> FloatArray:
    """Return where ``_deviate`` is ``quantile``, by Brent's method as Kayenta goes about it, for all rows at once.

    Args:
        left: where the search begins, shape (rows,).
        right: where it ends.
        at_left: how much the deviate is above the quantile there.
        at_right: and there.
        x: points, shape (rows, points).
        y: what they are compared with, of the same shape or with another number of points.
        quantile: of the standard normal distribution.
    """
    root = np.where(at_left == 0, left, right)
    live = np.flatnonzero((at_left != 0) & (at_right != 0))
    a, b, fa, fb = left[live], right[live], at_left[live], at_right[live]
    c, fc = a, fa
    for _ in range(_MOST_STEPS):
        if not live.size:
            break
        before = b - a
        swap = np.abs(fc) < np.abs(fb)
        a, b, c = np.where(swap, b, a), np.where(swap, c, b), np.where(swap, b, c)
        fa, fb, fc = np.where(swap, fb, fa), np.where(swap, fc, fb), np.where(swap, fb, fc)
        least = 2 * _EPSILON * np.abs(b) + _ROOT_TOLERANCE / 2
        half = (c - b) / 2
        root[live] = b
        going = (np.abs(half) > least) & (fb != 0)
        live, before, least, half = live[going], before[going], least[going], half[going]
        a, b, c, fa, fb, fc = a[going], b[going], c[going], fa[going], fb[going], fc[going]
        step = _step(a, b, c, fa, fb, fc, before, least, half)
        a, fa = b, fb
        b = b + step
        fb = _deviate(b, x[live], y[live]) - quantile
        same_side = ((fb > 0) & (fc > 0)) | ((fb < 0) & (fc < 0))
        c, fc = np.where(same_side, a, c), np.where(same_side, fa, fc)
        root[live] = b
    return root


def _step(
    a: FloatArray,
    b: FloatArray,
    c: FloatArray,
    fa: FloatArray,
    fb: FloatArray,
    fc: FloatArray,
    before: FloatArray,
    least: FloatArray,
    half: FloatArray,
) -> FloatArray:
    """Return how far Brent's method goes from ``b``: to where a line or a parabola has its root, or half the way."""
    with np.errstate(divide="ignore", invalid="ignore"):
        span = c - b
        by_a, by_c, ratio = fb / fa, fb / fc, fa / fc
        linear = a == c
        p = np.where(linear, span * by_a, by_a * (span * ratio * (ratio - by_c) - (b - a) * (by_c - 1)))
        q = np.where(linear, 1 - by_a, (ratio - 1) * (by_c - 1) * (by_a - 1))
        q = np.where(p > 0, -q, q)
        p = np.abs(p)
        near = (p < 0.75 * span * q - np.abs(least * q) / 2) & (p < np.abs(before * q / 2))
        tried = (np.abs(before) >= least) & (np.abs(fa) > np.abs(fb))
        step = np.where(tried & near, p / q, half)
    return np.where(np.abs(step) < least, np.where(step > 0, least, -least), step)
