"""The fault gate's judgement: what equal arms may cost, what it finds, and how an experiment ends."""

import json
from math import log
from typing import Any

import numpy as np
import pytest

from serinus.analysis.evalues import log_e
from serinus.analysis.faultgate import judge_gate
from serinus.analysis.gatemodel import (
    CALLS,
    ERRORS,
    SLOW,
    STAKES,
    Ending,
    GateJudgement,
    GateSample,
    GateSettings,
    GateStage,
)
from serinus.analysis.gatetests import Block, GateTests, alternatives
from serinus.analysis.latency import slow_edges
from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Verdict
from serinus.analysis.settings import Margin
from serinus.analysis.words import TIMES

SETTINGS = GateSettings()


def counts(requests: int, failures: int) -> Counts:
    return Counts(requests, failures, (requests,) + (0,) * 12)


class Arrivals:
    """Requests of both arms, and those of them that something happens to, as they add up every two seconds."""

    def __init__(self, shares: tuple[float, float], rate: float, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shares, self.rate = shares, rate
        self.sums = [[0, 0], [0, 0]]

    def go_on(self) -> list[int]:
        """Let two seconds pass; return how many requests each arm got."""
        new = []
        for arm, share in zip(self.sums, self.shares, strict=True):
            new.append(int(self.random.poisson(self.rate * 2)))
            arm[0] += new[-1]
            arm[1] += int(self.random.binomial(new[-1], share))
        return new


def play(
    shares: tuple[float, float],
    *,
    rate: float = 5.0,
    settings: GateSettings = SETTINGS,
    stage: GateStage = GateStage.FAULT,
    calls: tuple[float, float] = (1.0, 1.0),
    clean: Evidence | None = None,
    before: Evidence | None = None,
    seed: int = 1,
    most_s: float = 400.0,
) -> tuple[GateJudgement, float]:
    """Return the judgement with which an experiment ends, and after how many seconds."""
    arrivals = Arrivals(shares, rate, seed)
    called, state, at_s = [0, 0], dict[str, Any](), 0.0
    while True:
        at_s += 2
        for arm, requests in enumerate(arrivals.go_on()):
            called[arm] += int(arrivals.random.poisson(requests * calls[arm]))
        sample = GateSample(
            stage,
            Evidence(*(counts(*arm) for arm in arrivals.sums)),
            clean or Evidence(),
            before or Evidence(),
            (called[0], called[1]),
            at_s,
        )
        judgement = judge_gate(settings, sample, state)
        state = json.loads(json.dumps(judgement.state))
        if judgement.verdict is not Verdict.UNDECIDED or judgement.ending is not Ending.NONE or at_s >= most_s:
            return judgement, at_s


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05, 0.3, 0.9])
def test_equal_arms_are_failed_in_no_more_than_alpha_of_all_experiments(share: float) -> None:
    rng = np.random.default_rng(7)
    runs = 1500
    tests, failed = GateTests.start(SETTINGS, runs), np.zeros(runs, bool)
    for _ in range(60):
        n_c, n_b = (rng.poisson(10, runs).astype(float) for _ in range(2))
        bad_c, bad_b = (rng.binomial(n.astype(int), share).astype(float) for n in (n_c, n_b))
        calls_c, calls_b = (rng.poisson(n).astype(float) for n in (n_c, n_b))
        none, no_edges = np.zeros(runs), np.zeros((0, runs))
        tests.take(Block(bad_c, n_c, bad_b, n_b, no_edges, none, no_edges, none, calls_c, calls_b))
        for name in (ERRORS, CALLS):
            failed |= tests.harm(name) >= SETTINGS.threshold(name)
    assert failed.mean() <= SETTINGS.alpha + 3 * (SETTINGS.alpha / runs) ** 0.5


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.9])
def test_arms_that_are_read_late_are_failed_in_no_more_than_alpha_either(share: float) -> None:
    rng = np.random.default_rng(9)
    runs = 1500
    tests, failed = GateTests.start(SETTINGS, runs), np.zeros(runs, bool)
    for _ in range(30):
        n = [rng.poisson(40, runs).astype(float) for _ in range(2)]
        bad = [rng.binomial(each.astype(int), share).astype(float) for each in n]
        none, no_edges = np.zeros(runs), np.zeros((0, runs))
        tests.take(Block(bad[0], n[0], bad[1], n[1], no_edges, none, no_edges, none, n[0], n[1], span_s=8.0))
        failed |= tests.harm(ERRORS) >= SETTINGS.threshold(ERRORS)
    assert failed.mean() <= SETTINGS.alpha + 3 * (SETTINGS.alpha / runs) ** 0.5


