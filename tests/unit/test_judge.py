"""The judge, from spec and counts to a judgement, at the edges of what a spec may say."""

import json

import numpy as np
import pytest

from serinus.analysis.judge import judge
from serinus.analysis.model import Counts, Evidence, Sample, Verdict
from serinus.analysis.words import TIMES
from serinus.api import parse_live
from serinus.api.canary import CanarySpec


def counts(rng, requests, share):
    buckets = rng.multinomial(requests, [0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.005, 0.005])
    return Counts(requests, int(rng.binomial(requests, share)), tuple(int(number) for number in buckets))


def given_up(rng, counted, share):
    """Return counts of which callers gave up a share, before the answer came."""
    buckets = tuple(int(rng.binomial(tries, 1 - share)) for tries in counted.buckets)
    failures = int(rng.binomial(counted.failures, 1 - share))
    return Counts(counted.requests, failures, buckets, counted.requests - sum(buckets))


def played(analysis, bad, stable_bad, looks=30, weight=50, gone=(0.0, 0.0)):
    """Return the last judgement on a candidate and a stable version with these shares of failed requests.

    ``gone`` are the shares of the candidate's and of stable's requests that callers gave up.
    """
    raw = {"targetRef": {"name": "web"}, "strategy": {"steps": [{"weight": weight}]}}
    spec = parse_live(CanarySpec, raw | {"analysis": {"warmUp": "0s", **analysis}})
    rng, total, state, verdicts = np.random.default_rng(3), Evidence(), {}, []
    before = counts(rng, 10_000, stable_bad)
    for look in range(1, looks + 1):
        total = Evidence(
            total.candidate + given_up(rng, counts(rng, 100, bad), gone[0]),
            total.stable + given_up(rng, counts(rng, 100 if weight < 100 else 0, stable_bad), gone[1]),
        )
        sample = Sample(total, total, before=before, candidates=2, stables=2, weight_pct=weight)
        now = {"at_weight_s": 2.0 * look, "now_s": 2.0 * look + 2}
        judgement = judge(spec, Sample(**{name: getattr(sample, name) for name in sample.__slots__} | now), state)
        state = json.loads(json.dumps(judgement.state, allow_nan=False))
        verdicts.append(judgement.verdict)
        if judgement.verdict is Verdict.HARM:
            break
    return judgement


NO_LATENCY = {"latency": {"compare": False}}


