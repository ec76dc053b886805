"""TrafficPolicies on live traffic, and the commands of the documents as they stand there."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from harness import ROOT, App, Cluster, eventually

from serinus.kube import kinds


def _policy(app: App, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"namespace": app.namespace, "name": "web"},
        "spec": {"targetRef": {"name": "web"}, **spec},
    }


def _in_force(app: App) -> bool:
    policy = app.cluster.get(kinds.TRAFFIC_POLICY, "web", app.namespace) or {}
    status = policy.get("status") or {}
    current = status.get("observedGeneration") == policy["metadata"]["generation"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
    return bool(current and ready and status["proxies"] > 0)


def test_a_timeout_ends_slow_requests_and_a_route_gives_some_of_them_more_time(app: App) -> None:
    app.create(rate=20, LATENCY="600ms")
    app.cluster.apply(_policy(app, timeout="200ms"))
    eventually(lambda: _in_force(app), "the policy is in force", 30)
    time.sleep(1)  # what was sent before takes 600 ms
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 20, "requests", 30)
    assert {total["outcome"] for total in app.report(since)["totals"]} == {"504"}
    everything = {"name": "all", "match": {"path": {"prefix": "/"}}, "timeout": "5s"}
    app.cluster.apply(_policy(app, timeout="200ms", routes=[everything]))
    eventually(lambda: _in_force(app), "the route is in force", 30)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 40, "requests", 30)
    assert app.report(since)["good"] > 0


def test_retries_of_what_the_app_answered_hide_failures_from_callers(app: App) -> None:
    app.create(rate=50, ERROR_RATE="0.3")
    app.cluster.apply(_policy(app, retries={"attempts": 5, "retryOn": ["5xx"]}))
    eventually(lambda: _in_force(app), "the policy is in force", 30)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 300, "requests", 30)
    report = app.report(since)
    assert report["bad_answers"] < 0.02 * report["total"], report["totals"]


def test_a_policy_for_a_service_that_is_not_there_says_so(cluster: Cluster, namespace: str) -> None:
    policy = {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"namespace": namespace, "name": "web"},
        "spec": {"targetRef": {"name": "no-such"}, "timeout": "1s"},
    }
    cluster.apply(policy)

    def stalled() -> str:
        status = (cluster.get(kinds.TRAFFIC_POLICY, "web", namespace) or {}).get("status") or {}
        return next((c["message"] for c in status.get("conditions") or [] if c["type"] == "Stalled"), "")

    assert "there is no Service no-such" in eventually(stalled, "Stalled", 20)


def _manifests(path: Path) -> list[dict[str, object]]:
    """The YAML blocks of a document."""
    blocks = path.read_text().split("```yaml\n")[1:]
    return [yaml.safe_load(block.split("```")[0]) for block in blocks]


@pytest.mark.parametrize("path", ["README.md", "docs/mesh.md", "docs/faults.md"])
def test_the_manifests_in_the_documents_are_taken(kubectl: Callable[..., str], namespace: str, path: str) -> None:
    manifests = _manifests(ROOT / path)
    assert manifests
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace  # type: ignore[index]
        kubectl("apply", "--dry-run=server", "-f", "-", input=yaml.safe_dump(manifest))


def test_the_commands_of_the_documents_do_what_they_say(app: App) -> None:
    app.create()
    app.adopt({"weight": 10, "for": "10m"}, {"weight": 50, "for": "10m"}, {"approval": "look at the dashboards"})
    namespace = ("-n", app.namespace)
    app.cluster.kubectl("set", "env", "deployment/web", "VERSION=v2", *namespace)
    app.wait_weight(10)
    assert "10 %" in app.cluster.serinus("status", "web", *namespace).stdout
    assert "web" in app.cluster.serinus("list", *namespace).stdout
    app.cluster.serinus("pause", "web", *namespace)
    app.cluster.serinus("resume", "web", *namespace)
    app.cluster.serinus("promote", "web", *namespace)
    app.wait_weight(50)
    app.cluster.serinus("promote", "web", *namespace)
    eventually(lambda: "waits for approval" in app.status()["message"], "the approval is waited for", 30)
    done = app.cluster.serinus("abort", "web", *namespace, "--wait", check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    app.wait_phase("Failed")
    app.cluster.serinus("retry", "web", *namespace)
    app.wait_weight(10)
    app.cluster.serinus("promote", "web", *namespace)
    app.wait_weight(50)
    app.cluster.serinus("promote", "web", *namespace)
    eventually(lambda: "waits for approval" in app.status()["message"], "the approval is waited for", 30)
    done = app.cluster.serinus("approve", "web", *namespace, "--wait", timeout_s=120)
    assert done.returncode == 0
    assert app.ready()
    app.cluster.kubectl("wait", "--for=condition=Ready", "canary/web", *namespace, "--timeout=30s")
    app.cluster.kubectl("rollout", "status", "deployment/web", *namespace, "--timeout=30s")