def one_read(failed: int, requests: int, at_s: float) -> GateJudgement:
    """Return the judgement on all that happened until the first read of an experiment, stable without a failure."""
    arms = Evidence(counts(requests, failed), counts(requests, 0))
    return judge_gate(SETTINGS, GateSample(GateStage.FAULT, arms, at_s=at_s), {})


def test_one_read_decides_only_when_its_failures_took_as_long_as_three() -> None:
    assert one_read(failed=212, requests=244, at_s=9.7).verdict is Verdict.HARM
    for what, judgement in (
        ("a read in time", one_read(failed=199, requests=200, at_s=2.0)),
        ("one late, of which a fifth failed: a hiccup of two seconds", one_read(failed=49, requests=244, at_s=9.7)),
        ("one late, with few requests, which may have come at once", one_read(failed=9, requests=10, at_s=9.7)),
    ):
        assert judgement.verdict is Verdict.UNDECIDED, what


@pytest.mark.parametrize("stable", [0.002, 0.05, 0.3])
@pytest.mark.parametrize("worse", [True, False])
def test_at_the_line_the_mean_of_a_block_is_at_most_one(stable: float, worse: bool) -> None:
    margin = SETTINGS.harm if worse else SETTINGS.safe
    rng = np.random.default_rng(3)
    n_c, n_b = np.full(40_000, 12.0), np.full(40_000, 9.0)
    bad_c = rng.binomial(12, margin.rho * stable + margin.delta, 40_000).astype(float)
    bad_b = rng.binomial(9, stable, 40_000).astype(float)
    for q_c, q_b in list(zip(*alternatives(margin, worse=worse), strict=True))[::5]:
        one = np.ones(1)
        values = np.exp(log_e(bad_c, n_c, bad_b, n_b, q_c * one, q_b * one, margin.rho * one, margin.delta * one))
        assert values.mean() <= 1 + 4 * values.std() / 200


def test_a_candidate_that_lost_its_fallback_is_found_soon_and_the_sentence_has_both_numbers() -> None:
    judgement, at_s = play((0.5, 0.005))
    assert judgement.verdict is Verdict.HARM
    assert at_s <= 20
    assert "to the candidate failed" in judgement.message
    assert f"to stable; the limit is stable's failures {TIMES} 1.2 + 1 points" in judgement.message
    assert judgement.spent < 60


def test_a_candidate_that_hangs_until_callers_give_up_is_found_like_one_that_fails() -> None:
    def sample(second: float, gone: int, requests: int) -> GateSample:
        arms = Evidence(Counts(requests, abandoned=gone), counts(requests, 0))
        return GateSample(stage=GateStage.FAULT, arms=arms, at_s=second)

    state: dict[str, Any] = {}
    for look in range(1, 11):
        judgement = judge_gate(SETTINGS, sample(2.0 * look, 10 * look, 10 * look), state)
        state = judgement.state
        if judgement.verdict is Verdict.HARM:
            break
    assert judgement.verdict is Verdict.HARM
    assert judgement.spent == 10 * look


def test_one_that_copes_passes_and_not_before_the_least_time() -> None:
    judgement, at_s = play((0.002, 0.002))
    assert judgement.verdict is Verdict.SAFE
    assert at_s >= SETTINGS.least_s


def test_a_service_that_is_fragile_in_both_versions_is_not_failed() -> None:
    seen = [play((0.3, 0.3), seed=seed)[0] for seed in range(12)]
    assert all(each.verdict is not Verdict.HARM for each in seen)
    assert {each.ending for each in seen} <= {Ending.NONE, Ending.BUDGET}


