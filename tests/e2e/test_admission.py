"""What a real API server takes and refuses, by the resource definitions alone, and with which words."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from serinus.api import check_canary, check_policy, parse_live, problems
from serinus.api.canary import CanarySpec
from serinus.api.names import API_VERSION
from serinus.api.release import CanaryStatus, MetricStatus, Phase, RunStatus
from serinus.api.status import Condition
from serinus.api.trafficpolicy import TrafficPolicySpec

Kubectl = Callable[..., str]
Spec = dict[str, Any]


def canary(*steps: Spec, **fields: Any) -> Spec:
    return {"targetRef": {"name": "web"}, "strategy": {"steps": list(steps) or [{"weight": 10}]}} | fields


def policy(**fields: Any) -> Spec:
    return {"targetRef": {"name": "web"}} | fields


def metrics(*entries: Spec, prometheus: bool = True) -> Spec:
    analysis: Spec = {"metrics": [{"name": "errors", "query": "x"} | entry for entry in entries]}
    if prometheus:
        analysis["prometheus"] = {"address": "http://prometheus:9090"}
    return canary(analysis=analysis)


def routes(*entries: Spec, **fields: Any) -> Spec:
    return policy(routes=[{"name": f"r{index}"} | entry for index, entry in enumerate(entries)], **fields)


def manifest(spec: Spec, name: str = "web", kind: str = "") -> str:
    kind = kind or ("Canary" if "strategy" in spec else "TrafficPolicy")
    return json.dumps({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})


def tried(kubectl: Kubectl, namespace: str, text: str) -> str:
    """Return what kubectl says about creating an object; nothing is kept."""
    return kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", input=text, check=False)


GOOD = [
    pytest.param(canary(), id="the least that a Canary needs"),
    pytest.param(
        canary(
            {"weight": 1, "for": "1h2m3.5s"},
            {"weight": 1},
            {"approval": "look at sales"},
            {"weight": 100, "for": "250ms"},
            service="web",
            candidate={"withoutLabels": ["app.kubernetes.io/name"]},
            analysis={
                "minRequests": 100,
                "successRate": {"min": 99.5, "maxDrop": 0.5},
                "latency": {"percentile": 95, "max": "5s", "maxIncrease": 20},
                "interval": "5s",
                "prometheus": {"address": "https://prometheus.monitoring:9090"},
                "metrics": [
                    {"name": "a", "query": "x{n='{{ namespace }}'}", "max": 5, "failureLimit": 3},
                    {"name": "b", "query": "y", "min": 1, "max": 1},
                ],
            },
            progressDeadline="5m",
            deadline="2h",
            onInconclusive="Rollback",
            rollbackWindow="0s",
            suspend=True,
        ),
        id="a Canary with every field",
    ),
    pytest.param(canary(*[{"weight": w} for w in range(1, 51)]), id="a Canary with fifty steps"),
    pytest.param(canary(service=None, analysis=None), id="nulls count as absent"),
    pytest.param(policy(), id="the least that a TrafficPolicy needs"),
    pytest.param(
        policy(
            timeout="2s",
            retries={"attempts": 3, "perTryTimeout": "500ms", "retryOn": ["5xx", "unavailable"]},
            routes=[
                {
                    "name": "search",
                    "match": {
                        "path": {"prefix": "/search"},
                        "methods": ["GET", "HEAD"],
                        "headers": [{"name": "x-user", "regex": "[a-f].*"}, {"name": "x-debug", "present": False}],
                    },
                    "timeout": "0s",
                    "retries": {"perTryTimeout": "10s"},
                },
                {"name": "rest"},
            ],
        ),
        id="a TrafficPolicy with every field",
    ),
    pytest.param(
        routes(*[{"match": {"headers": [{"name": "x", "exact": "y"}] * 16}, "timeout": "1s"}] * 64),
        id="a TrafficPolicy as large as may be",
    ),
]


@pytest.mark.parametrize("spec", GOOD)
def test_what_is_good_is_taken_and_defaults_are_filled_in_as_we_read_them(
    kubectl: Kubectl, namespace: str, spec: Spec
) -> None:
    model, check = (CanarySpec, check_canary) if "strategy" in spec else (TrafficPolicySpec, check_policy)
    answer = tried(kubectl, namespace, manifest(spec))
    stored = json.loads(answer)["spec"]
    assert problems(model, spec) == []
    mine = parse_live(model, spec)
    assert check(mine) == []  # type: ignore[arg-type]
    assert model.model_validate(stored) == mine
    assert stored == mine.model_dump(mode="json", by_alias=True, exclude_none=True)


BAD = [
    pytest.param(canary({"weight": 200}), "spec.strategy.steps[0].weight", id="a weight above 100"),
    pytest.param(canary({"weight": "10"}), "spec.strategy.steps[0].weight", id="a weight in quotes"),
    pytest.param(canary({"weight": 10.5}), "spec.strategy.steps[0].weight", id="half a percent"),
    pytest.param(canary({"weight": 10, "for": "soon"}), "spec.strategy.steps[0].for", id="a duration in words"),
    pytest.param(canary(*[{"weight": 1}] * 51), "spec.strategy.steps", id="more steps than there may be"),
    pytest.param({"targetRef": {"name": "web"}, "strategy": {"steps": []}}, "spec.strategy.steps", id="no steps"),
    pytest.param({"strategy": {"steps": [{"weight": 1}]}}, "spec.targetRef", id="no target"),
    pytest.param(canary(targetRef={"name": "web", "kind": "StatefulSet"}), "spec.targetRef.kind", id="a StatefulSet"),
    pytest.param(canary(onInconclusive="Wait"), "spec.onInconclusive", id="a word that is none of the choices"),
    pytest.param(canary(service="Web"), "spec.service", id="a name in capitals"),
    pytest.param(canary({"wieght": 10}), 'unknown field "spec.strategy.steps[0].wieght"', id="a slip of the pen"),
    pytest.param(
        canary({"weight": 10, "approval": "look"}),
        "a step has exactly one of weight, approval and fault; write one step for each",
        id="a step with both",
    ),
    pytest.param(canary({}), "a step has exactly one of weight, approval and fault", id="a step with neither"),
    pytest.param(canary({"approval": "x", "for": "5m"}), "for goes with weight only", id="an approval with a time"),
    pytest.param(
        canary({"weight": 50}, {"approval": "x"}, {"weight": 20}),
        "weights may not fall from one step to the next; write them in rising order",
        id="weights that fall",
    ),
    pytest.param(canary({"weight": 0}), "write a weight from 1 to 100", id="a weight of nothing"),
    pytest.param(
        canary(strategy={"adaptive": {}, "steps": [{"weight": 10}]}),
        "either evidence decides or the steps do",
        id="evidence and steps at once",
    ),
    pytest.param(
        canary(analysis={"latency": {"max": "10s"}}),
        "the sidecars count latency from 1ms to 5s",
        id="a latency that nobody counts",
    ),
    pytest.param(canary(analysis={"interval": "100ms"}), "the queries are asked too often", id="too often"),
    pytest.param(canary(deadline="0s"), "no run ends in no time", id="a deadline of nothing"),
    pytest.param(canary(progressDeadline="0s"), "no pod becomes ready in no time", id="a progress deadline of nothing"),
    pytest.param(metrics({"max": 1}, prometheus=False), "nothing answers the queries", id="queries without a source"),
    pytest.param(
        canary(analysis={"requests": {"total": "x", "failed": "y"}}),
        "nothing answers the queries",
        id="requests counted by nobody",
    ),
    pytest.param(
        canary(
            analysis={
                "prometheus": {"address": "http://prometheus:9090"},
                "requests": {"total": "x", "failed": "y"},
                "latency": {"max": "100ms"},
            }
        ),
        "nothing tells how long requests take",
        id="a limit on what is not timed",
    ),
    pytest.param(metrics({}), "the metric has no limit; write min, max or both", id="a metric without a limit"),
    pytest.param(metrics({"min": 2, "max": 1}), "min is above max", id="limits that nothing meets"),
    pytest.param(metrics({"max": 1}, {"max": 1}), "Duplicate value", id="two metrics of one name"),
    pytest.param(
        policy(timeout="1s", retries={"perTryTimeout": "2s"}),
        "write a perTryTimeout of at most the timeout",
        id="a try longer than the request",
    ),
    pytest.param(
        routes({"timeout": "1s", "retries": {"perTryTimeout": "2s"}}),
        "one try may not take longer than the whole request",
        id="a try longer than the request, on a route",
    ),
    pytest.param(
        routes({"retries": {"perTryTimeout": "2s"}}, timeout="1s"),
        "a route without a timeout has the policy's",
        id="a try longer than the policy's timeout",
    ),
    pytest.param(policy(routes=[{"name": "a"}, {"name": "a"}]), "Duplicate value", id="two routes of one name"),
    pytest.param(
        routes({"match": {"path": {"exact": "/a", "prefix": "/a"}}}),
        "a path is compared in exactly one way; write one of exact, prefix and regex",
        id="a path compared in two ways",
    ),
    pytest.param(
        routes({"match": {"headers": [{"name": "x-a"}]}}),
        "a header is compared in exactly one way",
        id="a header compared in no way",
    ),
    pytest.param(
        policy(retries={"retryOn": ["always"]}), "spec.retries.retryOn[0]", id="a failure that does not exist"
    ),
]


@pytest.mark.parametrize(("spec", "words"), BAD)
def test_what_is_bad_is_refused_with_a_sentence_and_so_by_our_own_check(
    kubectl: Kubectl, namespace: str, spec: Spec, words: str
) -> None:
    kind = "TrafficPolicy" if "strategy" not in spec else "Canary"
    answer = tried(kubectl, namespace, manifest(spec, kind=kind))
    assert words in answer, answer
    if kind == "Canary":
        ours = problems(CanarySpec, spec) or check_canary(parse_live(CanarySpec, spec))
    else:
        ours = problems(TrafficPolicySpec, spec) or check_policy(parse_live(TrafficPolicySpec, spec))
    assert ours, "the API server refuses what our own check takes"
    if ";" in words:
        assert words in ours[0]


def test_a_name_that_fits_no_label_is_refused(kubectl: Kubectl, namespace: str) -> None:
    assert "write a shorter name" in tried(kubectl, namespace, manifest(canary(), "x" * 64))
    assert "write a shorter name" not in tried(kubectl, namespace, manifest(canary(), "x" * 63))


def test_a_target_cannot_be_changed_and_everything_else_can(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", input=manifest(canary()))
    other = manifest(canary(targetRef={"name": "other"}))
    assert "targetRef cannot be changed; delete this Canary and make a new one" in kubectl(
        "apply", "-n", namespace, "-f", "-", input=other, check=False
    )
    same = canary({"weight": 20}, suspend=True, targetRef={"name": "web", "kind": "Deployment"})
    assert "configured" in kubectl("apply", "-n", namespace, "-f", "-", input=manifest(same))
    kubectl("delete", "canary", "web", "-n", namespace, "--wait=false")


def test_a_whole_status_is_kept_as_it_was_written(kubectl: Kubectl, namespace: str) -> None:
    status = CanaryStatus(
        observed_generation=1,
        phase=Phase.ANALYSING,
        message="it is judged",
        weight=10,
        step="1/1",
        run=RunStatus(
            id="r1",
            revision="abc",
            pod_hash="abc",
            started_at="2026-01-01T00:00:00Z",
            measured_weight=9.75,
            metrics=[MetricStatus(name="latency", candidate=12.5, limit="1 s")],
            evidence={"total": [[1, 2, 3]], "notes": {"queries": {"a": [1, 0, 1]}}},
        ),
        conditions=[Condition(type="Ready", status="Unknown", reason="Analysing", last_transition_time="now")],
    )
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    kubectl("create", "-n", namespace, "-f", "-", input=manifest(canary()))
    change = json.dumps({"status": written})
    answer = kubectl(
        "patch", "canary", "web", "-n", namespace, "--subresource=status", "--type=merge", "-p", change, "-o", "json",
        "--dry-run=server",
    )  # fmt: skip
    kept = json.loads(answer)["status"]
    assert parse_live(CanaryStatus, kept).run == status.run
    assert kept["run"] == written["run"]
    kubectl("delete", "canary", "web", "-n", namespace, "--wait=false")


def test_a_status_that_a_user_writes_into_the_object_is_left_out(kubectl: Kubectl, namespace: str) -> None:
    text = json.dumps(json.loads(manifest(canary())) | {"status": {"phase": "Ready"}})
    assert "status" not in json.loads(tried(kubectl, namespace, text))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("canary.spec.strategy", "How the candidate takes over the traffic."),
        ("canary.spec.strategy.steps", "Share of the requests that the candidate gets, in percent."),
        ("cny.spec.analysis.latency", "Longest latency of the candidate at this percentile."),
        ("canary.status", "What happens, and what is waited for, in a sentence with numbers."),
        ("tp.spec.retries", "Which failures are tried again."),
    ],
)
def test_kubectl_explains_every_field(kubectl: Kubectl, what: str, words: str) -> None:
    answer = " ".join(kubectl("explain", what).split())
    assert words in answer
    assert "<no description>" not in answer


def test_kubectl_get_has_our_columns(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "-n", namespace, "-f", "-", input=manifest(canary()))
    kubectl("create", "-n", namespace, "-f", "-", input=manifest(policy()))
    wide = kubectl("get", "cny", "-n", namespace, "-o", "wide").splitlines()[0].split()
    assert wide == ["NAME", "TARGET", "READY", "PHASE", "WEIGHT", "STEP", "MESSAGE", "REASON", "AGE"]
    assert kubectl("get", "tp", "-n", namespace).splitlines()[0].split() == [
        "NAME", "SERVICE", "READY", "PROXIES", "ACKNOWLEDGED", "FAULT", "AGE",
    ]  # fmt: skip
    kubectl("delete", "canary,trafficpolicy", "web", "-n", namespace, "--wait=false")
