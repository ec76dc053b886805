"""The simulated world: what a traffic model says is what happens, as often as it says, within chance."""

import json
from collections.abc import Callable, Iterable, Mapping
from math import erfc, exp, log, sqrt
from random import Random
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.mesh.ads import Proxy
from serinus.mesh.scrape import EvidenceReader
from serinus.simulation.disturbances import Disturbances
from serinus.simulation.processes import Episodes
from serinus.simulation.scrapes import Scrapes
from serinus.simulation.traffic import TrafficModel, load_traffic
from serinus.simulation.trouble import Noise
from serinus.simulation.world import ArmCounts, FloatArray, IntArray, Tick, World

RUNS = 60
SLOW = LATENCY_EDGES_MS.index(500.0) + 1
"""The first bucket of answers that are slower than 500 ms."""


def model(rest: str = "", rate: float = 200) -> TrafficModel:
    return load_traffic(f"requests: {{perSecond: {rate}}}\n{rest}")


def world(rest: str = "", rate: float = 200, runs: int = RUNS, seed: int = 1, tick_s: float = 2.0) -> World:
    return World(model(rest, rate), runs, seed, tick_s)


def play(of: World, ticks: int, weight: float = 50, pods: int | None = None) -> list[Tick]:
    weights = np.full(RUNS, float(weight))
    return [of.tick(weights, pods) for _ in range(ticks)]


def total(arms: Iterable[ArmCounts]) -> tuple[int, int, IntArray]:
    """Return requests, failures and latencies of all runs together."""
    arms = list(arms)
    buckets = sum((arm.buckets.sum(axis=1) for arm in arms), start=np.zeros(len(LATENCY_EDGES_MS) + 1, np.int64))
    return sum(int(arm.requests.sum()) for arm in arms), sum(int(arm.failures.sum()) for arm in arms), buckets


def candidate(ticks: Iterable[Tick]) -> tuple[int, int, IntArray]:
    return total(tick.candidate for tick in ticks)


def stable(ticks: Iterable[Tick]) -> tuple[int, int, IntArray]:
    return total(half for tick in ticks for half in tick.stable)


def assert_share(found: int, among: int, share: float, spread: float = 1.0) -> None:
    """Assert a binomial count within four standard deviations; ``spread`` widens these where draws are not free."""
    assert among > 0
    assert abs(found - among * share) <= 4 * spread * sqrt(among * share * (1 - share)) + 1e-9


def log_normal_above(line_ms: float, median_ms: float = 50, sigma: float = 0.8) -> float:
    return erfc(log(line_ms / median_ms) / sigma / sqrt(2)) / 2


def same(one: Tick, other: Tick) -> bool:
    return all(
        np.array_equal(a.requests, b.requests)
        and np.array_equal(a.failures, b.failures)
        and np.array_equal(a.buckets, b.buckets)
        for a, b in zip((one.candidate, *one.stable), (other.candidate, *other.stable), strict=True)
    ) and np.array_equal(one.hurt, other.hurt)


ALL_NOISE = """
noise:
  bursts: {every: 30s, lasts: 10s, errorPoints: 5, latencyFactor: 2}
  pods: {errorsCv: 1, latencyCv: 0.2}
  glitches: {every: 30s, lasts: 3s, percent: 20}
  warmUp: {decay: 20s, errorsFactor: 5, errorPoints: 1, latencyFactor: 2}
  missingScrapes: {percent: 20}
  counterResets: {every: 15s}
  lateSeries: {after: 5s}
  overload: {perPod: 50, errorPoints: 1, latencyFactor: 2}
"""


# The world itself


def test_the_same_seed_gives_the_same_numbers_and_another_gives_others() -> None:
    one, again, other = (play(world(ALL_NOISE, seed=seed), 20) for seed in (1, 1, 2))
    assert all(map(same, one, again))
    assert not any(map(same, one, other))


def test_the_same_seed_gives_other_numbers_in_another_model() -> None:
    one, other = play(world(), 5), play(world("errors: {percent: 0.2}"), 5)
    assert not np.array_equal(one[0].candidate.requests, other[0].candidate.requests)


def test_the_history_has_the_stable_version_only_and_ends_as_the_run_begins() -> None:
    played = world("defects: [{outage: true}]")
    times, ticks = [], []
    for tick in played.history(60):
        times.append(played.now_s)
        ticks.append(tick)
    assert (len(ticks), times[0], times[-1], played.now_s) == (30, -58, 0, 0)
    assert candidate(ticks)[0] == 0
    assert sum(tick.hurt.sum() for tick in ticks) == 0
    assert abs(stable(ticks)[0] - 200 * 60 * RUNS) < 4 * sqrt(200 * 60 * RUNS)
    play(played, 3)
    assert played.now_s == 6


