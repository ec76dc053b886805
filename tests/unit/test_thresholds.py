"""What the judge says of which evidence, and with which words."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.analysis.latency import edge_at_least, percentile_ms
from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Finding, Outcome, Reading, Verdict
from serinus.analysis.thresholds import judge
from serinus.analysis.words import percent, plain
from serinus.api.canary import Analysis

HARM, SAFE, UNDECIDED = Verdict.HARM, Verdict.SAFE, Verdict.UNDECIDED


def spec(**fields: Any) -> Analysis:
    return Analysis.model_validate(fields)


def counts(requests: int, failures: int = 0, ms: dict[float, int] | None = None) -> Counts:
    """``ms`` gives the tries per bucket, by the bucket's upper edge (``inf`` for the last); the rest is at 10 ms."""
    buckets = [0] * (len(LATENCY_EDGES_MS) + 1)
    for edge, tries in (ms or {}).items():
        buckets[LATENCY_EDGES_MS.index(edge) if edge in LATENCY_EDGES_MS else -1] += tries
    buckets[LATENCY_EDGES_MS.index(10.0)] += requests - sum(buckets)
    return Counts(requests, failures, tuple(buckets))


def window(candidate: Counts, stable: Counts | None = None) -> Evidence:
    return Evidence(candidate, stable if stable is not None else counts(1000))


def of(metric: str, findings: tuple[Finding, ...]) -> Finding:
    return next(finding for finding in findings if finding.metric == metric)


