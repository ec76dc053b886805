"""Which queries a metric is asked by: their names, their places in the spec, what is refused beforehand."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from serinus.analysis.checks import check_queries
from serinus.analysis.model import Evidence, Outcome, Reading
from serinus.analysis.questions import questions
from serinus.api import check_canary, parse_live, problems
from serinus.api.analysis import UserMetric
from serinus.api.canary import CanarySpec
from serinus.controller.evidences import Collector
from serinus.controller.promql import Query
from serinus.delivery.model import Snapshot, Totals

from .world import V2, a_set, a_spec, analysing, twin

COUNTS = {"bad": 'failed{p="{{ revision }}"}', "total": 'all{p="{{ revision }}"}'}
GAUGE = {"query": 'memory{p="{{ revision }}"}'}


def raw(*metrics: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": f"m{index}"} | metric for index, metric in enumerate(metrics)]
    return {"targetRef": {"name": "web"}, "analysis": {"prometheus": {"address": "http://p"}, "metrics": named}}


def names(metric: dict[str, Any]) -> list[str]:
    return [each.name for each in questions(UserMetric.model_validate({"name": "m"} | metric))]


def test_a_metric_that_is_compared_is_asked_once_for_each_version_and_the_total_first() -> None:
    assert names({"query": "x", "max": 1}) == ["m"]
    assert names({"gauge": GAUGE}) == ["m/candidate", "m/stable"]
    assert names({"counts": COUNTS}) == ["m/candidate/total", "m/candidate/bad", "m/stable/total", "m/stable/bad"]
    good = {"good": "x{{ revision }}", "total": "y{{ revision }}"}
    assert names({"counts": good}) == ["m/candidate/total", "m/candidate/good", "m/stable/total", "m/stable/good"]


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        pytest.param(
            {"counts": COUNTS | {"bad": "sum(x{{ revision }}"}},
            "spec.analysis.metrics[1].counts.bad: the query's ( at line 1, column 4 is not closed",
            id="bad ones that are no query",
        ),
        pytest.param(
            {"counts": COUNTS | {"total": "x{{ revision }}}"}},
            "spec.analysis.metrics[1].counts.total: the query has a } at",
            id="a total that is no query",
        ),
        pytest.param(
            {"counts": {"good": "x{{ ns }}{{ revision }}", "total": COUNTS["total"]}},
            "spec.analysis.metrics[1].counts.good: the query asks for {{ ns }}, which is not known",
            id="good ones of a name that is not filled in",
        ),
        pytest.param(
            {"gauge": {"query": "'{{ revision }}"}},
            "spec.analysis.metrics[1].gauge.query: the query's string that begins at",
            id="a gauge that is no query",
        ),
        pytest.param(
            {"gauge": {"query": "memory{{ stableRevision }}"}},
            "spec.analysis.metrics[1].gauge.query: the query gives the same number for both versions",
            id="a gauge that does not tell versions apart",
        ),
        pytest.param(
            {"counts": COUNTS | {"total": "sum(all)"}},
            "spec.analysis.metrics[1].counts.total: the query gives the same number for both versions",
            id="a total that does not tell versions apart",
        ),
        pytest.param(
            {"query": " ", "max": 1}, "spec.analysis.metrics[1].query: the query is empty", id="a query without a word"
        ),
    ],
)
def test_a_query_that_cannot_be_one_is_told_with_its_place(metric: dict[str, Any], sentence: str) -> None:
    spec = parse_live(CanarySpec, raw({"query": "x", "max": 1}, metric))
    (found,) = check_queries(spec)
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        pytest.param({}, "spec.analysis.metrics[0]: a metric is judged in exactly one way", id="a metric with nothing"),
        pytest.param(
            {"counts": COUNTS, "gauge": GAUGE},
            "spec.analysis.metrics[0]: a metric is judged in exactly one way",
            id="counts and a gauge",
        ),
        pytest.param(
            {"query": "x", "max": 1, "gauge": GAUGE},
            "spec.analysis.metrics[0]: a metric is judged in exactly one way",
            id="a query and a gauge",
        ),
        pytest.param({"query": "x"}, "spec.analysis.metrics[0]: the metric has no limit", id="a query without a limit"),
        pytest.param(
            {"counts": COUNTS, "max": 1}, "spec.analysis.metrics[0]: min, max and failureLimit go", id="counts below 1"
        ),
        pytest.param(
            {"gauge": GAUGE, "min": 1}, "spec.analysis.metrics[0]: min, max and failureLimit go", id="a gauge above 1"
        ),
        pytest.param(
            {"gauge": GAUGE, "failureLimit": 2},
            "spec.analysis.metrics[0]: min, max and failureLimit go",
            id="a gauge that may fail twice",
        ),
        pytest.param(
            {"counts": {"total": COUNTS["total"]}},
            "spec.analysis.metrics[0].counts: either the bad ones",
            id="counts of neither bad nor good ones",
        ),
        pytest.param(
            {"counts": COUNTS | {"good": "x"}},
            "spec.analysis.metrics[0].counts: either the bad ones",
            id="counts of both bad and good ones",
        ),
        pytest.param(
            {"counts": COUNTS | {"tolerance": {}}},
            "spec.analysis.metrics[0].counts.tolerance: a candidate that is as good",
            id="a tolerance that tolerates nothing",
        ),
    ],
)
def test_a_metric_that_breaks_a_rule_is_told_what_to_write(metric: dict[str, Any], sentence: str) -> None:
    assert problems(CanarySpec, raw(metric)) == []
    (found,) = check_canary(CanarySpec.model_validate(raw(metric)))
    assert found.startswith(sentence)
    assert "write" in found


@pytest.mark.parametrize(
    "metric",
    [
        {"query": "x", "min": 1, "failureLimit": 3},
        {"counts": COUNTS},
        {"counts": {"good": "x", "total": "y", "promise": {"ratio": 2}, "tolerance": {"points": 0.5}}},
        {"gauge": GAUGE | {"maxIncrease": 50}},
        {"gauge": GAUGE, "failureLimit": 1},  # what the API server fills in
    ],
)
def test_a_metric_that_is_judged_in_one_way_breaks_no_rule(metric: dict[str, Any]) -> None:
    assert problems(CanarySpec, raw(metric)) == []
    assert check_canary(CanarySpec.model_validate(raw(metric))) == []


def test_good_queries_give_no_sentence() -> None:
    spec = parse_live(CanarySpec, raw({"query": "x", "max": 1}, {"counts": COUNTS}, {"gauge": GAUGE}))
    assert check_queries(spec) == []


def manifests(document: str) -> list[dict[str, Any]]:
    blocks = (Path(__file__).parents[2] / document).read_text().split("```yaml\n")[1:]
    return [yaml.safe_load(block.split("```")[0]) for block in blocks]


def test_the_manifests_of_the_document_have_no_problem() -> None:
    found = manifests("docs/canary.md")
    assert any("metrics" in manifest["spec"].get("analysis", {}) for manifest in found)
    for manifest in found:
        assert problems(CanarySpec, manifest["spec"]) == []
        spec = CanarySpec.model_validate(manifest["spec"])
        assert check_canary(spec) + check_queries(spec) == []


# Asked


class Prometheus:
    """A reader of queries that answers each with its own text."""

    def __init__(self) -> None:
        self.asked: dict[str, list[Query]] = {}

    def watch(self, key: str, queries: list[Query], address: str) -> None:
        self.asked[key] = queries

    def unwatch(self, key: str) -> None:
        self.asked.pop(key, None)

    def reading(self, key: str, metric: str) -> Reading | None:
        (text,) = [query.text for query in self.asked[key] if query.name == metric]
        return Reading(metric, Outcome.VALUE, 1.0, text, 1)


class Sidecars:
    """A reader of sidecars that has counted nothing, and notes which clusters it is to read."""

    def __init__(self) -> None:
        self.clusters: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def watch(self, key: str, candidate: tuple[str, ...], stable: tuple[str, ...], _: object) -> None:
        self.clusters[key] = candidate, stable

    def unwatch(self, key: str) -> None:
        self.clusters.pop(key, None)

    def totals(self, _: str) -> Totals:
        return Totals("sidecars", Evidence())


def collected(*metrics: dict[str, Any]) -> tuple[Collector, Prometheus, Snapshot]:
    prometheus = Prometheus()
    feed = SimpleNamespace(services={"shop/web": {"spec": {"ports": []}}})
    collector = Collector(feed, Sidecars(), prometheus, lambda: (), lambda: 7.0)  # type: ignore[arg-type]
    spec = a_spec(analysis=raw(*metrics)["analysis"])
    return collector, prometheus, analysing(spec=spec, replicasets=(a_set("v1", pod_hash="7d9f8c"), twin()))


def test_each_version_is_asked_for_by_the_hash_that_its_pods_have() -> None:
    metrics = ({"query": "{{ revision }}/{{ stableRevision }}", "max": 1}, {"counts": COUNTS}, {"gauge": GAUGE})
    collector, prometheus, snapshot = collected(*metrics)
    collector.follow("shop/web", snapshot, "shop/web")
    assert prometheus.asked["shop/web"] == [
        Query("m0", f"{V2}/7d9f8c", 10.0),
        Query("m1/candidate/total", f'all{{p="{V2}"}}', 10.0),
        Query("m1/candidate/bad", f'failed{{p="{V2}"}}', 10.0),
        Query("m1/stable/total", 'all{p="7d9f8c"}', 10.0),
        Query("m1/stable/bad", 'failed{p="7d9f8c"}', 10.0),
        Query("m2/candidate", f'memory{{p="{V2}"}}', 10.0),
        Query("m2/stable", 'memory{p="7d9f8c"}', 10.0),
    ]
    assert [reading.metric for reading in collector.readings("shop/web")] == [
        query.name for query in prometheus.asked["shop/web"]
    ]


def test_of_several_replicasets_of_the_stable_version_the_one_with_the_most_pods_is_asked_about() -> None:
    collector, prometheus, snapshot = collected({"gauge": GAUGE})
    sets = (a_set("v1", 0, pod_hash="old"), a_set("v1", 4, pod_hash="present"), a_set("v3", 9, pod_hash="other"))
    collector.follow("shop/web", replace(snapshot, replicasets=sets), "shop/web")
    assert prometheus.asked["shop/web"][1][1] == 'memory{p="present"}'


def test_a_run_that_has_ended_is_asked_nothing() -> None:
    collector, prometheus, snapshot = collected({"gauge": GAUGE})
    collector.follow("shop/web", snapshot, "shop/web")
    collector.stop("shop/web")
    assert prometheus.asked == {}
    assert collector.readings("shop/web") == ()


REQUESTS = {"total": 'all{p="{{ revision }}"}', "failed": 'failed{p="{{ revision }}"}'}


def counted(snapshot: Snapshot, **requests: str) -> Snapshot:
    analysis: dict[str, Any] = {"prometheus": {"address": "http://prometheus:9090"}}
    return replace(snapshot, spec=a_spec(analysis=analysis | ({"requests": requests} if requests else {})))


def test_requests_are_counted_by_prometheus_or_by_the_sidecars_and_either_can_take_over_in_a_run() -> None:
    collector, prometheus, snapshot = collected()
    http = {"name": "http", "port": 80}
    collector._feed.services["shop/web"]["spec"]["ports"] = [http]
    sidecars = collector._counters.clusters
    collector.follow("shop/web", counted(snapshot), "shop/web")
    assert all(sidecars["shop/web"])
    assert collector.totals("shop/web").reader == "sidecars"
    assert prometheus.asked == {}

    collector.follow("shop/web", counted(snapshot, **REQUESTS), "shop/web")
    assert sidecars["shop/web"] == ((), ())
    (query,) = prometheus.asked["shop/web"]
    assert query.many
    assert [each in query.text for each in (f'failed{{p="{V2}"}}', 'all{p="7d9f8c"}')] == [True, True]
    first = collector.totals("shop/web")
    assert first.reader not in ("", "sidecars")
    collector.follow("shop/web", counted(snapshot, **REQUESTS), "shop/web")
    assert collector.totals("shop/web").reader == first.reader
    assert collector.readings("shop/web") == ()

    collector.follow("shop/web", counted(snapshot, **REQUESTS | {"failed": 'bad{p="{{ revision }}"}'}), "shop/web")
    assert collector.totals("shop/web").reader != first.reader
    collector.follow("shop/web", counted(snapshot), "shop/web")
    assert all(sidecars["shop/web"])
    assert prometheus.asked == {}
    collector.follow("shop/web", counted(snapshot, **REQUESTS), "shop/web")
    collector.stop("shop/web")
    assert prometheus.asked == sidecars == {}