NOISY = """
requests: {series: {values: [40, 80], interval: 30s, start: 5m}}
errors: {series: {values: [1, 1, 5], interval: 30s, start: 5m}}
latency: {median: 50ms, sigma: 0.8}
pods: {stable: 4}
noise:
  bursts: {every: 2m, lasts: 20s, errorPoints: 5, latencyFactor: 3}
  pods: {errorsCv: 0.3, latencyCv: 0.2}
  glitches: {every: 3m, lasts: 10s, percent: 20}
  overload: {perPod: 10, errorPoints: 10, latencyFactor: 2}
"""


def test_the_past_drawn_at_once_is_like_the_history_tick_by_tick() -> None:
    runs, played = 200, [World(load_traffic(NOISY), 200, seed, 2.0) for seed in (1, 2)]
    past, ticks = played[0].past(300.0), list(played[1].history(300.0))
    sums = [sum((pick(half) for tick in ticks for half in tick.stable), start=np.zeros(runs)) for pick in MEASURED]
    for pick, summed in zip(MEASURED, sums, strict=True):
        at_once = pick(past)
        error = np.sqrt((at_once.var() + summed.var()) / runs)
        assert abs(at_once.mean() - summed.mean()) < 4 * error
        assert 0.8 < at_once.std() / summed.std() < 1.25


MEASURED: tuple[Callable[[ArmCounts], FloatArray], ...] = (
    lambda arm: arm.requests.astype(float),
    lambda arm: arm.failures.astype(float),
    lambda arm: arm.buckets[SLOW:].sum(axis=0).astype(float),
)


def test_a_past_of_no_length_is_empty() -> None:
    past = world().past(0.0)
    assert past.requests.sum() == past.failures.sum() == past.buckets.sum() == 0
    assert past.requests.shape == (RUNS,)


def test_requests_are_poisson_and_split_by_weight() -> None:
    weights = np.array([0.0, 10.0, 60.0, 100.0])
    played = World(model(rate=50), 4, seed=3)
    ticks = [played.tick(weights) for _ in range(2000)]
    for requests, share in (
        (np.array([tick.candidate.requests for tick in ticks]), weights / 100),
        (np.array([tick.stable[0].requests for tick in ticks]), (1 - weights / 100) / 2),
        (np.array([tick.stable[1].requests for tick in ticks]), (1 - weights / 100) / 2),
    ):
        expected = 100 * share
        assert (abs(requests.mean(axis=0) - expected) <= 4 * np.sqrt(expected / 2000)).all()
        assert (abs(requests.var(axis=0) - expected) <= 4 * expected * sqrt(2 / 1999) + 1e-9).all()


@pytest.mark.parametrize("weights", [np.full(RUNS, 101.0), np.full(RUNS, -1.0), np.full(RUNS + 1, 5.0)])
def test_weights_that_are_none_are_refused(weights: FloatArray) -> None:
    with pytest.raises(ValueError, match="weights are 60 percentages from 0 to 100"):
        world().tick(weights)


def test_a_model_whose_file_was_not_read_is_refused() -> None:
    unread = TrafficModel.model_validate({"requests": {"series": {"file": "rps.csv", "interval": "1m"}}})
    with pytest.raises(ValueError, match="load the model by load_traffic"):
        World(unread, 1, seed=1)


@pytest.mark.parametrize(
    ("latency", "above"),
    [
        ("median: 50ms, sigma: 0.8", lambda ms: log_normal_above(ms)),
        (
            "median: 20ms, sigma: 0.5, slow: {percent: 10, median: 800ms, sigma: 0.3}",
            lambda ms: 0.9 * log_normal_above(ms, 20, 0.5) + 0.1 * log_normal_above(ms, 800, 0.3),
        ),
        (
            "quantiles: [{percent: 50, at: 25ms}, {percent: 90, at: 100ms}, {percent: 99, at: 1s}]",
            lambda ms: {25.0: 0.5, 100.0: 0.1, 1000.0: 0.01}.get(
                ms, 1 - NormalDist().cdf(NormalDist().inv_cdf(0.9) * log(ms / 25) / log(4)) if ms < 100 else None
            ),
        ),
    ],
    ids=["log-normal", "with a slow mode", "by quantiles"],
)
def test_latencies_are_distributed_as_the_model_says(latency: str, above: Any) -> None:
    requests, _, buckets = stable(play(world(f"latency: {{{latency}}}"), 50))
    assert buckets.sum() == requests
    compared = [
        (int(buckets[edge + 1 :].sum()), share)
        for edge, ms in enumerate(LATENCY_EDGES_MS)
        if (share := above(ms)) is not None
    ]
    assert len(compared) >= 8
    for slower, share in compared:
        assert_share(slower, requests, share)