@pytest.mark.parametrize("weight", [1, 50, 100])
@pytest.mark.parametrize("bad", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize(
    "limits",
    [
        {"successRate": {"min": 0, "maxDrop": 100}},
        {"successRate": {"min": 0}},
        {"successRate": {"min": 100}},
        {"successRate": {"min": 0.001}},
        {"successRate": {"maxDrop": 0}},
        {"successRate": {"maxDrop": 99.9}},
        {"successRate": {"promise": {"ratio": 100, "points": 100}}},
        {"latency": {"max": "1ms", "percentile": 0.001}},
        {"latency": {"max": "5s", "percentile": 99.999, "maxIncrease": 10000}},
        {"latency": {"floor": "5s"}},
        {"latency": {"floor": "1h"}},
        {"profile": "Fast"},
        {"profile": "Strict"},
    ],
    ids=str,
)
def test_whatever_the_limits_the_numbers_stay_numbers(limits, bad, weight):
    judgement = played(limits, bad, 0.001, looks=8, weight=weight)
    assert judgement.message
    assert json.dumps(judgement.state, allow_nan=False)


def test_where_nothing_is_limited_even_a_candidate_that_always_fails_is_not_harmful():
    assert played({"successRate": {"min": 0, "maxDrop": 100}, **NO_LATENCY}, 1.0, 0.0).verdict is Verdict.SAFE


@pytest.mark.parametrize(
    ("limits", "bad", "verdict"),
    [
        ({"successRate": {"maxDrop": 1}}, 0.001, Verdict.SAFE),
        ({"successRate": {"maxDrop": 1}}, 0.1, Verdict.HARM),
        ({"successRate": {"min": 95, "maxDrop": 100}}, 0.001, Verdict.SAFE),
        ({"successRate": {"min": 95, "maxDrop": 100}}, 0.2, Verdict.HARM),
        ({"successRate": {"min": 100}}, 0.3, Verdict.HARM),
        ({}, 0.05, Verdict.HARM),
    ],
)
def test_limits_mean_what_they_say(limits, bad, verdict):
    assert played({**limits, **NO_LATENCY}, bad, 0.001).verdict is verdict


@pytest.mark.parametrize("limits", [{}, NO_LATENCY, {"successRate": {"maxDrop": 100}}], ids=str)
@pytest.mark.parametrize("gone", [(1.0, 0.0), (0.5, 0.2)], ids=str)
def test_a_candidate_that_callers_give_up_more_often_is_harmful(limits, gone):
    judgement = played(limits, 0.001, 0.001, gone=gone)
    assert judgement.verdict is Verdict.HARM
    assert judgement.message.startswith("callers gave up ")
    (found,) = [finding for finding in judgement.findings if finding.metric == "abandoned"]
    assert found.limit == f"stable's share {TIMES} 1.1 + 0.1 points"


def test_where_callers_give_both_versions_up_alike_a_good_one_passes_and_one_that_fails_is_found():
    impatient = {"successRate": {"maxDrop": 1}, **NO_LATENCY}
    assert played(impatient, 0.001, 0.001, gone=(0.3, 0.3)).verdict is Verdict.SAFE
    judgement = played(impatient, 0.1, 0.001, gone=(0.3, 0.3))
    assert judgement.verdict is Verdict.HARM
    assert "success rate" in judgement.message


def test_where_nothing_is_compared_nothing_is_judged_by_what_callers_give_up():
    assert played({"successRate": {"maxDrop": 100}, **NO_LATENCY}, 0.0, 0.0, gone=(1.0, 0.0)).verdict is Verdict.SAFE


def test_a_look_between_two_scrapes_takes_nothing_in_and_the_next_scrape_is_taken_whole():
    spec = parse_live(CanarySpec, {"targetRef": {"name": "web"}, "analysis": {"warmUp": "0s"}})
    rng = np.random.default_rng(3)
    before = counts(rng, 10_000, 0.001)
    one = Evidence(counts(rng, 100, 0.001), counts(rng, 900, 0.001))
    two = Evidence(one.candidate + counts(rng, 100, 0.5), one.stable + counts(rng, 900, 0.001))

    def ending(*looks):
        state = {}
        for now_s, total, age_s in looks:
            sample = Sample(total, total, before=before, weight_pct=10, now_s=now_s, age_s=age_s)
            state = judge(spec, sample, state).state
        return state["tests"]

    direct = ending((2.0, one, 0.0), (4.0, two, 0.0))
    assert ending((2.0, one, 0.0), (3.5, one, 1.5), (4.25, two, 0.25)) == direct
    assert direct["watched"]["now_s"] == 4.0


STEPS = {"targetRef": {"name": "web"}, "strategy": {"steps": [{"weight": 30}]}}
OF_FAILURES = {"warmUp": "0s", "successRate": {"maxDrop": 1}, "latency": {"compare": False}}


@pytest.mark.parametrize("history", [Counts(400, 200), Counts(5_000, 800), Counts(50_000, 8_000)], ids=str)
@pytest.mark.parametrize(("bad", "verdict"), [(0.0, Verdict.SAFE), (0.05, Verdict.HARM)])
def test_an_incident_of_the_stable_version_before_the_run_keeps_nothing_back_for_long(history, bad, verdict):
    spec, rng = parse_live(CanarySpec, STEPS | {"analysis": OF_FAILURES}), np.random.default_rng(1)
    total, state, found = Evidence(), {}, Verdict.UNDECIDED
    for look in range(1, 36):
        failed = int(rng.binomial(60, bad))
        total = Evidence(total.candidate + Counts(60, failed), total.stable + Counts(140, 0))
        at = {"at_weight_s": 2.0 * look, "now_s": 2.0 * look + 6}
        judgement = judge(spec, Sample(total, total, before=history, weight_pct=30, **at), state)
        state, found = judgement.state, judgement.verdict
        if found is not Verdict.UNDECIDED:
            break
    assert found is verdict
