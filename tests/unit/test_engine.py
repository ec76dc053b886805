"""The engine: what false alarms cost, how soon defects are found, what cancels."""

import numpy as np
import pytest

from serinus.analysis.dispersion import Dispersion
from serinus.analysis.engine import Arms, Engine
from serinus.analysis.settings import PROFILES, PROMISE, TOLERANCES, Margin, Row, Settings, Tolerance

ALPHA = Settings().alpha
RUNS = 3000


def rows(promise=PROMISE, tolerances=TOLERANCES, outage=True):
    return (Row("errors", promise, tolerances, outage=outage),)


def arms(rng, n_c, p_c, n_b, p_b, runs=RUNS):
    draw = [rng.binomial(n, p, (1, runs)).astype(float) for n, p in ((n_c, p_c), (n_b, p_b))]
    return Arms.of(draw[0], np.full((1, runs), float(n_c)), draw[1], np.full((1, runs), float(n_b)))


def play(blocks, *, n=(100, 900), p, engine=None, kappa=0.0, warm_from=0, runs=RUNS, seed=1):
    """Return the greatest evidence for harm and for safety that every run has seen. ``p(k)`` gives both shares."""
    engine = engine or Engine(Settings(), rows())
    rng, state = np.random.default_rng(seed), engine.start(runs)
    harm, safe = np.full(runs, -np.inf), np.full(runs, -np.inf)
    for k in range(blocks):
        p_c, p_b = p(k)
        block = arms(rng, n[0], p_c, n[1], p_b, runs)
        engine.scrape(state, block)
        engine.block(
            state, block, 10.0 * (k + 1), np.full(runs, k >= warm_from), np.full((1, runs), kappa), np.full(runs, 10.0)
        )
        readout = engine.read(state, 10.0 * (k + 1))
        harm, safe = np.maximum(harm, readout.worst()), np.maximum(safe, readout.safe.min(axis=0))
    return harm, safe