@pytest.mark.parametrize(
    ("fields", "evidence", "verdict", "words"),
    [
        pytest.param(
            {},
            window(counts(0), counts(0)),
            UNDECIDED,
            "no request to the candidate yet; 50 are needed",
            id="no traffic is no evidence",
        ),
        pytest.param(
            {},
            window(counts(12)),
            UNDECIDED,
            "success rate 100 % of 12 requests; needed: 38 more requests to the candidate",
            id="too few requests say how many are missing",
        ),
        pytest.param(
            {},
            window(counts(50)),
            SAFE,
            "success rate 100 % of 50 requests (stable 100 %)",
            id="enough good requests are safe",
        ),
        pytest.param(
            {},
            window(counts(35, 10), counts(1000, 1)),
            HARM,
            "success rate 71.4 % of 35 requests; the limit is 98.9 % (stable 99.9 % \u2212 1)",
            id="a third that fails is harm, before there are enough requests to be safe",
        ),
        pytest.param({}, window(counts(10, 10)), HARM, "success rate 0 % of 10 requests", id="ten of ten that fail"),
        pytest.param(
            {}, window(counts(4, 4)), UNDECIDED, "needed: 46 more", id="four failures may be one broken connection"
        ),
        pytest.param(
            {},
            window(counts(60, 1)),
            UNDECIDED,
            "success rate 98.3 % of 60 requests is below the limit of 99 % (stable 100 % \u2212 1), by no more than"
            " chance may do; waiting for more",
            id="one failure of sixty may be chance",
        ),
        pytest.param(
            {},
            window(counts(2000, 180), counts(2000, 180)),
            SAFE,
            "success rate 91 % of 2,000 requests (stable 91 %)",
            id="a candidate that fails as often as stable does no harm",
        ),
        pytest.param(
            {"successRate": {"min": 99}},
            window(counts(2000, 180), counts(2000, 180)),
            HARM,
            "success rate 91 % of 2,000 requests; the limit is 99 %",
            id="a lowest success rate holds whatever stable does",
        ),
        pytest.param(
            {"successRate": {"min": 95}},
            window(counts(2000, 80), counts(2000)),
            HARM,
            "the limit is 99 % (stable 100 % \u2212 1)",
            id="the stricter limit is the one that is told",
        ),
        pytest.param(
            {},
            window(counts(500), counts(0)),
            UNDECIDED,
            "success rate 100 % of 500 requests; needed: 10 more requests to the stable version, to compare with",
            id="nothing to compare with and no lowest rate",
        ),
        pytest.param(
            {"successRate": {"min": 99}},
            window(counts(500, 1), counts(0)),
            SAFE,
            "success rate 99.8 % of 500 requests",
            id="nothing to compare with, so the lowest rate decides",
        ),
        pytest.param(
            {"successRate": {"maxDrop": 100}},
            window(counts(500, 200), counts(0)),
            SAFE,
            "success rate 60 % of 500 requests",
            id="a drop of 100 points means that nothing is compared",
        ),
        pytest.param(
            {"minRequests": 1000},
            window(counts(999)),
            UNDECIDED,
            "needed: 1 more request to the candidate",
            id="the number of requests is the user's",
        ),
        pytest.param(
            {"latency": {"max": "250ms"}},
            window(counts(200, ms={500: 40})),
            HARM,
            "99th percentile of latency 488 ms of 200 requests, 20 % took longer than 250 ms; the limit is 250 ms",
            id="slow beyond a fixed limit",
        ),
        pytest.param(
            {"latency": {"max": "300ms"}},
            window(counts(200, ms={500: 40})),
            SAFE,
            "success rate 100 % of 200 requests (stable 100 %); all 2 metrics are within their limits",
            id="a limit within a bucket is judged at the bucket's upper edge",
        ),
        pytest.param(
            {"latency": {"max": "300ms"}},
            window(counts(200, ms={5000: 40})),
            HARM,
            "20 % took longer than 500 ms; the limit is 300 ms, counted at 500 ms",
            id="a limit within a bucket says where it is counted",
        ),
        pytest.param(
            {"latency": {"maxIncrease": 50}},
            window(counts(400, ms={1000: 40}), counts(4000, ms={50: 4000})),
            HARM,
            "10 % took longer than 100 ms; the limit is 75 ms (stable's 50 ms + 50 %), counted at 100 ms",
            id="slower than the stable version",
        ),
        pytest.param(
            {"latency": {"maxIncrease": 50}},
            window(counts(400, ms={1000: 40}), counts(4000, ms={1000: 400})),
            SAFE,
            "all 2 metrics",
            id="as slow as the stable version",
        ),
        pytest.param(
            {"latency": {"maxIncrease": 50}, "successRate": {"min": 90}},
            window(counts(400), counts(0)),
            UNDECIDED,
            "too few requests to the stable version to compare with",
            id="no stable version to compare the latency with",
        ),
        pytest.param(
            {"latency": {"maxIncrease": 50}},
            window(counts(400), counts(4000, ms={float("inf"): 400})),
            UNDECIDED,
            "stable's own and 50 % is beyond the 5 s that are counted",
            id="a stable version that is slower than what is counted",
        ),
        pytest.param(
            {"latency": {"max": "250ms"}},
            window(counts(60, ms={500: 2})),
            UNDECIDED,
            "is above the limit of 250 ms, by no more than chance may do",
            id="two slow answers of sixty may be chance",
        ),
        pytest.param(
            {"latency": {"max": "1s", "percentile": 90}},
            window(counts(100, ms={float("inf"): 50})),
            HARM,
            "90th percentile of latency at least 5 s of 100 requests",
            id="slower than the last bucket",
        ),
        pytest.param(
            {"latency": {"max": "250ms"}},
            window(counts(100, 50, ms={500: 50})),
            HARM,
            "; 1 other metric is harmful too",
            id="two metrics that say harm",
        ),
    ],
)
def test_the_verdict_and_its_sentence(fields: dict[str, Any], evidence: Evidence, verdict: Verdict, words: str) -> None:
    judgement = judge(spec(**fields), evidence, (), {})
    assert judgement.verdict == verdict, judgement.message
    assert words in judgement.message


def test_latency_without_limits_is_shown_and_never_judged() -> None:
    judgement = judge(spec(), window(counts(100, ms={5000: 90})), (), {})
    assert judgement.verdict == SAFE
    latency = of("latency", judgement.findings)
    assert latency.candidate is not None
    assert latency.candidate > 2500
    assert "not judged" in latency.message


def test_a_finding_has_both_numbers_and_the_limit() -> None:
    finding = of("success-rate", judge(spec(), window(counts(200, 1), counts(1000, 1)), (), {}).findings)
    assert (finding.candidate, finding.stable) == (99.5, 99.9)
    assert finding.limit == "98.9 % (stable 99.9 % \u2212 1)"