def test_steps_and_trends_of_the_requests_come_when_they_should() -> None:
    played = World(
        load_traffic(
            "requests: {perSecond: 100, changes: [{after: 11s, to: 500}, {after: 20s, over: 10s, to: 0},"
            " {after: 40s, to: 50}]}"
        ),
        RUNS,
        seed=1,
    )
    found = [sum(half.requests.mean() for half in tick.stable) for tick in play(played, 25, weight=0)]
    expected = [200.0] * 5 + [600.0] + [1000.0] * 4 + [900.0, 700.0, 500.0, 300.0, 100.0] + [0.0] * 5 + [100.0] * 5
    assert (abs(np.array(found) - expected) <= 4 * np.sqrt(np.array(expected) / RUNS)).all()


def test_a_series_is_played_from_its_start_and_again_after_its_end() -> None:
    text = "requests: {series: {values: [6, 60, 600], interval: 4s, factor: 10, start: 4s}}"
    played = World(load_traffic(text), RUNS, seed=1)
    past = [sum(half.requests.mean() for half in tick.stable) for tick in played.history(8)]
    found = past + [sum(half.requests.mean() for half in tick.stable) for tick in play(played, 8, weight=0)]
    expected = 2 * 10 * np.array([6.0, 6, 6, 6, 60, 60, 600, 600, 6, 6, 60, 60])
    assert (abs(found - expected) <= 4 * np.sqrt(expected / RUNS)).all()


def test_the_error_rate_changes_for_both_versions_at_a_step() -> None:
    ticks = play(world("errors: {percent: 1, changes: [{after: 20s, to: 9}]}"), 20)
    for versions in (candidate, stable):
        for span, share in ((ticks[:10], 0.01), (ticks[10:], 0.09)):
            requests, failures, _ = versions(span)
            assert_share(failures, requests, share)


def test_an_error_rate_can_be_a_series() -> None:
    ticks = play(world("errors: {series: {values: [1, 9], interval: 20s}}"), 20)
    for span, share in ((ticks[:10], 0.01), (ticks[10:], 0.09)):
        assert_share(stable(span)[1], stable(span)[0], share)


def test_an_endpoint_has_its_own_errors_and_latencies() -> None:
    ticks = play(world("errors: {percent: 1}\nendpoints: [{name: buy, percent: 20, errors: 6, latencyFactor: 5}]"), 40)
    for requests, failures, buckets in (candidate(ticks), stable(ticks)):
        assert_share(failures, requests, 0.8 * 0.01 + 0.2 * 0.06)
        assert_share(
            int(buckets[SLOW:].sum()), requests, 0.8 * log_normal_above(500) + 0.2 * log_normal_above(500, 250)
        )


# Defects


@pytest.mark.parametrize(
    ("defects", "failing", "slow"),
    [
        ("{errorRatio: 5}", 0.05, log_normal_above(500)),
        ("{errorPoints: 3}", 0.04, log_normal_above(500)),
        ("{outage: true}", 1.0, log_normal_above(500)),
        ("{latencyFactor: 2}", 0.01, log_normal_above(500, 100)),
        ("{slowTail: {percent: 4, add: 1s}}", 0.01, 0.96 * log_normal_above(500) + 0.04),
        (
            "{slowTail: {percent: 4, add: 400ms}}, {latencyFactor: 2}",
            0.01,
            0.96 * log_normal_above(500, 100) + 0.04 * log_normal_above(100, 100),
        ),
        ("{outage: true, endpoint: buy}", 0.8 * 0.01 + 0.2, log_normal_above(500)),
        (
            "{latencyFactor: 4, endpoint: buy}, {errorRatio: 2}",
            0.02,
            0.8 * log_normal_above(500) + 0.2 * log_normal_above(500, 200),
        ),
        ("{errorPoints: 8, onePodOnly: true}", 0.01 + 0.08 / 4, log_normal_above(500)),
        ("{errorPoints: 8, onePodOnly: true, endpoint: buy}, {errorRatio: 2}", 0.02 + 0.004, log_normal_above(500)),
    ],
)
def test_a_defect_has_its_effect_on_the_candidate_alone(defects: str, failing: float, slow: float) -> None:
    text = "errors: {percent: 1}\npods: {candidate: 4}\nendpoints: [{name: buy, percent: 20}]\n"
    ticks = play(world(text + f"defects: [{defects}]"), 40)
    requests, failures, buckets = candidate(ticks)
    assert_share(failures, requests, failing)
    assert_share(int(buckets[SLOW:].sum()), requests, slow)
    requests, failures, buckets = stable(ticks)
    assert_share(failures, requests, 0.01)
    assert_share(int(buckets[SLOW:].sum()), requests, log_normal_above(500))


