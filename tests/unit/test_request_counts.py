"""Requests counted by Prometheus: which differences are evidence, and which answers are none."""

from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.analysis.checks import check_queries
from serinus.analysis.model import Counts, Outcome, Reading, Series
from serinus.api import check_canary
from serinus.api.analysis import RequestQueries
from serinus.api.canary import CanarySpec
from serinus.controller.request_counts import RequestCounts, combined
from serinus.delivery.model import Totals

QUERIES = RequestQueries(
    total='http_requests_total{pod=~"web-{{ revision }}-.*"}',
    failed='http_requests_total{pod=~"web-{{ revision }}-.*", code=~"5.."}',
)
TIMED = QUERIES.model_copy(update={"durations": 'http_request_duration_seconds_bucket{pod=~"web-{{ revision }}-.*"}'})


def series(version: str, part: str, value: float, pod: str = "a", **labels: str) -> Series:
    return Series({"serinus_part": f"{version}/{part}", "pod": f"{version}-{pod}", **labels}, value)


class Book:
    """A run's counts, and the answers that they are told."""

    def __init__(self, queries: RequestQueries = QUERIES) -> None:
        self.counts = RequestCounts(queries, 0.0)
        self.sequence = 0

    def take(self, *found: Series, outcome: Outcome = Outcome.VALUE, now_s: float = 0.0) -> Totals:
        self.sequence += 1
        self.counts.take(Reading("requests", outcome, sequence=self.sequence, series=found), now_s)
        return self.counts.totals(now_s)


def test_one_query_asks_for_all_of_both_versions_and_a_label_tells_the_parts_apart() -> None:
    query = combined(TIMED, {"revision": "new", "stableRevision": "old"})
    assert query.count("label_replace(") == 6
    for version, revision in (("candidate", "new"), ("stable", "old")):
        for part in ("total", "failed", "durations"):
            asked = query.split(f'"{version}/{part}"')[0].rpartition("label_replace(")[2]
            assert f"web-{revision}-.*" in asked, (version, part)
    assert combined(QUERIES, {"revision": "new", "stableRevision": "old"}).count("label_replace(") == 4


def test_what_the_first_answer_shows_is_history_and_what_comes_after_it_is_evidence() -> None:
    book = Book()
    totals = book.take(series("stable", "total", 1000), series("stable", "failed", 10), series("candidate", "total", 7))
    assert totals.evidence.stable == totals.evidence.candidate == Counts()
    assert (totals.before.requests, totals.before.failures) == (1000, 10)
    totals = book.take(
        series("stable", "total", 1100), series("stable", "failed", 12), series("candidate", "total", 17)
    )
    assert (totals.evidence.stable.requests, totals.evidence.stable.failures) == (100, 2)
    assert (totals.evidence.candidate.requests, totals.evidence.candidate.failures) == (10, 0)


def test_the_first_failures_of_a_new_series_count() -> None:
    book = Book()
    book.take(series("stable", "total", 1000, code="200"))
    totals = book.take(
        series("stable", "total", 1000, code="200"),
        series("stable", "total", 3, code="500"),
        series("stable", "failed", 3, code="500"),
        series("candidate", "total", 5, code="500"),
        series("candidate", "failed", 5, code="500"),
    )
    assert (totals.evidence.stable.requests, totals.evidence.stable.failures) == (3, 3)
    assert (totals.evidence.candidate.requests, totals.evidence.candidate.failures) == (5, 5)


def test_a_stable_pod_that_is_discovered_late_counts_from_where_it_is_first_seen() -> None:
    book = Book()
    book.take(series("stable", "total", 10))
    assert book.take(series("stable", "total", 10), series("stable", "total", 9999, "b")).evidence.stable.requests == 0
    totals = book.take(series("stable", "total", 10), series("stable", "total", 10009, "b"))
    assert totals.evidence.stable.requests == 10


def test_a_counter_that_falls_began_again_and_a_pod_that_is_away_loses_nothing() -> None:
    book = Book()
    book.take(series("stable", "total", 100))
    assert book.take(series("stable", "total", 40)).evidence.stable.requests == 40
    assert book.take(series("candidate", "total", 1)).evidence.stable.requests == 40
    assert book.take(series("stable", "total", 50)).evidence.stable.requests == 50