@pytest.mark.parametrize(
    ("ms", "percentile", "expected"),
    [
        pytest.param({10: 100}, 50, 7.5, id="in the middle of one bucket"),
        pytest.param({10: 50, 100: 50}, 75, 75.0, id="in the middle of the second bucket"),
        pytest.param({1: 100}, 99, 0.99, id="in the first bucket, from 0"),
        pytest.param({float("inf"): 1, 1: 1}, 99, 5000.0, id="in the open bucket: at least its edge"),
        pytest.param({}, 99, None, id="nothing counted"),
    ],
)
def test_a_percentile_is_interpolated_in_its_bucket(ms: dict[float, int], percentile: float, expected: float) -> None:
    assert percentile_ms(counts(sum(ms.values()), ms=ms), percentile) == pytest.approx(expected)


def test_the_longest_latency_that_a_canary_may_limit_is_one_that_is_counted() -> None:
    assert edge_at_least(5000.0) == len(LATENCY_EDGES_MS) - 1
    assert edge_at_least(5000.1) is None


QUERY = {"name": "errors", "query": "x", "max": 5}


def judged(readings: list[tuple[int, Outcome, float | None]], **metric: Any) -> tuple[Finding, dict[str, object]]:
    """Judge after every reading, as the operator does, with the state through JSON, as the status does."""
    analysis = spec(metrics=[QUERY | metric], prometheus={"address": "http://prometheus:9090"})
    judgement = judge(analysis, window(counts(100)), (), {})
    for sequence, outcome, value in readings:
        reading = Reading("errors", outcome, value, "detail", sequence)
        state = json.loads(json.dumps(judgement.state))
        judgement = judge(analysis, window(counts(100)), (reading,), state)
    return of("errors", judgement.findings), judgement.state


@pytest.mark.parametrize(
    ("readings", "fields", "verdict", "words"),
    [
        pytest.param([], {}, UNDECIDED, "the first reading at this step is awaited", id="no reading yet"),
        pytest.param([(1, Outcome.VALUE, 4)], {}, SAFE, "errors: 4; the limit is at most 5", id="one good reading"),
        pytest.param(
            [(1, Outcome.VALUE, 6.5)],
            {},
            HARM,
            "errors: 6.5; the limit is at most 5 (1 reading beyond the limit)",
            id="one bad reading where one is too many",
        ),
        pytest.param(
            [(1, Outcome.VALUE, 6)],
            {"failureLimit": 2},
            UNDECIDED,
            "1 reading beyond it at this step, 2 would be harm",
            id="one bad reading where two are too many",
        ),
        pytest.param(
            [(1, Outcome.VALUE, 6), (1, Outcome.VALUE, 6), (1, Outcome.VALUE, 6)],
            {"failureLimit": 2},
            UNDECIDED,
            "2 would be harm",
            id="one bad reading that is passed again and again",
        ),
        pytest.param(
            [(1, Outcome.VALUE, 6), (2, Outcome.VALUE, 4), (3, Outcome.VALUE, 6)],
            {"failureLimit": 2},
            HARM,
            "2 readings beyond the limit",
            id="two bad readings with a good one between",
        ),
        pytest.param(
            [(1, Outcome.VALUE, 6), (2, Outcome.VALUE, 4)],
            {"failureLimit": 3},
            UNDECIDED,
            "1 reading beyond it",
            id="one good reading does not make up for a bad one",
        ),
        pytest.param(
            [(1, Outcome.VALUE, 6), (2, Outcome.VALUE, 4), (3, Outcome.VALUE, 4)],
            {"failureLimit": 3},
            SAFE,
            "errors: 4",
            id="two good readings make up for a bad one",
        ),
        pytest.param(
            [(7, Outcome.VALUE, 4), (1, Outcome.VALUE, 6)],
            {},
            HARM,
            "errors: 6",
            id="a reader that begins again is read again",
        ),
        pytest.param(
            [(1, Outcome.VALUE, float("nan"))], {"failureLimit": 1}, UNDECIDED, "errors", id="a value that is no number"
        ),
        pytest.param([(1, Outcome.EMPTY, None)], {}, UNDECIDED, "Empty: the query gave nothing", id="empty"),
        pytest.param([(1, Outcome.NAN, None)], {}, UNDECIDED, "NaN: the query gave no number", id="not a number"),
        pytest.param([(1, Outcome.MANY_SERIES, None)], {}, UNDECIDED, "put sum()", id="several series"),
        pytest.param([(1, Outcome.QUERY_ERROR, None)], {}, UNDECIDED, "refused the query", id="refused"),
        pytest.param([(1, Outcome.TIMEOUT, None)], {}, UNDECIDED, "did not answer in time", id="too slow"),
        pytest.param([(1, Outcome.UNREACHABLE, None)], {}, UNDECIDED, "cannot be reached", id="unreachable"),
        pytest.param(
            [(1, Outcome.VALUE, 6), (2, Outcome.UNREACHABLE, None)],
            {"failureLimit": 1},
            HARM,
            "the limit is at most 5",
            id="harm is not forgotten when the source goes away",
        ),
        pytest.param([(1, Outcome.VALUE, 0.5)], {"min": 1}, HARM, "the limit is 1 to 5", id="below the lowest value"),
    ],
)
def test_what_the_answers_to_a_query_say(
    readings: list[tuple[int, Outcome, float | None]], fields: dict[str, Any], verdict: Verdict, words: str
) -> None:
    finding, _ = judged(readings, **fields)
    assert finding.verdict == verdict, finding.message
    assert words in finding.message


