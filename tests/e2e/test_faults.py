"""Faults on live traffic: who sees them, and every way in which they end."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from driving import killed
from faulty import FAULTS, active, allow, injected, last, last_seen, policy, seen, ship, shop, state
from harness import App, Cluster, eventually

from serinus.kube import kinds


def test_a_fault_hits_its_share_of_the_requests_where_the_namespace_allows_it_and_ends_by_its_ttl(app: App) -> None:
    app.create(rate=100)
    app.cluster.apply(policy(app, abort={"httpStatus": 503}, ttl="15s"))
    refused = eventually(lambda: state(app) if state(app).get("state") == "Refused" else {}, "it is refused", 20)
    assert f"kubectl annotate namespace {app.namespace} serinus.dev/faults=allowed" in refused["message"]
    app.cluster.kubectl("annotate", "namespace", app.namespace, f"{FAULTS}=allowed", f"{FAULTS}-most=10")
    eventually(lambda: "more than the 10 %" in state(app).get("message", ""), "it is more than is allowed", 20)
    elsewhere = policy(app, abort={"httpStatus": 503})
    elsewhere["metadata"]["name"], elsewhere["spec"]["targetRef"]["name"] = "elsewhere", "no-such-service"
    app.cluster.apply(elsewhere)

    def said() -> str:
        found = app.cluster.get(kinds.TRAFFIC_POLICY, "elsewhere", app.namespace) or {}
        return str((found.get("status") or {}).get("conditions"))

    eventually(lambda: "no-such-service" in said(), "the Service is missed", 20)
    assert seen(app) == 0
    app.cluster.kubectl("annotate", "namespace", app.namespace, f"{FAULTS}-most-")
    eventually(lambda: active(app), "it is in force", 20)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 800, "requests", 30)
    report, hit = app.report(since), seen(app, since)
    assert 0.13 < hit / report["total"] < 0.27, report["totals"]
    eventually(lambda: state(app).get("state") == "Ended", "it has ended", 30)
    assert "its ttl of 15s is over" in state(app)["message"]
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 200, "requests", 30)
    assert seen(app, since) == 0
    assert any("Fault" in event and "answer 503" in event for event in app.events())


def test_only_callers_with_the_service_account_and_requests_of_the_route_are_hit(app: App) -> None:
    app.create(rate=50)
    allow(app)
    app.cluster.apply(policy(app, abort={"httpStatus": 503}, percentage=100, **{"from": ["somebody-else"]}))
    eventually(lambda: state(app).get("state") == "Active", "it is in force", 20)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 100, "requests", 30)
    assert seen(app, since) == 0
    app.cluster.apply(policy(app, abort={"httpStatus": 503}, percentage=100, **{"from": ["default"]}))
    eventually(lambda: active(app), "it is in force for the caller", 20)
    since = app.mark()
    eventually(lambda: seen(app, since) >= 50, "it happens to the caller", 30)


def test_the_kill_switch_ends_every_fault_at_once_and_none_comes_back_by_itself(app: App) -> None:
    app.create(rate=200)
    allow(app)
    app.cluster.apply(policy(app, abort={"httpStatus": 503}))
    eventually(lambda: active(app) and seen(app), "it happens", 30)
    done = app.cluster.serinus("faults", "stop", "-n", app.namespace)
    assert app.namespace in done.stdout
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 400, "requests", 30)
    assert seen(app, since) == 0
    assert "faults are stopped" in state(app)["message"]
    assert "Ended" in app.cluster.serinus("faults", "list", "-n", app.namespace).stdout
    allow(app)
    time.sleep(2)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 200, "requests", 30)
    assert seen(app, since) == 0


@pytest.mark.alone
@pytest.mark.acceptance(45)
def test_faults_and_experiments_end_without_the_operator_and_faults_all_at_once_by_one_command(
    app: App, another: App, cluster: Cluster
) -> None:
    shop(another, fallback=False, budget=100000)
    ship(another, fallback=False)
    app.create(rate=100)
    allow(app)
    eventually(lambda: injected(another), "the experiment's fault is injected", 120)
    app.cluster.apply(policy(app, abort={"httpStatus": 503}, ttl="30s"))
    eventually(lambda: active(app) and seen(app), "the policy's fault happens", 30)
    with killed(cluster):
        began = time.time()
        since = {each: each.mark() for each in (app, another)}
        time.sleep(15)
        quiet = {each: each.mark() for each in since}
        for each in since:
            eventually(lambda each=each: each.report(quiet[each])["total"] >= 200, "requests", 30)  # type: ignore[misc]
            assert each.report(quiet[each])["bad_answers"] == 0
            assert last_seen(each, since[each]) - began <= 13
    eventually(lambda: last(another).get("attempt", 1) > 1, "the experiment is begun again", 120)
    app.cluster.apply(policy(app, abort={"httpStatus": 503}, ttl="5m"))
    eventually(lambda: active(app), "a changed one is in force", 60)
    assert "Active" in app.cluster.serinus("faults", "list", "-A").stdout
    assert app.namespace in app.cluster.serinus("faults", "stop", "--all").stdout
    assert state(app)["state"] == "Ended"


def test_a_fault_can_be_tried_from_the_command_line_and_is_gone_afterwards(app: App) -> None:
    app.create(rate=100)
    refused = app.cluster.serinus("faults", "try", "web", "--abort", "503", "-n", app.namespace, check=False)
    assert refused.returncode == 1
    assert "does not allow faults" in refused.stdout
    allow(app)
    since = app.mark()
    done = app.cluster.serinus(
        "faults", "try", "web", "--abort", "503", "--percent", "30", "--for", "6s", "-n", app.namespace
    )
    assert re.search(r"Active, in \d+ sidecars: answer 503 for 30 %", done.stdout), done.stdout
    assert "The fault is taken out." in done.stdout
    assert seen(app, since) > 50
    assert app.cluster.get(kinds.TRAFFIC_POLICY, "web-fault", app.namespace) is None


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param({"ttl": None, "abort": {"httpStatus": 503}}, "ttl: Required value", id="without a ttl"),
        pytest.param({"ttl": "2h", "abort": {"httpStatus": 503}}, 'from "1s" to "1h"', id="for hours"),
        pytest.param({}, "write at least one of delay, abort and reset", id="without anything that goes wrong"),
        pytest.param(
            {"abort": {"httpStatus": 503}, "match": {"methods": ["POST"]}}, "write allowUnsafe: true", id="unsafe"
        ),
        pytest.param({"abort": {"grpcStatus": 14}}, "gRPC sends every call as POST", id="gRPC, which is unsafe"),
        pytest.param({"abort": {"httpStatus": 200}}, "greater than or equal to 400", id="a status that is no error"),
        pytest.param({"abort": {"httpStatus": 503}, "routes": ["none"]}, "write names of spec.routes", id="a route"),
        pytest.param({"abort": {"httpStatus": 503}, "percentage": 101}, "less than or equal to 100", id="over 100 %"),
    ],
)
def test_a_fault_that_says_too_little_or_too_much_is_refused(
    kubectl: Callable[..., str], namespace: str, fault: dict[str, Any], sentence: str
) -> None:
    import yaml

    spec = {key: value for key, value in ({"percentage": 20, "ttl": "5m"} | fault).items() if value is not None}
    body = {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {"targetRef": {"name": "web"}, "fault": spec},
    }
    said = kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(body), check=False)
    assert sentence in said
