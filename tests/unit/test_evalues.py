"""The e-values: exact at every point of the null, and with power beyond it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.analysis.evalues import log_e, log_e_ratio, project, upper_bound

SHARES = st.floats(1e-4, 0.9)
REQUESTS = st.integers(1, 5000)


def expected(q_c, q_b, n_c, n_b, rho, delta, truth_c, truth_b):
    """Return the logarithm of the mean of one block's e-value where the shares are ``truth``, without sampling."""
    args = (np.array(float(value)) for value in (q_c, q_b, n_c, n_b, rho, delta))
    p_c, p_b, left = (float(value) for value in project(*args))
    of_c = truth_c * q_c / p_c + (1 - truth_c) * (1 - q_c) / (1 - p_c)
    of_b = truth_b * q_b / p_b + (1 - truth_b) * (1 - q_b) / (1 - p_b)
    return n_c * np.log(of_c) + n_b * np.log(of_b) - left


@settings(max_examples=400, deadline=None)
@given(
    q_b=SHARES,
    beyond=st.floats(1.01, 50),
    rho=st.floats(0, 6),
    delta=st.floats(1e-6, 0.5),
    n_c=REQUESTS,
    n_b=REQUESTS,
    truth_b=SHARES,
    within=st.floats(0.01, 1),
)
def test_no_promise_that_is_kept_has_an_e_value_above_one_on_average(
    q_b, beyond, rho, delta, n_c, n_b, truth_b, within
):
    line = rho * q_b + delta
    odds = line / (1 - line) * beyond if line < 1 else 0
    q_c, truth_c = odds / (1 + odds), (rho * truth_b + delta) * within
    if not line < q_c < 0.999 or not 0 < truth_c < 1:
        return
    assert expected(q_c, q_b, n_c, n_b, rho, delta, truth_c, truth_b) <= 1e-9


@settings(max_examples=400, deadline=None)
@given(
    q_b=SHARES,
    below=st.floats(0.05, 0.95),
    rho=st.floats(0.1, 3),
    delta=st.floats(0, 0.1),
    n_c=REQUESTS,
    n_b=REQUESTS,
    truth_b=SHARES,
    beyond=st.floats(0, 1),
)
def test_no_candidate_at_the_tolerance_has_an_e_value_for_safety_above_one_on_average(
    q_b, below, rho, delta, n_c, n_b, truth_b, beyond
):
    q_c = (rho * q_b + delta) * below
    line = rho * truth_b + delta
    truth_c = line + (1 - line) * beyond
    if not 1e-6 < q_c < 0.99 or not 0 < truth_c < 1:
        return
    assert expected(q_c, q_b, n_c, n_b, rho, delta, truth_c, truth_b) <= 1e-9


def test_the_mean_over_drawn_counts_is_the_mean_that_is_computed():
    rng = np.random.default_rng(5)
    q_c, q_b, n_c, n_b, rho, delta = 0.05, 0.01, 20, 60, 1.2, 0.005
    bad_c, bad_b = rng.binomial(n_c, 0.017, 200_000), rng.binomial(n_b, 0.01, 200_000)
    drawn = np.exp(log_e(bad_c, n_c, bad_b, n_b, *(np.array(v) for v in (q_c, q_b, rho, delta))))
    mean = np.exp(expected(q_c, q_b, n_c, n_b, rho, delta, 0.017, 0.01))
    assert drawn.mean() == pytest.approx(mean, abs=5 * drawn.std() / np.sqrt(len(drawn)))


def test_what_does_not_depend_on_stable_is_the_plain_likelihood_ratio_of_the_candidate():
    arguments = (3.0, 20.0, 7.0, 500.0, 0.2, 0.01, 0.0, 0.05)
    value = log_e(*(np.array(v) for v in arguments))
    assert value == pytest.approx(3 * np.log(0.2 / 0.05) + 17 * np.log(0.8 / 0.95), abs=1e-6)


def test_a_ratio_of_small_shares_is_tested_as_counts_given_their_sum():
    counts = tuple(np.array(float(v)) for v in (4, 1000, 3, 9000))
    margins = log_e(*counts, np.array(0.005), np.array(0.001), np.array(1.0), np.array(0.0))
    ratio = log_e_ratio(*counts, np.array(5.0), np.array(1.0))
    assert margins == pytest.approx(float(ratio), abs=0.05)


def test_counts_given_their_sum_have_mean_one_at_the_boundary_whatever_the_base_rate():
    rng = np.random.default_rng(3)
    for base in (0.5, 20.0):
        bad_c, bad_b = rng.poisson(base * 1.2, 200_000), rng.poisson(base * 3, 200_000)
        drawn = np.exp(log_e_ratio(bad_c, np.array(1.0), bad_b, np.array(3.0), np.array(2.0), np.array(1.2)))
        assert drawn.mean() == pytest.approx(1.0, abs=5 * drawn.std() / np.sqrt(len(drawn)))


def test_the_upper_bound_is_where_the_divergence_reaches_the_level():
    n = np.repeat([1.0, 3.0, 20.0, 300.0, 1e4, 1e6, 1e7], 200)
    shares = np.concatenate([np.linspace(*ends) for ends in ((0, 1, 100), (0.98, 1, 50), (0, 0.02, 50))])
    share = np.floor(n * np.tile(shares, 7)) / n
    level = (3 + np.log1p(n) / 2) / n
    low, high = share, np.ones_like(share)
    for _ in range(50):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            hit = np.where(share > 0, share * np.log(share / middle), 0)
            miss = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - middle)), 0)
        low, high = np.where(hit + miss <= level, middle, low), np.where(hit + miss <= level, high, middle)
    over = upper_bound(share * n, n) - high
    assert over.min() > -1e-11
    assert over.max() < 1e-8


def test_where_all_requests_are_bad_the_upper_bound_is_one_also_when_sums_are_rounded():
    bounds = upper_bound(np.array([5.0, 1000.0 + 1e-9, 1e6 * 1.001]), np.array([5.0, 1000.0, 1e6]))
    assert bounds == pytest.approx(1)


def test_the_upper_bound_falls_with_clean_requests_and_covers_the_truth():
    bounds = upper_bound(np.zeros(4), np.array([0.0, 10.0, 100.0, 10_000.0]))
    assert bounds[0] == 1
    assert np.all(np.diff(bounds) < 0)
    rng = np.random.default_rng(9)
    bad = rng.binomial(1, 0.02, (2000, 400)).cumsum(axis=1)
    n = np.arange(1, 401)
    never = (upper_bound(bad.astype(float).ravel(), np.tile(n, 2000).astype(float)).reshape(bad.shape) < 0.02).any(
        axis=1
    )
    assert never.mean() < 0.05