def test_an_answer_that_was_taken_does_not_count_twice() -> None:
    book = Book()
    book.take(series("stable", "total", 100))
    book.take(series("candidate", "total", 5))
    book.sequence -= 1
    assert book.take(series("candidate", "total", 500)).evidence.candidate.requests == 5


def test_durations_go_into_the_sidecars_buckets() -> None:
    book = Book(TIMED)
    edges = ("0.005", "0.03", "0.1", "+Inf")
    none = [series("candidate", "durations", 0, le=edge) for edge in edges]
    book.take(series("candidate", "total", 0), *none)
    seen = [series("candidate", "durations", value, le=edge) for edge, value in zip(edges, (1, 4, 6, 10), strict=True)]
    found = book.take(series("candidate", "total", 10), *seen).evidence.candidate
    #                       1  2.5  5  10  25  50  100 250 500 1 s 2.5 5  more
    assert found.buckets == (0, 0, 1, 0, 0, 3, 2, 0, 0, 0, 0, 0, 4)


def test_the_two_halves_of_stables_pods_are_told_apart() -> None:
    book = Book()
    book.take(series("stable", "total", 0), series("stable", "total", 0, "b"))
    totals = book.take(
        series("stable", "total", 30), series("stable", "total", 70, "b"), series("stable", "failed", 7, "b")
    )
    assert sorted(totals.halves) == [(30, 0), (70, 7)]
    assert totals.stable_pods == 2


def test_what_cannot_be_counted_is_said_and_what_was_counted_stays() -> None:
    book = Book(TIMED)
    buckets = series("candidate", "durations", 0, le="+Inf")
    book.take(series("candidate", "total", 0), buckets)
    book.take(series("candidate", "total", 5), buckets, now_s=4.0)
    bad = {
        "without a label pod or instance": Series({"serinus_part": "candidate/total"}, 3.0),
        "without a label le": series("candidate", "durations", 3),
        'le="+Inf"': series("candidate", "durations", 3, le="0.1"),
        "durations gives nothing of the candidate version": series("candidate", "total", 3),
    }
    for words, found in bad.items():
        totals = book.take(found, now_s=9.0)
        assert totals.outcome == "QueryError"
        assert words in totals.trouble
        assert totals.evidence.candidate.requests == 5
        assert totals.age_s == 5.0
    totals = book.take(outcome=Outcome.UNREACHABLE)
    assert totals.outcome == "Unreachable"
    assert "check analysis.prometheus.address" in totals.trouble
    assert not book.take(series("candidate", "total", 8), buckets).trouble


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=20))
def test_whatever_pods_count_failures_are_no_more_than_requests_and_nothing_falls(
    story: list[tuple[str, int, int, bool]],
) -> None:
    book, values, before = Book(), {"a": [0, 0], "b": [0, 0]}, Counts()
    book.take(series("stable", "total", 1))
    sent = failed = 0
    for pod, good, bad, restarts in story:
        if restarts:
            values[pod] = [0, 0]
        values[pod][0] += good + bad
        values[pod][1] += bad
        sent, failed = sent + good + bad, failed + bad
        found = [series("candidate", "total", total, each) for each, (total, _) in values.items()]
        found += [series("candidate", "failed", wrong, each) for each, (_, wrong) in values.items() if wrong]
        now = book.take(*found).evidence.candidate
        assert now.failures <= now.requests <= sent
        assert now.requests >= before.requests
        assert now.failures >= before.failures
        before = now
    if not any(restarts for *_, restarts in story):
        assert (before.requests, before.failures) == (sent, failed)


def spec(**analysis: object) -> CanarySpec:
    return CanarySpec.model_validate({"targetRef": {"name": "web"}, "analysis": analysis})


def test_queries_that_cannot_be_right_are_told() -> None:
    address = {"address": "http://prometheus:9090"}
    good = QUERIES.model_dump(exclude_none=True)
    assert not check_canary(spec(prometheus=address, requests=good))
    assert not check_queries(spec(prometheus=address, requests=good))
    assert any("nothing answers" in each for each in check_canary(spec(requests=good)))
    slow = spec(prometheus=address, requests=good, latency={"max": "100ms"})
    assert any("nothing tells how long" in each for each in check_canary(slow))
    same = check_queries(spec(prometheus=address, requests=good | {"failed": "errors_total"}))
    assert same
    assert same[0].startswith("spec.analysis.requests.failed: the query gives the same number for both versions")