def test_the_budget_ends_it_without_a_verdict() -> None:
    judgement, _ = play((0.4, 0.35), settings=GateSettings(budget=30))
    assert (judgement.verdict, judgement.ending) == (Verdict.UNDECIDED, Ending.BUDGET)
    assert "30 were risked" in judgement.message


def test_time_and_missing_traffic_end_it_without_a_verdict() -> None:
    judgement, at_s = play((0.02, 0.002), rate=0.7, settings=GateSettings(longest_s=60))
    assert (judgement.ending, at_s) == (Ending.TIME, 60)
    judgement, at_s = play((0.0, 0.0), rate=0.0)
    assert (judgement.ending, at_s) == (Ending.NO_TRAFFIC, SETTINGS.silent_s)
    assert judgement.verdict is Verdict.UNDECIDED


def test_a_storm_of_retries_is_found_though_every_answer_is_good() -> None:
    judgement, _ = play((0.0, 0.0), calls=(3.0, 1.0))
    assert judgement.verdict is Verdict.HARM
    assert "calls for each request" in judgement.message


def test_one_that_does_not_recover_is_found_and_one_that_does_passes() -> None:
    judgement, _ = play((0.5, 0.0), stage=GateStage.RECOVERY)
    assert judgement.verdict is Verdict.HARM
    assert "after the fault" in judgement.message
    judgement, at_s = play((0.0, 0.0), stage=GateStage.RECOVERY)
    assert (judgement.verdict, at_s) == (Verdict.SAFE, SETTINGS.recovery_s)


def test_what_is_as_much_worse_without_the_fault_is_not_blamed_on_it() -> None:
    clean = Evidence(counts(5000, 1000), counts(5000, 10))
    judgement, _ = play((0.2, 0.002), clean=clean, settings=GateSettings(longest_s=60))
    assert judgement.verdict is Verdict.UNDECIDED
    assert judgement.ending is Ending.NOT_BY_FAULT
    assert "without the fault" in judgement.message


def test_other_requests_that_begin_to_fail_end_it_at_once_without_blame() -> None:
    before, clean = Evidence(counts(900, 1), counts(900, 1)), Evidence(counts(300, 1), counts(300, 60))
    judgement, at_s = play((0.0, 0.0), clean=clean, before=before)
    assert (judgement.ending, at_s) == (Ending.SPILL_OVER, 2)
    assert "before it" in judgement.message


def test_a_restart_in_the_middle_changes_nothing() -> None:
    sample = GateSample(GateStage.FAULT, Evidence(counts(40, 5), counts(40, 1)), calls=(40, 41), at_s=4)
    later = GateSample(GateStage.FAULT, Evidence(counts(90, 9), counts(88, 2)), calls=(90, 88), at_s=8)
    state = judge_gate(SETTINGS, sample, {}).state
    assert judge_gate(SETTINGS, later, state) == judge_gate(SETTINGS, later, json.loads(json.dumps(state)))
    assert judge_gate(SETTINGS, sample, state).state == state, "the same counts are taken in once"


def test_alternatives_lie_beyond_their_line() -> None:
    for margin in (Margin(1.2, 0.01), Margin(1.0, 0.0), Margin(2.0, 0.3)):
        q_c, q_b = alternatives(margin, worse=True)
        assert (q_c > margin.rho * q_b + margin.delta).all()
        assert (q_c < 1).all()
    q_c, q_b = alternatives(SETTINGS.safe, worse=False)
    assert (q_c < SETTINGS.safe.rho * q_b + SETTINGS.safe.delta).all()
    assert SETTINGS.threshold(ERRORS) > -log(SETTINGS.alpha)


# Slow answers

FAST, SECOND = 4, 9
"""Buckets of answers that take up to 25 ms, and up to one second."""


def timed(requests: int, slow: int, bucket: int = SECOND) -> Counts:
    buckets = [0] * 13
    buckets[FAST] = requests - slow
    buckets[bucket] += slow
    return Counts(requests, 0, tuple(buckets))


