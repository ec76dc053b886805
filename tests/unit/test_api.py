"""Specs and statuses: what is read, what is refused, and with which words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from serinus.api import check_canary, check_policy, hint_policy, parse_live, problems
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus
from serinus.api.trafficpolicy import TrafficPolicySpec

TARGET = {"name": "shop"}


def canary(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"targetRef": TARGET, "strategy": {"steps": list(steps) or [{"weight": 10}]}} | fields


def metrics(*entries: dict[str, Any], prometheus: bool = True) -> dict[str, Any]:
    analysis: dict[str, Any] = {"metrics": [{"name": "errors", "query": "x", "max": 1} | entry for entry in entries]}
    if prometheus:
        analysis["prometheus"] = {"address": "http://prometheus:9090"}
    return canary(analysis=analysis)


def route(**fields: Any) -> dict[str, Any]:
    return {"name": "all"} | fields


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        pytest.param(
            canary({"weight": 10}, {"weight": 200}),
            "spec.strategy.steps[1].weight: 200 is more than 100; write a whole number from 0 to 100",
            id="a weight above 100",
        ),
        pytest.param(
            canary({"weight": -1}),
            "spec.strategy.steps[0].weight: -1 is less than 0; write a whole number from 0 to 100",
            id="a weight below 0",
        ),
        pytest.param(
            canary({"weight": "10"}),
            'spec.strategy.steps[0].weight: "10" does not fit here; write a whole number from 0 to 100',
            id="a weight in quotes",
        ),
        pytest.param(
            canary({"weight": 10, "for": "5 minutes"}),
            'spec.strategy.steps[0].for: "5 minutes" is not a duration; write for example "30s", "5m", "1h30m" or'
            ' "250ms"',
            id="a duration in words",
        ),
        pytest.param(
            canary({"weight": 10, "for": 30}),
            'spec.strategy.steps[0].for: 30 does not fit here; write a duration, for example "30s", "5m" or "1h30m"',
            id="a duration without a unit",
        ),
        pytest.param(
            canary({"wieght": 10}),
            "spec.strategy.steps[0].wieght: there is no such field; write weight",
            id="a field with a slip of the pen",
        ),
        pytest.param(
            canary(analysis={"success_rate": {"min": 99}}),
            "spec.analysis.success_rate: there is no such field; write successRate",
            id="a field in snake case",
        ),
        pytest.param(
            canary({"setWeight": 10, "zzz": 1}),
            "spec.strategy.steps[0].zzz: there is no such field; known are weight, for, approval",
            id="a field that resembles none",
        ),
        pytest.param(
            {"strategy": {"steps": [{"weight": 10}]}},
            "spec.targetRef: this field is missing; write it (the Deployment that is released)",
            id="no target",
        ),
        pytest.param(
            {"targetRef": {}, "strategy": {"steps": [{"weight": 10}]}},
            "spec.targetRef.name: this field is missing; write it (name of the workload)",
            id="a target without a name",
        ),
        pytest.param(
            {"targetRef": TARGET, "strategy": {"steps": []}},
            "spec.strategy.steps: the list has 0 entries; write a list of 1 to 50 entries",
            id="no steps",
        ),
        pytest.param(
            {"targetRef": TARGET, "strategy": {"steps": {"weight": 10}}},
            "spec.strategy.steps: a block with fields does not fit here; write a list of 1 to 50 entries",
            id="a block instead of a list",
        ),
        pytest.param(
            {"targetRef": "shop", "strategy": {"steps": [{"weight": 10}]}},
            'spec.targetRef: "shop" does not fit here; write a block with fields',
            id="text instead of a block",
        ),
        pytest.param(
            canary(onInconclusive="Wait"),
            'spec.onInconclusive: "Wait" does not fit here; write one of Hold, Promote, Rollback',
            id="a word that is none of the choices",
        ),
        pytest.param(
            canary(suspend="yes"),
            'spec.suspend: "yes" does not fit here; write true or false',
            id="text instead of true or false",
        ),
        pytest.param(
            canary(analysis={"latency": {"percentile": 100, "max": "1s"}}),
            "spec.analysis.latency.percentile: 100 is not below 100; write a number from above 0 to below 100",
            id="a percentile that is no percentile",
        ),
        pytest.param(
            canary(service="Shop"),
            'spec.service: "Shop" does not fit here; write 1 to 253 characters out of a-z, 0-9, - and ., with a letter'
            " or digit at both ends",
            id="a name that Kubernetes does not allow",
        ),
        pytest.param(
            canary(analysis={"prometheus": {"address": "prometheus:9090"}}),
            'spec.analysis.prometheus.address: "prometheus:9090" does not fit here; write a URL, for example'
            ' "http://prometheus.monitoring:9090"',
            id="an address without a scheme",
        ),
    ],
)
def test_a_problem_is_a_sentence_with_the_place_and_what_to_write_instead(raw: dict[str, Any], sentence: str) -> None:
    assert any(problem.startswith(sentence) for problem in problems(CanarySpec, raw)), problems(CanarySpec, raw)


def test_all_problems_are_told_at_once() -> None:
    found = problems(CanarySpec, {"strategy": {"steps": [{"weight": 200}, {"weigt": 1}]}, "susbend": True})
    assert len(found) == 4


def test_a_good_spec_has_no_problem_and_breaks_no_rule() -> None:
    raw = canary(
        {"weight": 1, "for": "30s"},
        {"weight": 10},
        {"approval": "look at the dashboard"},
        {"weight": 100},
        analysis={"latency": {"max": "500ms", "maxIncrease": 20}, "successRate": {"min": 99}},
        service=None,
    )
    assert problems(CanarySpec, raw) == []
    assert check_canary(CanarySpec.model_validate(raw)) == []


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        pytest.param(
            canary({"weight": 10, "approval": "look"}),
            "spec.strategy.steps[0]: a step has exactly one of weight, approval and fault",
            id="a step with both",
        ),
        pytest.param(canary({}), "spec.strategy.steps[0]: a step has exactly one", id="a step with neither"),
        pytest.param(
            canary({"approval": "look", "for": "5m"}),
            "spec.strategy.steps[0].for: for goes with weight only",
            id="an approval that is held for a time",
        ),
        pytest.param(
            canary({"weight": 50}, {"approval": "look"}, {"weight": 20}),
            "spec.strategy.steps: weights may not fall",
            id="weights that fall, with an approval between them",
        ),
        pytest.param(canary({"weight": 0}), "spec.strategy.steps: a step with weight 0", id="a weight of nothing"),
        pytest.param(
            metrics({}, {}), "spec.analysis.metrics: two metrics have the same name", id="two metrics of one name"
        ),
        pytest.param(
            metrics({"max": None}),
            "spec.analysis.metrics[0]: the metric has no limit",
            id="a metric without a limit",
        ),
        pytest.param(
            metrics({"min": 5, "max": 1}),
            "spec.analysis.metrics[0].min: min is above max",
            id="limits that no value meets",
        ),
        pytest.param(
            metrics({}, prometheus=False),
            "spec.analysis.metrics: nothing answers the queries",
            id="queries without a Prometheus",
        ),
        pytest.param(
            canary(analysis={"interval": "100ms"}),
            "spec.analysis.interval: the queries are asked too often",
            id="queries ten times a second",
        ),
        pytest.param(
            canary(strategy={"adaptive": {}, "steps": [{"weight": 10}]}),
            "spec.strategy.adaptive: either evidence decides or the steps do",
            id="evidence and steps at once",
        ),
        pytest.param(
            canary(analysis={"successRate": {"maxDrop": 1, "promise": {"ratio": 2}}}),
            "spec.analysis.successRate.maxDrop: maxDrop is promise and tolerance in one",
            id="a drop and a promise",
        ),
        pytest.param(
            canary(analysis={"latency": {"max": "10s"}}),
            "spec.analysis.latency.max: the sidecars count latency from 1ms to 5s",
            id="a latency that the sidecars do not see",
        ),
        pytest.param(canary(deadline="0s"), "spec.deadline: no run ends in no time", id="a deadline of nothing"),
        pytest.param(
            canary(progressDeadline="0s"), "spec.progressDeadline: no pod becomes", id="a progress deadline of nothing"
        ),
    ],
)
def test_a_canary_that_breaks_a_rule_is_told_what_to_write(raw: dict[str, Any], sentence: str) -> None:
    assert problems(CanarySpec, raw) == []
    (found,) = check_canary(CanarySpec.model_validate(parse_live(CanarySpec, raw).model_dump(exclude_none=True)))
    assert found.startswith(sentence)
    assert "write" in found or "delete" in found


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        pytest.param(
            {"timeout": "1s", "retries": {"perTryTimeout": "2s"}},
            "spec.retries: one try may not take longer",
            id="a try longer than the request",
        ),
        pytest.param(
            {"routes": [route(timeout="1s", retries={"perTryTimeout": "2s"})]},
            "spec.routes[0].retries: one try may not take longer",
            id="a try longer than the request, on a route",
        ),
        pytest.param(
            {"timeout": "1s", "routes": [route(retries={"perTryTimeout": "2s"})]},
            "spec.routes: a route without a timeout has the policy's",
            id="a try longer than the policy's timeout",
        ),
        pytest.param(
            {"routes": [route(), route()]}, "spec.routes: two routes have the same name", id="two routes of one name"
        ),
        pytest.param(
            {"routes": [route(match={"path": {"exact": "/a", "prefix": "/a"}})]},
            "spec.routes[0].match.path: a path is compared in exactly one way",
            id="a path compared in two ways",
        ),
        pytest.param(
            {"routes": [route(match={"headers": [{"name": "x-a"}]})]},
            "spec.routes[0].match.headers[0]: a header is compared in exactly one way",
            id="a header compared in no way",
        ),
    ],
)
def test_a_policy_that_breaks_a_rule_is_told_what_to_write(fields: dict[str, Any], sentence: str) -> None:
    raw = {"targetRef": TARGET} | fields
    assert problems(TrafficPolicySpec, raw) == []
    (found,) = check_policy(TrafficPolicySpec.model_validate(raw))
    assert found.startswith(sentence)


def test_a_timeout_of_0s_is_no_limit_for_a_try() -> None:
    spec = {"targetRef": TARGET, "timeout": "0s", "retries": {"perTryTimeout": "2s", "retryOn": ["5xx"]}}
    assert check_policy(TrafficPolicySpec.model_validate(spec)) == []


@pytest.mark.parametrize(
    ("regex", "word"),
    [
        pytest.param("/(?!admin).*", "looks ahead", id="a negative look-ahead"),
        pytest.param(r"/(a)/\1", "refers back", id="a reference to a group"),
        pytest.param("/a++", "without giving back", id="a possessive quantifier"),
    ],
)
def test_an_expression_that_re2_does_not_know_is_a_hint(regex: str, word: str) -> None:
    spec = TrafficPolicySpec.model_validate({"targetRef": TARGET, "routes": [route(match={"path": {"regex": regex}})]})
    assert check_policy(spec) == []
    assert word in hint_policy(spec)[0]


def test_an_expression_that_re2_knows_gives_no_hint() -> None:
    match = {"path": {"regex": r"/v[12]/(?:a|b)+\\1?"}}
    spec = TrafficPolicySpec.model_validate({"targetRef": TARGET, "routes": [route(match=match)]})
    assert hint_policy(spec) == []


def test_an_older_operator_reads_what_a_newer_definition_allows() -> None:
    raw = canary({"weight": 10, "mirror": True}, analysis={"faults": {}, "minRequests": 7}, colour="yellow")
    spec = parse_live(CanarySpec, raw)
    assert spec.strategy.steps[0].weight == 10
    assert spec.analysis.min_requests == 7


def test_a_live_spec_that_cannot_be_read_says_so_in_the_same_words() -> None:
    with pytest.raises(ValueError, match=r"^spec\.strategy\.steps\[0\]\.weight: 200 is more than 100"):
        parse_live(CanarySpec, canary({"weight": 200}))


def test_a_live_status_is_read_back_as_it_was_written() -> None:
    written = {
        "phase": "Analysing",
        "weight": 10,
        "run": {"id": "r1", "revision": "abc", "podHash": "abc", "startedAt": "now", "evidence": {"any": ["thing"]}},
        "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Analysing"}],
    }
    status = parse_live(CanaryStatus, written)
    assert status.model_dump(mode="json", by_alias=True, exclude_unset=True) == written


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["targetRef", "name", "strategy", "steps", "weight", "for", "analysis", "routes", "match", "x"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([CanarySpec, TrafficPolicySpec]), st.dictionaries(st.sampled_from(
    ["targetRef", "strategy", "analysis", "timeout", "retries", "routes", "y"]), JSON, max_size=5))  # fmt: skip
def test_whatever_stands_in_a_spec_it_is_read_or_every_problem_is_told(
    model: type[BaseModel], raw: dict[str, Any]
) -> None:
    if problems(model, raw):
        return
    parse_live(model, raw)