def alarms(harm):
    return float((harm >= np.log(1 / ALPHA)).mean())


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (lambda k: (0.0013, 0.001), "just within the promise"),
        (lambda k: (0.0121, 0.01), "just within the promise, many failures"),
        (lambda k: (0.06 * (k % 30 < 6) + 0.001, 0.06 * (k % 30 < 6) + 0.001), "incidents that both go through"),
        (lambda k: (0.001 + 0.0001 * k, 0.001 + 0.0001 * k), "a base rate that climbs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_candidate_that_keeps_its_promise_is_called_harmful_in_no_more_than_alpha_of_all_runs(shares, said):
    harm, _ = play(180, p=shares)
    assert alarms(harm) <= ALPHA + 3 * np.sqrt(ALPHA / RUNS)


def test_a_candidate_at_the_tolerance_is_called_safe_in_no_more_than_beta_of_all_runs():
    tolerance = (Tolerance(0, 1.0, 0.01),)
    engine = Engine(Settings(), rows(Margin(1.0, 0.01), tolerance))
    _, safe = play(180, p=lambda k: (0.011, 0.001), engine=engine)
    beta = Settings().beta
    assert float((safe >= np.log(1 / beta)).mean()) <= beta + 3 * np.sqrt(beta / RUNS)


def test_weights_that_shift_while_the_base_rate_moves_feign_no_difference():
    engine, rng = Engine(Settings(), rows()), np.random.default_rng(2)
    state, worst = engine.start(RUNS), np.full(RUNS, -np.inf)
    for k in range(120):  # pooled over all blocks the candidate's share is twice stable's
        n_c, n_b, p = (900, 100, 0.02) if k % 2 else (100, 900, 0.002)
        engine.block(
            state, arms(rng, n_c, p, n_b, p), 10.0 * k, np.full(RUNS, True), np.zeros((1, RUNS)), np.full(RUNS, 10.0)
        )
        worst = np.maximum(worst, engine.read(state, 10.0 * k).worst())
    assert alarms(worst) <= ALPHA + 3 * np.sqrt(ALPHA / RUNS)


@pytest.mark.parametrize(
    ("shares", "blocks"), [((0.05, 0.001), 5), ((0.01, 0.001), 25), ((0.05, 0.01), 12), ((0.3, 0.1), 6)]
)
def test_a_clear_defect_is_found_in_few_blocks(shares, blocks):
    harm, _ = play(blocks, p=lambda k: shares)
    assert alarms(harm) > 0.9


def test_a_defect_that_begins_after_ten_minutes_is_found_soon_after():
    harm, _ = play(60, p=lambda k: (0.001, 0.001))
    assert alarms(harm) <= ALPHA
    harm, _ = play(70, p=lambda k: (0.05 if k >= 60 else 0.001, 0.001))
    assert alarms(harm) > 0.9


def hiccup(ends):
    """Return the evidence for harm of 200 releases by second, of which a fifth of requests fail from 80 to ``ends``."""
    engine, rng, runs = Engine(Settings(), rows()), np.random.default_rng(4), 200
    state, worst = engine.start(runs), {}
    for k in range(60):
        share = 0.2 if 80 <= 2.0 * k < ends else 0.001
        block = arms(rng, 200, share, 1800, 0.001, runs)
        engine.scrape(state, block)
        now_s = 2.0 * (k + 1)
        engine.block(state, block, now_s, np.full(runs, True), np.zeros((1, runs)), np.full(runs, 2.0))
        worst[now_s] = engine.read(state, now_s).worst()
    return worst


def test_a_hiccup_of_ten_seconds_decides_nothing_and_half_a_minute_of_it_does():
    worst = hiccup(ends=120)
    assert alarms(worst[80.0 + 12]) == 0
    assert alarms(worst[80.0 + 30]) == 1


def test_a_hiccup_that_is_over_leaves_nothing_behind():
    worst = hiccup(ends=90)
    assert np.median(worst[90.0]) > np.median(worst[80.0]) + 2
    assert (worst[96.0] < worst[80.0] + 0.5).mean() > 0.9


def test_an_outage_is_found_at_the_second_scrape_and_not_at_the_first():
    engine, rng = Engine(Settings(), rows()), np.random.default_rng(4)
    state = engine.start(50)
    engine.scrape(state, arms(rng, 20, 1.0, 180, 0.001, 50))
    assert alarms(engine.read(state, 2.0).worst()) == 0
    engine.scrape(state, arms(rng, 20, 1.0, 180, 0.001, 50))
    assert alarms(engine.read(state, 4.0).worst()) == 1


def test_an_outage_of_both_versions_is_not_the_candidates():
    engine, rng = Engine(Settings(), rows()), np.random.default_rng(4)
    state = engine.start(RUNS)
    worst = np.full(RUNS, -np.inf)
    for k in range(60):
        engine.scrape(state, arms(rng, 20, 0.9, 180, 0.9))
        worst = np.maximum(worst, engine.read(state, 2.0 * k).worst())
    assert alarms(worst) <= ALPHA


def test_before_it_is_warm_a_candidate_may_err_five_times_as_much_and_not_more():
    harm, safe = play(18, p=lambda k: (0.005, 0.001), warm_from=18)
    assert alarms(harm) <= ALPHA
    assert np.all(safe <= 0)
    harm, _ = play(18, p=lambda k: (0.05, 0.001), warm_from=18)
    assert alarms(harm) > 0.9


def test_pods_that_differ_cry_wolf_without_tempering_and_not_with_it():
    rng, runs = np.random.default_rng(6), 400
    engine = Engine(Settings(), rows(tolerances=()))
    plain, tempered, dispersion = engine.start(runs), engine.start(runs), Dispersion.start(runs)
    noise = rng.normal(size=(3, runs))
    most = np.full((2, runs), -np.inf)
    for k in range(-180, 240):
        noise = 0.85 * noise + np.sqrt(1 - 0.85**2) * rng.normal(size=noise.shape)
        factors = np.exp(0.6 * noise - 0.18) * 0.001
        n = np.array([2000.0, 4000.0, 4000.0])
        bad = rng.binomial(n[:, None].astype(int), np.clip(factors, 0, 1)).astype(float)
        block = Arms.of(
            bad[:1], np.full((1, runs), n[0]), bad[1:].sum(axis=0, keepdims=True), np.full((1, runs), 8000.0)
        )
        kappa = dispersion.between(np.full(runs, 2.0), np.full(runs, 4.0))
        dispersion.add(bad[1], np.full(runs, n[1]), bad[2], np.full(runs, n[2]))
        if k < 0:
            continue
        for index, (state, used) in enumerate(((plain, 0 * kappa[None]), (tempered, kappa[None]))):
            engine.block(state, block, 10.0 * k, np.full(runs, True), used, np.full(runs, 10.0))
            most[index] = np.maximum(most[index], engine.read(state, 10.0 * k).worst())
    assert alarms(most[0]) > 0.05
    assert alarms(most[1]) <= ALPHA + 3 * np.sqrt(ALPHA / runs)


def test_halves_that_differ_by_chance_alone_have_hardly_any_dispersion():
    rng, dispersion = np.random.default_rng(8), Dispersion.start(500)
    for _ in range(360):
        one, two = (rng.binomial(5000, 0.002, 500).astype(float) for _ in range(2))
        dispersion.add(one, np.full(500, 5000.0), two, np.full(500, 5000.0))
    assert np.median(dispersion.kappa()) < 0.03


def test_no_requests_are_no_evidence():
    engine = Engine(Settings(), rows())
    state = engine.start(1)
    nothing = Arms.none(1, 1)
    before = engine.read(state, 0.0)
    engine.scrape(state, nothing)
    engine.block(state, nothing, 10.0, np.array([True]), np.zeros((1, 1)), np.full(1, 10.0))
    after = engine.read(state, 10.0)
    assert after.worst()[0] == pytest.approx(before.worst()[0], abs=1e-9)
    assert after.safe[0, 0] == before.safe[0, 0] == 0


def test_limits_that_are_fixed_need_no_stable_version():
    engine = Engine(Settings(), (Row("errors", Margin(0.0, 0.01), (Tolerance(0, 0.0, 0.01),)),))
    harm, safe = play(60, p=lambda k: (0.05, 0.05), n=(100, 0), engine=engine, runs=200)
    assert alarms(harm) == 1
    harm, safe = play(60, p=lambda k: (0.001, 0.05), n=(100, 0), engine=engine, runs=200)
    assert alarms(harm) == 0
    assert float((safe >= np.log(20)).mean()) > 0.9


def test_every_profile_can_tell_good_from_bad():
    for profile in PROFILES.values():
        engine = Engine(profile.settings, (Row("errors", profile.promise, profile.tolerances, outage=True),))
        harm, safe = play(400, p=lambda k: (0.001, 0.001), engine=engine, n=(500, 500), runs=100)
        assert alarms(harm) <= 0.03
        assert float((safe >= np.log(20)).mean()) > 0.9