def bad(failing: float, slow: float) -> float:
    return 1 - (1 - failing) * (1 - slow)


@pytest.mark.parametrize(
    ("defects", "per_request"),
    [
        ("", 0.0),
        ("{outage: true}", 1 - bad(0.01, log_normal_above(500))),
        ("{outage: true, unanswered: true}", 1 - bad(0.01, log_normal_above(500))),
        ("{errorRatio: 5}", bad(0.05, log_normal_above(500)) - bad(0.01, log_normal_above(500))),
        ("{latencyFactor: 2}", bad(0.01, log_normal_above(500, 100)) - bad(0.01, log_normal_above(500))),
        ("{outage: true, endpoint: buy}", 0.2 * (1 - bad(0.01, log_normal_above(500)))),
        ("{outage: true, onePodOnly: true}", 0.25 * (1 - bad(0.01, log_normal_above(500)))),
        ("{errorRatio: 0.1}", 0.0),
    ],
)
def test_the_hurt_is_what_the_defect_adds_to_each_request(defects: str, per_request: float) -> None:
    text = "errors: {percent: 1}\npods: {candidate: 4}\nendpoints: [{name: buy, percent: 20}]\n"
    for tick in play(world(text + f"defects: [{defects}]"), 5):
        assert tick.hurt == pytest.approx(tick.candidate.requests * per_request, rel=1e-4)


def test_the_hurt_is_told_from_noise() -> None:
    always = "noise: {bursts: {every: 1s, lasts: 10000h, errorPoints: 40}}\n"
    ticks = play(world("errors: {percent: 0}\n" + always + "defects: [{outage: true}]"), 10)
    expected = (1 - 0.4) * (1 - log_normal_above(500))
    assert sum(tick.hurt.sum() for tick in ticks) == pytest.approx(candidate(ticks)[0] * expected, rel=1e-3)
    assert sum(tick.hurt.sum() for tick in play(world(ALL_NOISE), 10)) == 0


def test_the_hurt_counts_what_no_scrape_saw() -> None:
    ticks = play(world("noise: {missingScrapes: {percent: 100}}\ndefects: [{outage: true}]"), 10)
    assert candidate(ticks)[0] == 0
    assert sum(tick.hurt.sum() for tick in ticks) == pytest.approx(100 * 20 * RUNS, rel=0.02)


def test_another_slow_line_makes_other_answers_bad() -> None:
    ticks = play(world("slowLine: 70ms\ndefects: [{latencyFactor: 2}]"), 10)
    expected = (log_normal_above(70, 100) - log_normal_above(70)) * 0.999
    assert sum(tick.hurt.sum() for tick in ticks) == pytest.approx(candidate(ticks)[0] * expected, rel=1e-4)


def test_failures_without_an_answer_have_no_latency() -> None:
    ticks = play(world("errors: {percent: 1}\ndefects: [{errorPoints: 30, unanswered: true}]"), 20)
    requests, failures, buckets = candidate(ticks)
    assert_share(failures, requests, 0.31)
    assert_share(requests - int(buckets.sum()), requests, 0.30)
    assert stable(ticks)[0] == stable(ticks)[2].sum()


def hurt_shares(defect: str, weights: Iterable[float], tick_s: float = 2.0) -> list[float]:
    """Return the size of a defect of 100 error points, tick by tick."""
    text = f"errors: {{percent: 0}}\nlatency: {{median: 1ms, sigma: 0.1}}\ndefects: [{defect}]"
    played = world(text, tick_s=tick_s)
    ticks = [played.tick(np.full(RUNS, weight)) for weight in weights]
    return [float(tick.hurt.sum() / tick.candidate.requests.sum()) for tick in ticks]