def test_a_reading_of_the_time_before_this_step_does_not_count() -> None:
    analysis = spec(metrics=[QUERY], prometheus={"address": "http://prometheus:9090"})
    old = (Reading("errors", Outcome.VALUE, 99.0, sequence=4),)
    first = judge(analysis, window(counts(100)), old, {})
    assert first.verdict == UNDECIDED
    again = judge(analysis, window(counts(100)), old, first.state)
    assert again.verdict == UNDECIDED


def test_several_new_readings_count_one_by_one() -> None:
    analysis = spec(metrics=[QUERY | {"failureLimit": 2}], prometheus={"address": "http://prometheus:9090"})
    state = judge(analysis, window(counts(100)), (), {}).state
    both = tuple(Reading("errors", Outcome.VALUE, 9.0, sequence=sequence) for sequence in (1, 2))
    assert judge(analysis, window(counts(100)), both, state).verdict == HARM


@given(
    st.integers(0, 5000),
    st.floats(0, 1),
    st.integers(0, 5000),
    st.floats(0, 1),
    st.sampled_from([{}, {"min": 99}, {"min": 100, "maxDrop": 0}]),
)
def test_a_candidate_that_is_no_worse_than_any_limit_is_never_harm_and_one_beyond_a_limit_never_safe(
    requests: int, share: float, stable_requests: int, stable_share: float, limits: dict[str, float]
) -> None:
    candidate = counts(requests, int(requests * share))
    stable = counts(stable_requests, int(stable_requests * stable_share))
    analysis = spec(successRate=limits)
    verdict = judge(analysis, Evidence(candidate, stable), (), {}).verdict
    if not requests:
        assert verdict == UNDECIDED
        return
    rate = 100 - 100 * candidate.failures / requests
    compared = 100 - 100 * stable.failures / stable_requests - limits.get("maxDrop", 1) if stable_requests else 0.0
    within = rate >= max(limits.get("min", 0), compared)
    assert verdict != (HARM if within else SAFE)


def test_two_equal_versions_are_hardly_ever_called_harmful_however_often_they_are_looked_at() -> None:
    chance = random.Random(3)
    analysis = spec(successRate={"min": 98}, latency={"max": "500ms", "maxIncrease": 20})
    false, runs = 0, 120
    for _ in range(runs):
        candidate, stable = counts(0), counts(0)
        for _ in range(30):
            slow, bad = (sum(chance.random() < share for _ in range(20)) for share in (0.009, 0.01))
            candidate += counts(20, bad, ms={1000: slow})
            slow, bad = (sum(chance.random() < share for _ in range(60)) for share in (0.009, 0.01))
            stable += counts(60, bad, ms={1000: slow})
            if judge(analysis, Evidence(candidate, stable), (), {}).verdict == HARM:
                false += 1
                break
    assert false <= 1  # 0.24 are to be expected at most


@pytest.mark.parametrize(
    ("value", "text"),
    [(100, "100 %"), (0, "0 %"), (99.97, "99.97 %"), (0.004, "0.004 %"), (71.42857, "71.4 %"), (98.0, "98 %")],
)
def test_a_percentage_is_not_rounded_to_all_or_nothing(value: float, text: str) -> None:
    assert percent(value) == text


def test_a_users_number_may_be_infinite() -> None:
    assert plain(float("inf")) == "inf"
