"""Kayenta's judge: what its own tests and its users' reports say it does is what ours does."""

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest

from serinus.simulation import kayenta
from serinus.simulation.kayenta import Label, classify, fails, mann_whitney
from serinus.simulation.world import FloatArray

Z98 = NormalDist().inv_cdf(0.99)
NAN = float("nan")


def rows(*series: list[float]) -> FloatArray:
    """Return series as the judge takes them, shape (points, rows)."""
    return np.array(series, dtype=float).T


def label(candidate: list[float], baseline: list[float]) -> Label:
    return Label(classify(rows(candidate), rows(baseline))[0])


def deviate(shift: float, x: list[float], y: list[float]) -> float:
    """Return the standardised rank sum, counted pair by pair."""
    moved = [value - shift for value in x]
    n, m = float(len(x)), float(len(y))
    above = sum((a > b) + (a == b) / 2 for a in moved for b in y) - n * m / 2
    everything = moved + y
    tied = sum(everything.count(value) ** 3 - everything.count(value) for value in set(everything))
    sigma = sqrt(n * m / 12 * ((n + m + 1) - tied / ((n + m) * (n + m - 1))))
    return (above - 0.5 * float(np.sign(above))) / sigma


def brent(function: Callable[[float], float], left: float, right: float) -> float:
    """Find a root to an absolute 1e-4, as R's ``zeroin`` does: the classical routine, one number at a time."""
    a, b = left, right
    fa, fb = function(a), function(b)
    c, fc = a, fa
    if fa == 0:
        return a
    while fb != 0:
        previous = b - a
        if abs(fc) < abs(fb):
            a, b, c = b, c, b
            fa, fb, fc = fb, fc, fb
        tolerance = 2 * 2.220446049250313e-16 * abs(b) + 1e-4 / 2
        step = (c - b) / 2
        if abs(step) <= tolerance or fb == 0:
            return b
        if abs(previous) >= tolerance and abs(fa) > abs(fb):
            if a == c:
                p, q = (c - b) * (fb / fa), 1 - fb / fa
            else:
                q, r, s = fa / fc, fb / fc, fb / fa
                p = s * ((c - b) * q * (q - r) - (b - a) * (r - 1))
                q = (q - 1) * (r - 1) * (s - 1)
            p, q = (p, -q) if p > 0 else (-p, q)
            if p < 0.75 * (c - b) * q - abs(tolerance * q) / 2 and p < abs(previous * q / 2):
                step = p / q
        if abs(step) < tolerance:
            step = tolerance if step > 0 else -tolerance
        a, fa = b, fb
        b += step
        fb = function(b)
        if (fb > 0) == (fc > 0) and (fb < 0) == (fc < 0):
            c, fc = a, fa
    return b


def interval(x: list[float], y: list[float]) -> tuple[float, float, float]:
    left, right = min(x) - max(y), max(x) - min(y)

    def end(z: float) -> float:
        if deviate(left, x, y) - z <= 0:
            return left
        if deviate(right, x, y) - z >= 0:
            return right
        return brent(lambda shift: deviate(shift, x, y) - z, left, right)

    return end(Z98), end(-Z98), brent(lambda shift: deviate(shift, x, y), left, right)


@pytest.mark.parametrize("confidence", [0.95, 0.98])
def test_the_interval_of_kayentas_own_test_comes_out(confidence: float) -> None:
    shift = mann_whitney(rows([10, 20, 30, 40]), rows([1, 2, 3, 4]), confidence)
    assert shift.low[0] == pytest.approx(6, abs=1e-6)
    assert shift.high[0] == pytest.approx(39, abs=1e-6)
    assert shift.estimate[0] == pytest.approx(22.5, abs=1e-6)