@pytest.mark.parametrize(
    ("onset", "weights", "sizes"),
    [
        ("after: 5s", [50.0] * 4, [0, 0, 0.5, 1]),
        ("after: 3s, lasts: 4s", [50.0] * 5, [0, 0.5, 1, 0.5, 0]),
        ("over: 8s", [50.0] * 5, [0.125, 0.375, 0.625, 0.875, 1]),
        ("over: 4s, after: 2s, lasts: 4s", [50.0] * 4, [0, 0.25, 0.75, 0]),
        ("fromWeight: 25", [10.0, 25.0, 24.0, 50.0], [0, 1, 0, 1]),
        ("fromWeight: 25, over: 4s", [10.0, 25.0, 10.0, 50.0, 25.0], [0, 0.25, 0, 0.75, 1]),
        ("fromWeight: 25, after: 3s", [50.0, 50.0, 10.0, 50.0], [0, 0.5, 0, 1]),
    ],
)
def test_a_defect_shows_when_it_should(onset: str, weights: list[float], sizes: list[float]) -> None:
    assert hurt_shares(f"{{outage: true, {onset}}}", weights) == pytest.approx(sizes, abs=1e-9)


def test_a_defect_by_weight_shows_in_the_runs_that_have_the_weight() -> None:
    played = world("errors: {percent: 0}\ndefects: [{outage: true, fromWeight: 25}]")
    tick = played.tick(np.where(np.arange(RUNS) < 20, 25.0, 24.0))
    assert (tick.candidate.failures[:20] == tick.candidate.requests[:20]).all()
    assert not tick.candidate.failures[20:].any()


def test_ticks_of_another_length_give_the_same_defect() -> None:
    short = hurt_shares("{outage: true, after: 13s, over: 20s}", [50.0] * 20)
    long = hurt_shares("{outage: true, after: 13s, over: 20s}", [50.0] * 4, tick_s=10)
    assert [sum(short[5 * each : 5 * each + 5]) / 5 for each in range(4)] == pytest.approx(long)


# Noise in what happens


def test_bursts_are_shared_by_both_versions_and_as_frequent_and_long_as_the_model_says() -> None:
    text = "errors: {percent: 0}\nnoise: {bursts: {every: 30s, lasts: 10s, errorPoints: 40}}"
    ticks = play(world(text), 600)
    arms = [
        np.array([arm.failures / np.maximum(arm.requests, 1) for arm in arms])
        for arms in ([tick.candidate for tick in ticks], *([tick.stable[half] for tick in ticks] for half in (0, 1)))
    ]
    episodes = RUNS * 1200 / 40
    for arm in arms:
        assert arm.mean() == pytest.approx(0.4 * 10 / 40, abs=0.4 * 4 * 0.25 / sqrt(episodes))
    assert np.corrcoef(arms[0].ravel(), arms[1].ravel())[0, 1] > 0.9
    inside = arms[1] + arms[2] > 0.1
    begins = int((inside[1:] & ~inside[:-1]).sum())
    assert begins == pytest.approx(episodes, rel=0.15)  # some are too short or too near another one to be seen


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("tick_s", [0.5, 2.0, 30.0])
def test_episodes_take_their_share_of_the_time_from_the_first_tick_on(tick_s: float, fixed: bool) -> None:
    episodes = Episodes(np.random.default_rng(1), (20_000,), every_s=9.0, lasts_s=3.0, fixed=fixed)
    for _ in range(5):
        covered = episodes.advance(tick_s)
        assert covered.mean() == pytest.approx(0.25, abs=4 * covered.std() / sqrt(20_000))
        assert covered.min() >= 0
        assert covered.max() <= 1


def test_a_burst_slows_both_versions() -> None:
    always = "noise: {bursts: {every: 1s, lasts: 10000h, latencyFactor: 3}}"
    ticks = play(world(always), 20)
    for requests, _, buckets in (candidate(ticks), stable(ticks)):
        assert_share(int(buckets[SLOW:].sum()), requests, log_normal_above(500, 150), spread=1.1)


def error_rates(rest: str, ticks: int, pods: int | None = None) -> list[FloatArray]:
    """Return the error rates of the candidate and the halves at so much traffic that chance is small."""
    played = play(world(rest, rate=300_000), ticks, pods=pods)
    arms = [(tick.candidate, *tick.stable) for tick in played]
    return [np.array([tick[arm].failures / tick[arm].requests for tick in arms]) for arm in range(3)]


@pytest.mark.parametrize(("candidate_pods", "shrink"), [(1, 1.0), (4, 0.5)])
def test_the_luck_of_pods_has_its_cv_and_an_arm_has_the_mean_of_its_pods(candidate_pods: int, shrink: float) -> None:
    text = f"errors: {{percent: 10}}\npods: {{stable: 8, candidate: {candidate_pods}}}\n"
    arms = error_rates(text + "noise: {pods: {errorsCv: 0.4, correlation: 4s}}", 300)
    free = RUNS * 300 / 4
    for arm, cv in zip(arms, (0.4 * shrink, 0.2, 0.2), strict=True):
        assert arm.mean() == pytest.approx(0.1, abs=4 * 0.1 * cv / sqrt(free))
        assert arm.std() / 0.1 == pytest.approx(cv, rel=0.12)
    assert abs(np.corrcoef(arms[0].ravel(), arms[1].ravel())[0, 1]) < 4 / sqrt(free)
    assert abs(np.corrcoef(arms[1].ravel(), arms[2].ravel())[0, 1]) < 4 / sqrt(free)
    logs = np.log(error_rates(text + "noise: {pods: {errorsCv: 0.4, correlation: 4s}}", 300)[0])
    if candidate_pods == 1:
        assert np.corrcoef(logs[:-1].ravel(), logs[1:].ravel())[0, 1] == pytest.approx(exp(-2 / 4), abs=0.04)