def play_slow(
    shares: tuple[float, float], *, rate: float = 10.0, seed: int = 1, buckets: tuple[int, int] = (SECOND, SECOND)
) -> GateJudgement:
    """Return the judgement on versions that fail nothing, of whose answers so many are slow under the fault."""
    settings = GateSettings(slow_edges=slow_edges(timed(1000, 5), 25.0))
    arrivals, state, at_s = Arrivals(shares, rate, seed), dict[str, Any](), 0.0
    while True:
        at_s += 2
        arrivals.go_on()
        arms = Evidence(*(timed(*each, bucket) for each, bucket in zip(arrivals.sums, buckets, strict=True)))
        judgement = judge_gate(settings, GateSample(GateStage.FAULT, arms, at_s=at_s), state)
        state = json.loads(json.dumps(judgement.state))
        if judgement.verdict is not Verdict.UNDECIDED or judgement.ending is not Ending.NONE:
            return judgement


def test_what_is_slow_follows_from_what_stable_does_without_the_fault() -> None:
    def edges_ms(counted: Counts, floor_ms: float = 25.0) -> list[float]:
        return [LATENCY_EDGES_MS[edge] for edge in slow_edges(counted, floor_ms)]

    assert edges_ms(timed(1000, 5)) == [25.0, 100.0, 500.0, 2500.0]
    assert edges_ms(timed(1000, 50)) == [1000.0, 5000.0]
    assert edges_ms(timed(1000, 50, bucket=12)) == []
    assert edges_ms(timed(1000, 0), 100.0) == [100.0, 500.0, 2500.0]
    assert edges_ms(timed(50, 50)) == [500.0, 2500.0]


def test_a_candidate_that_waits_for_the_dependency_is_found_by_its_slow_answers() -> None:
    judgement = play_slow((0.5, 0.0))
    assert judgement.verdict is Verdict.HARM
    assert "of the candidate's answers took longer than" in judgement.message
    assert "stable's share of slow answers" in judgement.message


def test_one_that_waits_longer_than_stable_does_is_found_at_the_edge_between() -> None:
    judgement = play_slow((0.9, 0.9), buckets=(12, SECOND))
    assert judgement.verdict is Verdict.HARM
    assert "took longer than 2.5 s, 0 % of stable's" in judgement.message


def test_versions_that_are_slowed_alike_pass() -> None:
    seen = [play_slow((0.3, 0.3), seed=seed) for seed in range(8)]
    assert [each.verdict for each in seen].count(Verdict.SAFE) >= 6
    assert Verdict.HARM not in [each.verdict for each in seen]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.95])
def test_equal_arms_are_slow_by_chance_in_no_more_than_their_part_of_alpha(share: float) -> None:
    rng = np.random.default_rng(11)
    runs, settings = 800, GateSettings(slow_edges=(4, 6, 8, 10))
    tests, failed, zero = GateTests.start(settings, runs), np.zeros(runs, bool), np.zeros(runs)
    for _ in range(60):
        n_c, n_b = (rng.poisson(10, runs).astype(float) for _ in range(2))
        slow_c, slow_b = (
            np.array([rng.binomial(n.astype(int), share * part) for part in (1.0, 0.8, 0.3, 0.0)], float)
            for n in (n_c, n_b)
        )
        tests.take(Block(zero, n_c, zero, n_b, slow_c, n_c, slow_b, n_b, n_c, n_b))
        failed |= tests.harm(SLOW) >= settings.threshold(SLOW)
    assert failed.sum() <= settings.alpha * STAKES[SLOW] * runs + 3


def test_what_fails_anyway_is_not_charged_to_the_budget() -> None:
    arms, before = Evidence(counts(1000, 60), counts(1000, 50)), Evidence(counts(400, 20), counts(4000, 200))
    assert GateSample(GateStage.FAULT, arms).spent == 110
    assert GateSample(GateStage.FAULT, arms, before=before).spent == 10
    assert GateSample(GateStage.FAULT, Evidence(counts(1000, 10), counts(1000, 0)), before=before).spent == 0