def _tied(random: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    return random.integers(0, 6, shape).astype(float)


def _zero_inflated(random: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    return np.where(random.random(shape) < 0.6, 0.0, random.poisson(3, shape) / 7)


def _continuous(random: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    return random.lognormal(3, 0.4, shape)


@pytest.mark.parametrize("draw", [_tied, _zero_inflated, _continuous])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (10, 10), (12, 7)])
def test_many_intervals_at_once_are_those_that_come_one_by_one(
    draw: Callable[[np.random.Generator, tuple[int, int]], FloatArray], n: int, m: int
) -> None:
    random = np.random.default_rng(n + m)
    x, y = draw(random, (n, 30)) * 1.5, draw(random, (m, 30))
    x[0, 0], y[0, 0] = 3.25, 1.75
    varies = (x.min(axis=0) < x.max(axis=0)) | (y.min(axis=0) < y.max(axis=0))
    x, y = x[:, varies], y[:, varies]
    shift = mann_whitney(x, y)
    alone = [interval(x[:, row].tolist(), y[:, row].tolist()) for row in range(x.shape[1])]
    assert np.stack([shift.low, shift.high, shift.estimate], axis=1) == pytest.approx(np.array(alone), abs=1e-9)


@pytest.mark.parametrize("draw", [_tied, _zero_inflated, _continuous])
@pytest.mark.parametrize(("n", "m"), [(10, 10), (13, 9)])
def test_the_search_goes_through_the_same_shifts_step_by_step(
    draw: Callable[[np.random.Generator, tuple[int, int]], FloatArray], n: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(n * m)
    for x, y in ((draw(random, (n, 1)) * 1.5 + 0.1, draw(random, (m, 1))) for _ in range(10)):
        ours, theirs = _searched(x, y, monkeypatch), _searched_alone(x[:, 0].tolist(), y[:, 0].tolist())
        assert len(theirs) > 12
        assert ours == theirs


def _searched(x: FloatArray, y: FloatArray, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the shifts at which the judge looks after the two ends, in order."""
    looked: list[float] = []

    def noted(shift: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
        looked.extend(shift.tolist())
        return plain(shift, x, y)

    plain = kayenta._deviate
    with monkeypatch.context() as patch:
        patch.setattr(kayenta, "_deviate", noted)
        mann_whitney(x, y)
    left, right = x.min() - y.max(), x.max() - y.min()
    assert looked[:2] == [left, right]
    return looked[2:]


def _searched_alone(x: list[float], y: list[float]) -> list[float]:
    left, right = min(x) - max(y), max(x) - min(y)
    looked: list[float] = []
    for z in (Z98, -Z98, 0.0):

        def above(shift: float, z: float = z) -> float:
            looked.append(shift)
            return deviate(shift, x, y) - z

        if z == 0 or deviate(left, x, y) > z > deviate(right, x, y):
            before = len(looked)
            brent(above, left, right)
            del looked[before : before + 2]
    return looked


def test_points_without_a_value_are_removed_wherever_they_are() -> None:
    x, y = [5.0, 9.0, 7.0, 8.0, 8.0, 6.0], [1.0, 3.0, 1.0, 2.0, 4.0]
    with_gaps = mann_whitney(rows([5, NAN, 9, 7, 8, NAN, 8, 6]), rows([NAN, 1, 3, 1, 2, 4]))
    assert (with_gaps.low[0], with_gaps.high[0], with_gaps.estimate[0]) == pytest.approx(interval(x, y), abs=1e-9)


@pytest.mark.parametrize(
    ("candidate", "baseline", "expected"),
    [
        pytest.param([100] * 7 + [1] * 3, [1] * 10, Label.PASS, id="seven bad minutes of ten pass, however bad"),
        pytest.param([100] * 8 + [1] * 2, [1] * 10, Label.HIGH, id="eight bad minutes of ten are high"),
        pytest.param([0, 1, 2, 1, 0, 0], [0] * 6, Label.PASS, id="a few errors beside none pass"),
        pytest.param([3, 1, 2], [2, 3, 1], Label.PASS, id="the same points in another order pass"),
        pytest.param([3, 1, 2, NAN], [2, 3, 1], Label.PASS, id="the same points pass beside a gap"),
        pytest.param([0, 0, 0], [0, 0, 0, 0], Label.PASS, id="one value overall passes"),
        pytest.param([5] * 10, [4] * 10, Label.HIGH, id="two constants, the candidate's is larger"),
        pytest.param([100] * 10, [0] * 10, Label.HIGH, id="a constant beside zeros is high: a mean of 0 has no ratio"),
        pytest.param([100.1] * 10, [100] * 10, Label.HIGH, id="two constants that are almost the same"),
        pytest.param([4] * 10, [5] * 10, Label.LOW, id="two constants, the candidate's is smaller"),
        pytest.param([1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16], Label.LOW, id="a clear improvement is low"),
        pytest.param([NAN, NAN], [1, 2], Label.NODATA, id="no point of the candidate"),
        pytest.param([1, 2], [NAN, NAN], Label.NODATA, id="no point of the baseline"),
        pytest.param([100, NAN, NAN], [0, 0, 0], Label.ERROR, id="one point beside zeros has no interval"),
    ],
)
def test_a_metric_is_labelled(candidate: list[float], baseline: list[float], expected: Label) -> None:
    assert label(candidate, baseline) == expected


def test_a_shift_needs_a_larger_mean_to_be_high() -> None:
    candidate, baseline = [10.0] * 19 + [11.0], [9.0] * 19 + [1000.0]
    assert label(candidate, [*baseline[:19], 9.5]) == Label.HIGH
    assert label(candidate, baseline) == Label.PASS


def test_a_shift_needs_a_smaller_mean_to_be_low() -> None:
    candidate, baseline = [9.0] * 19, [10.0] * 19 + [11.0]
    assert label([*candidate, 9.5], baseline) == Label.LOW
    assert label([*candidate, 1000.0], baseline) == Label.PASS


@pytest.mark.parametrize(
    ("shift", "share", "expected"), [(5.2, 0.23, Label.PASS), (5.4, 0.26, Label.HIGH)], ids=["within", "beyond"]
)
def test_the_interval_is_to_be_beyond_a_quarter_of_the_estimate(shift: float, share: float, expected: Label) -> None:
    baseline = [float(point) for point in range(1, 11)]
    candidate = [point + shift for point in baseline]
    low, _, estimate = interval(candidate, baseline)
    assert low / estimate == pytest.approx(share, abs=0.005)
    assert label(candidate, baseline) == expected
    lower = [30 - point for point in candidate]
    assert label(lower, [30 - point for point in baseline]) == (Label.LOW if expected is Label.HIGH else Label.PASS)


@pytest.mark.parametrize(("points", "least", "most"), [(2, 0.10, 0.13), (3, 0.017, 0.032), (10, 0.0, 0.004)])
def test_few_points_are_high_by_chance(points: int, least: float, most: float) -> None:
    random = np.random.default_rng(7)
    found = classify(random.lognormal(0, 0.3, (points, 4000)), random.lognormal(0, 0.3, (points, 4000)))
    assert least <= (found == Label.HIGH).mean() <= most


def test_one_high_metric_fails_a_release() -> None:
    labels = np.array(
        [[Label.PASS, Label.HIGH, Label.PASS, Label.LOW], [Label.PASS, Label.PASS, Label.HIGH, Label.PASS]]
    )
    assert fails(labels).tolist() == [False, True, True, False]


def test_a_release_fails_when_half_of_its_metrics_have_no_data() -> None:
    nothing, well = Label.NODATA, Label.PASS
    assert fails(np.array([[nothing, nothing], [nothing, well], [well, well], [well, well]])).tolist() == [True, False]


def test_a_metric_without_an_interval_does_not_count() -> None:
    assert fails(np.array([[Label.ERROR], [Label.PASS]])).tolist() == [False]