def test_the_luck_of_pods_can_be_in_their_latency() -> None:
    text = "latency: {median: 100ms}\npods: {candidate: 1}\nnoise: {pods: {latencyCv: 0.3}}"
    played = play(world(text, rate=100_000), 100)
    slower = np.array([tick.candidate.buckets[7:].sum(axis=0) / tick.candidate.requests for tick in played])
    assert slower.std() > 0.05
    quiet = play(world("latency: {median: 100ms}", rate=100_000), 20)
    assert np.std([tick.candidate.buckets[7:].sum(axis=0) / tick.candidate.requests for tick in quiet]) < 0.003


def test_glitches_hit_one_pod_at_a_time_at_any_moment() -> None:
    text = "errors: {percent: 0}\npods: {stable: 4, candidate: 1}\n"
    arms = error_rates(text + "noise: {glitches: {every: 97s, lasts: 3s, percent: 20}}", 500)
    glitches = RUNS * 1000 / 100
    for arm, pods in zip(arms, (1, 2, 2), strict=True):
        assert arm.mean() == pytest.approx(0.2 * 3 / 100, abs=4 * 0.2 * 3 / 100 / sqrt(glitches * pods))
    one_pod = arms[0][arms[0] > 0.001]
    assert one_pod.max() == pytest.approx(0.2, abs=0.01)
    assert ((one_pod > 0.02) & (one_pod < 0.18)).mean() > 0.4  # a tick that a glitch covers in part
    assert np.quantile(arms[1][arms[1] > 0.001], 0.9) == pytest.approx(0.1, abs=0.01)


def test_cold_pods_of_the_candidate_warm_up_from_their_first_request_on() -> None:
    text = "errors: {percent: 2}\nnoise: {warmUp: {decay: 6s, errorsFactor: 5, errorPoints: 3}}"
    played = world(text, rate=30_000)
    played.tick(np.zeros(RUNS))
    found = [candidate([tick])[1] / candidate([tick])[0] for tick in play(played, 6)]
    cold = [(exp(-at / 6) - exp(-(at + 2) / 6)) * 6 / 2 for at in range(0, 12, 2)]
    assert found == pytest.approx([0.02 * (1 + 4 * each) + 0.03 * each for each in cold], rel=0.02)
    requests, failures, _ = stable(play(played, 3))
    assert failures / requests == pytest.approx(0.02, rel=0.05)
    halved = candidate(play(played, 1, pods=2))  # one pod is nearly warm after 18 s, the other one is new
    share = cold[0] / 2 + cold[0] * exp(-18 / 6) / 2
    assert halved[1] / halved[0] == pytest.approx(0.02 * (1 + 4 * share) + 0.03 * share, rel=0.02)


def test_runs_that_send_nothing_to_the_candidate_leave_it_cold() -> None:
    played = world("errors: {percent: 2}\nnoise: {warmUp: {decay: 6s, errorsFactor: 5}}", rate=30_000)
    some = np.where(np.arange(RUNS) < 30, 50.0, 0.0)
    for _ in range(20):
        played.tick(some)
    tick = played.tick(np.full(RUNS, 50.0)).candidate
    assert tick.failures[:30].sum() / tick.requests[:30].sum() == pytest.approx(0.02, rel=0.05)
    assert tick.failures[30:].sum() / tick.requests[30:].sum() == pytest.approx(0.0882, rel=0.05)


def test_an_arm_with_too_many_requests_for_each_pod_is_overloaded() -> None:
    text = "errors: {percent: 1}\npods: {stable: 4, candidate: 2}\n"
    overload = "noise: {overload: {perPod: 100, errorPoints: 10, latencyFactor: 3}}"
    ticks = play(world(text + overload, rate=600), 20, weight=50)
    requests, failures, buckets = candidate(ticks)  # 150 to each pod
    assert_share(failures, requests, 0.01 + 0.05)
    assert_share(int(buckets[SLOW:].sum()), requests, log_normal_above(500, 100))
    requests, failures, buckets = stable(ticks)  # 75 to each pod
    assert_share(failures, requests, 0.01)
    assert_share(int(buckets[SLOW:].sum()), requests, log_normal_above(500))


@pytest.mark.parametrize("pods", [1, 4, 5])
def test_the_halves_of_the_stable_version_do_not_differ(pods: int) -> None:
    text = f"errors: {{percent: 5}}\npods: {{stable: {pods}}}\n"
    noise = "noise: {pods: {errorsCv: 0.5, correlation: 4s}, glitches: {every: 40s, lasts: 4s, percent: 20}}"
    _, one, other = error_rates(text + noise, 300)
    free = RUNS * 300 / 4
    assert one.mean() == pytest.approx(other.mean(), abs=4 * one.std() * sqrt(2 / free))
    assert one.std() == pytest.approx(other.std(), rel=0.1)


def test_what_happens_to_a_service_does_not_depend_on_its_traffic() -> None:
    noisy = model(ALL_NOISE.split("  overload")[0])

    def conditions(weight: float, pods: int) -> list[FloatArray]:
        streams = [np.random.default_rng(each) for each in (1, 2, 3)]
        noise = Disturbances(noisy, 5, *streams)
        rates = np.full(5, weight), np.full(5, 100 - weight)
        return [np.asarray(noise.advance(2.0, *rates, pods)[1].error_share) for _ in range(50)]

    assert np.array_equal(conditions(10.0, 1), conditions(90.0, 7))


# What is seen of it


def test_scrapes_that_fail_lose_nothing() -> None:
    ticks = play(world("errors: {percent: 10}\nnoise: {missingScrapes: {percent: 40}}"), 200)
    empty = np.array([tick.candidate.requests == 0 for tick in ticks])
    assert_share(int(empty.sum()), empty.size, 0.4)
    assert all(((tick.candidate.requests == 0) == (tick.stable[0].requests == 0)).all() for tick in ticks)
    requests, failures, _ = candidate(ticks)
    assert requests == pytest.approx(200 / 2 * 400 * RUNS, rel=0.01)
    assert_share(failures, requests, 0.1)


def test_what_was_counted_before_a_reset_is_lost() -> None:
    """Of a tick the part before its last reset is lost, on average ``1 - (1 - exp(-m)) / m`` with m resets a tick."""
    ticks = play(world("errors: {percent: 10}\nnoise: {counterResets: {every: 4s}}"), 300)
    kept = (1 - exp(-0.5)) / 0.5
    for requests, failures, buckets in (candidate(ticks), stable(ticks)):
        assert requests / (200 / 2 * 600 * RUNS) == pytest.approx(kept, abs=0.01)
        assert_share(failures, requests, 0.1)
        assert_share(int(buckets[SLOW:].sum()), requests, log_normal_above(500))
        assert buckets.sum() == requests


def test_a_reset_hits_both_versions_at_once() -> None:
    ticks = play(world("noise: {counterResets: {every: 20s}}", rate=10_000), 60)
    versions = [np.array([arm.requests for arm in (tick.candidate, tick.stable[0])]) for tick in ticks]
    seen = np.stack(versions, axis=1)
    assert np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1] > 0.9


def test_a_late_series_comes_all_at_once() -> None:
    played = world("noise: {lateSeries: {after: 7s}}")
    silent = play(played, 3, weight=0)
    assert candidate(silent)[0] == 0
    ticks = play(played, 6)
    assert [candidate([tick])[0] for tick in ticks[:3]] == [0, 0, 0]
    assert candidate(ticks[3:4])[0] == pytest.approx(100 * 8 * RUNS, rel=0.03)
    assert candidate(ticks[4:5])[0] == pytest.approx(100 * 2 * RUNS, rel=0.05)
    assert stable(ticks[:1])[0] == pytest.approx(100 * 2 * RUNS, rel=0.05)


CANDIDATE, STABLE = "shop|web|80|candidate", "shop|web|80|stable"


class Caller:
    """A caller's sidecar, read by the product's own reader."""

    def __init__(self) -> None:
        self.now = self.started = 1000.0
        self.counted: dict[str, IntArray] = {}
        self.shown = {STABLE}
        self.down = False
        self.reader = EvidenceReader(self._fetch, lambda: self.now)
        self.reader.watch("web", {CANDIDATE}, {STABLE}, lambda: [Proxy("shop", "web-1", "uid", "ip", 0.0)])

    async def _fetch(self, address: str, _: Mapping[str, str]) -> bytes:
        if self.down:
            raise ConnectionRefusedError(address)
        stats: list[dict[str, Any]] = [{"name": "server.uptime", "value": self.now - self.started}]
        details = []
        for cluster in self.shown & self.counted.keys():
            requests, failures, *buckets = (int(each) for each in self.counted[cluster])
            counters = {"upstream_rq_total": requests, "upstream_rq_completed": requests, "upstream_rq_5xx": failures}
            stats += [{"name": f"cluster.{cluster}.{name}", "value": value} for name, value in counters.items()]
            latencies = [(edge * 0.9, count) for edge, count in zip((*LATENCY_EDGES_MS, 9999.0), buckets, strict=True)]
            totals = [{"lower_bound": bound, "width": 0, "count": count} for bound, count in latencies]
            details.append({"name": f"cluster.{cluster}.upstream_rq_time", "totals": totals})
        return json.dumps({"stats": [*stats, {"histograms": {"details": details}}]}).encode()

    async def scrape(self) -> list[list[int]]:
        await self.reader.round()
        evidence = self.reader.totals("web").evidence
        return [[counts.requests, counts.failures, *counts.buckets] for counts in (evidence.candidate, evidence.stable)]


@pytest.mark.parametrize("seed", range(20))
async def test_what_is_seen_is_what_the_real_reader_sees(seed: int) -> None:
    """Scrapes fail, the sidecar restarts between two of them, and the candidate's series shows after a while."""
    random, numbers = Random(seed), np.random.default_rng(seed)
    noise = Noise.model_validate({"counterResets": {"every": "1h"}, "lateSeries": {"after": "9s"}})
    scrapes, caller = Scrapes(numbers, noise, runs=1), Caller()
    await caller.scrape()
    seen, times_read = np.zeros((15, 2, 1), np.int64), 0
    for tick in range(60):
        buckets = numbers.poisson(3.0, (13, 2, 1))
        requests = buckets.sum(axis=0)
        happened = np.concatenate([[requests], [numbers.binomial(requests, 0.2)], buckets])
        scrapes._missing = float(random.random() < 0.3)
        restarts = random.random() < 0.15
        scrapes._next_reset_s[:] = 0.0 if restarts else 1e9
        seen += scrapes.read(happened, end_s=2.0 * tick + 2, tick_s=2.0)
        caller.now += 2.0
        if restarts:
            caller.started = caller.now - 0.5
            caller.counted = {}
        for arm, cluster in enumerate((CANDIDATE, STABLE)):
            caller.counted[cluster] = caller.counted.get(cluster, np.zeros(15, np.int64)) + happened[:, arm, 0]
        caller.down = scrapes._missing > 0
        if 2.0 * tick + 2 >= 9:
            caller.shown = {CANDIDATE, STABLE}
        assert await caller.scrape() == seen[:, :, 0].T.tolist()
        times_read += not caller.down
    assert times_read > 20


NOISES = [line.strip() for line in ALL_NOISE.strip().splitlines()[1:]]
DEFECTS = [
    "{errorRatio: 3}",
    "{outage: true, unanswered: true, onePodOnly: true, fromWeight: 20}",
    "{latencyFactor: 2, over: 10s}",
    "{slowTail: {percent: 5, add: 1s}, endpoint: buy}",
    "{errorPoints: 70, unanswered: true, after: 3s, lasts: 10s}",
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(NOISES), unique=True),
    st.lists(st.sampled_from(DEFECTS)),
    st.sampled_from([0.5, 30, 20_000]),
    st.lists(st.tuples(st.sampled_from([0.0, 5.0, 50.0, 100.0]), st.integers(1, 4)), min_size=1, max_size=12),
)
def test_counts_are_always_counts(
    noises: list[str], defects: list[str], rate: float, moves: list[tuple[float, int]]
) -> None:
    text = f"endpoints: [{{name: buy, percent: 10}}]\nnoise: {{{', '.join(noises)}}}\ndefects: [{', '.join(defects)}]"
    played = World(model(text, rate), 3, seed=5)
    ticks = list(played.history(6)) + [played.tick(np.full(3, weight), pods) for weight, pods in moves]
    for tick in ticks:
        assert tick.hurt.shape == (3,)
        assert (tick.hurt >= 0).all()
        for arm in (tick.candidate, *tick.stable):
            assert (arm.requests.shape, arm.failures.shape, arm.buckets.shape) == ((3,), (3,), (13, 3))
            assert (arm.failures >= 0).all()
            assert (arm.buckets >= 0).all()
            assert (arm.failures <= arm.requests).all()
            assert (arm.requests - arm.buckets.sum(axis=0) <= arm.failures).all()
            assert (arm.buckets.sum(axis=0) <= arm.requests).all()
