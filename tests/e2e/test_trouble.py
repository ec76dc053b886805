"""Releases while something is wrong: no operator, a killed operator, no Prometheus, meddlers, broken neighbours."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import prometheus
import pytest
import yaml
from driving import (
    Fleet,
    about,
    away,
    behave,
    candidates,
    command,
    evidence,
    in_operator,
    operator_metrics,
    operator_pod,
    operator_with,
)
from harness import BIN, ROOT, SYSTEM, App, Cluster, Object, eventually

from serinus.kube import kinds

BY_HAND = {"minRequests": 1_000_000}
"""So much evidence is never there: steps end by command only."""


def unharmed(app: App, since: str) -> None:
    """No request failed because of us."""
    report = app.report(since)
    assert report["total"] > 0
    assert report["failed_by_us"] == 0, report["failed"][:5]


def target(app: App) -> Object:
    """Return the Deployment as it is."""
    found = app.cluster.get(kinds.DEPLOYMENT, "web", app.namespace)
    assert found
    return found


# -- held without us

Tool = Callable[[App, str], None]


def client_side_apply(app: App, version: str) -> None:
    app.ship(version)


def server_side_apply(app: App, version: str) -> None:
    manifest = yaml.safe_dump(app.deployment(version))
    app.cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=gitops", "-f", "-", stdin=manifest
    )


def replace(app: App, version: str) -> None:
    app.cluster.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(app.deployment(version)))


def patch(app: App, version: str) -> None:
    containers = [{"name": "app", "env": [{"name": "VERSION", "value": version}]}]
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    app.cluster.kubectl("patch", "deployment", "web", "-n", app.namespace, "-p", json.dumps(change))


def set_image(app: App, version: str) -> None:
    app.cluster.kubectl("set", "image", "deployment/web", "app=localhost/serinus-shop:v1", "-n", app.namespace)
    patch(app, version)


def resync_with_paused_false(app: App, version: str) -> None:
    body = app.deployment(version)
    body["spec"]["paused"] = False
    app.cluster.apply(body)
    app.cluster.apply(body)


def resume(app: App, version: str) -> None:
    patch(app, version)
    app.cluster.kubectl("rollout", "resume", "deployment/web", "-n", app.namespace, check=False)


TOOLS: tuple[Tool, ...] = (
    client_side_apply,
    server_side_apply,
    replace,
    patch,
    set_image,
    resume,
    resync_with_paused_false,
)


@pytest.mark.alone
@pytest.mark.acceptance(3)
def test_a_change_is_held_without_us_whatever_the_tool_and_native_waiting_ends_with_its_promotion(
    app: App, cluster: Cluster
) -> None:
    app.create()
    app.adopt({"weight": 50, "for": "3s"})
    stable, since = app.pods(), app.mark()
    run_before = app.status().get("run")
    versions = {tool: f"v{number}" for number, tool in enumerate(TOOLS, start=2)}
    with away(cluster):
        for tool, version in versions.items():
            tool(app, version)
            held = target(app)
            assert version in json.dumps(held["spec"]["template"]), tool.__name__
            assert held["spec"].get("paused") is True, f"{tool.__name__} released the template"
            assert held["metadata"]["labels"]["serinus.dev/canary"] == "web", f"{tool.__name__} took the label"
        last = versions[TOOLS[-1]]
        waiting = subprocess.Popen(
            [str(BIN / "kubectl"), "rollout", "status", "deployment/web", "-n", app.namespace, "--timeout=240s"],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(3)
        assert waiting.poll() is None
        assert app.pods().keys() == stable.keys()
        assert app.status().get("run") == run_before
    eventually(lambda: (app.status().get("run") or {}).get("weight") == 50, "the run begins", 60)
    assert waiting.poll() is None
    assert set(app.report(since)["versions"]) <= {"v1", last}
    app.wait_promoted(last)
    assert waiting.wait(60) == 0
    unharmed(app, since)


# -- ways past the hold


@pytest.mark.acceptance(61)
def test_an_emergency_undo_to_the_revision_promoted_before_is_released_at_once_without_a_run(app: App) -> None:
    app.create()
    app.adopt({"weight": 50, "for": "1s"})
    app.ship("v2")
    app.wait_promoted("v2")
    run, since = app.status()["run"]["id"], app.mark()
    began = time.monotonic()
    app.ship("v1")
    eventually(lambda: not target(app)["spec"].get("paused"), "v1 is released", 10, 0.05)
    print(f"released after {time.monotonic() - began:.2f} s")
    app.wait_promoted("v1", 60)
    assert app.status()["run"]["id"] == run
    assert app.events("Released")
    unharmed(app, since)


@pytest.mark.long
@pytest.mark.acceptance(61)
def test_what_gets_past_the_hold_rolls_out_natively_and_is_reported_as_bypassed(app: App) -> None:
    app.create()
    app.adopt({"weight": 50}, analysis=BY_HAND)
    since = app.mark()
    app.ship("v2")
    app.wait_weight(50)
    run, gone = app.status()["run"]["id"], ["annotate", "deployment", "web", "-n", app.namespace]
    app.cluster.kubectl(*gone, "serinus.dev/break-glass=the judge is wrong")
    app.cluster.kubectl("rollout", "resume", "deployment/web", "-n", app.namespace)
    app.cluster.kubectl("rollout", "status", "deployment/web", "-n", app.namespace, "--timeout=60s", timeout_s=70)
    app.wait_promoted("v2")
    assert app.status()["run"]["id"] == run
    assert app.status()["run"]["cause"] == "Bypassed"
    assert any("rolled out without a run" in event for event in app.events("Bypassed"))
    eventually(lambda: app.leftovers() == [], "nothing of ours is left", 30)
    unharmed(app, since)
    stable = app.status()["stable"]["revision"]
    app.cluster.kubectl("delete", "deployment", "web", "-n", app.namespace, "--timeout=60s", timeout_s=70)
    eventually(lambda: app.condition("Stalled").get("reason") == "TargetNotFound", "it says what is missing", 20)
    app.cluster.apply(app.deployment("v3"))
    app.wait_promoted("v3", 60)
    assert app.status()["run"]["id"] == run
    assert app.status()["stable"]["revision"] != stable
    assert len([event for event in app.events("Bypassed") if "rolled out without a run" in event]) == 2


# -- meddling


@pytest.mark.acceptance(27)
def test_what_others_do_to_our_objects_is_repaired_and_the_weight_stays(app: App) -> None:
    app.create()
    app.adopt({"weight": 20}, analysis=BY_HAND)
    app.ship("v2")
    app.wait_weight(20)
    watch, since, namespace = app.watch(), app.mark(), app.namespace
    run, twin = app.status()["run"]["id"], _twin(app)
    size = twin["spec"]["replicas"]
    name, kubectl = twin["metadata"]["name"], app.cluster.kubectl

    def repaired(what: str, look: Callable[[], object]) -> None:
        began = time.monotonic()
        eventually(look, f"{what} is repaired", 5, 0.02)
        print(f"{what}: repaired after {time.monotonic() - began:.2f} s")

    kubectl("scale", "replicaset", name, "-n", namespace, "--replicas=0")
    repaired("a scaled twin", lambda: _twin(app)["spec"]["replicas"] == size)
    kubectl("annotate", "service", "web-canary", "-n", namespace, "example.com/owner=somebody")
    change = '{"spec": {"selector": {"app": "elsewhere"}}}'
    kubectl("patch", "service", "web-canary", "-n", namespace, "--type=merge", "-p", change)
    repaired("an edited Service", lambda: _service(app)["spec"]["selector"] == twin["spec"]["selector"]["matchLabels"])
    assert _service(app)["metadata"]["annotations"]["example.com/owner"] == "somebody"
    kubectl("delete", "service", "web-canary", "-n", namespace)
    repaired("a deleted Service", lambda: app.cluster.get(kinds.SERVICE, "web-canary", namespace))
    kubectl("delete", "replicaset", name, "-n", namespace, "--wait=false")
    repaired("a deleted twin", lambda: _twin(app).get("metadata", {}).get("uid") not in (None, twin["metadata"]["uid"]))
    eventually(lambda: _twin(app)["status"].get("replicas") == size, "the twin's pods are there", 30)
    before = app.mark()
    eventually(lambda: app.report(before)["versions"].get("v2"), "v2 gets its share again", 60)
    assert watch.weights == [20]
    assert app.status()["run"]["id"] == run
    unharmed(app, since)


def _twin(app: App) -> Object:
    owned = app.cluster.list(kinds.REPLICA_SET, app.namespace, "serinus.dev/owned-by=web")
    return next((body for body in owned if "deletionTimestamp" not in body["metadata"]), {})


def _service(app: App) -> Object:
    return app.cluster.get(kinds.SERVICE, "web-canary", app.namespace) or {"spec": {"selector": None}}


# -- evidence


@pytest.mark.acceptance(36)
def test_the_first_three_answers_of_a_candidate_are_in_the_evidence_when_they_are_errors(app: App) -> None:
    app.create(rate=20)
    app.adopt({"weight": 50}, analysis=BY_HAND)
    app.rate(0)
    app.ship("v2", ERROR_RATE="1")
    app.wait_weight(50)
    since = app.mark()
    app.rate(4)
    eventually(lambda: _bad(app, since) >= 3, "the candidate answers three times", 30, 0.05)
    app.rate(0)
    for pod in candidates(app):
        behave(app, pod, "error-rate", "0")
    time.sleep(0.5)
    bad = _bad(app, since)
    app.rate(50)
    eventually(lambda: app.report(since)["versions"]["v2"]["requests"] > bad + 50, "good answers follow", 30)
    app.rate(0)
    time.sleep(0.5)
    versions = app.report(since)["versions"]
    assert versions["v2"]["bad_answers"] == bad
    exactly = (versions["v2"]["requests"], bad)
    eventually(lambda: evidence(app) == exactly, f"tries and failures in the evidence are {exactly}", 10)
    assert app.status()["run"]["verdict"] != "Harm"


def _bad(app: App, since: str) -> int:
    return int((app.report(since)["versions"].get("v2") or {}).get("bad_answers", 0))


@pytest.mark.acceptance(35)
def test_a_metrics_source_that_is_away_is_no_verdict_and_the_release_goes_on_when_it_is_back(app: App) -> None:
    app.create()
    source = prometheus.install(app)
    metric = {"name": "alive", "query": "sum(up)", "min": 1}
    app.adopt(
        {"weight": 20},
        {"weight": 50, "for": "2s"},
        analysis={"interval": "1s", "prometheus": source, "metrics": [metric], "minRequests": 20},
    )
    _scale(app, "prometheus", 0)
    app.ship("v2")
    app.wait_weight(20)
    run = app.status()["run"]["id"]
    eventually(lambda: app.condition("Ready").get("reason") == "MetricsUnavailable", "it says what is missing", 30)
    began, looks = time.monotonic(), 0
    while time.monotonic() < began + 10:
        status = app.status()
        assert status["weight"] == 20
        assert status["phase"] in ("Analysing", "Waiting"), status
        assert all(found["verdict"] != "Harm" for found in status["run"]["metrics"])
        looks += 1
        time.sleep(0.5)
    assert looks > 10
    alive = next(found for found in app.status()["run"]["metrics"] if found["name"] == "alive")
    assert alive["outcome"] in ("Unreachable", "Timeout")
    _scale(app, "prometheus", 1)
    app.wait_promoted("v2", 90)
    assert app.status()["run"]["id"] == run


def _scale(app: App, name: str, replicas: int) -> None:
    app.cluster.kubectl("scale", f"deployment/{name}", "-n", app.namespace, f"--replicas={replicas}")
    ready = lambda: len(app.pods(f"app={name}")) == replicas  # noqa: E731
    eventually(ready, f"{name} has {replicas} pods", 30)


# -- many Canaries


@pytest.fixture(scope="module")
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    """Fifty idle Canaries, each with one pod."""
    fleet = Fleet(cluster, 50, replicas=1)
    yield fleet
    fleet.close()


OTHER_VERSION = (
    "import serinus, sys; serinus.__version__ = '99.0.0'; sys.argv = ['serinus', 'operator']; "
    "from serinus.cli import main; main()"
)


@pytest.mark.alone
@pytest.mark.acceptance(18)
def test_an_operator_of_another_version_starts_no_run_and_changes_no_object_of_fifty_idle_canaries(
    fleet: Fleet, cluster: Cluster
) -> None:
    before = fleet.rest()

    def change(container: Object) -> None:
        container["command"] = ["python", "-c", OTHER_VERSION]

    with operator_with(cluster, change):
        logs = eventually(lambda: _logged(cluster, "99.0.0"), "an operator of version 99.0.0 leads", 30)
        assert logs
        time.sleep(5)
        assert fleet.versions() == before
    time.sleep(3)
    assert fleet.versions() == before


def _logged(cluster: Cluster, word: str) -> bool:
    return word in cluster.kubectl("logs", operator_pod(cluster), "-n", SYSTEM)


@pytest.mark.alone
@pytest.mark.acceptance(58)
def test_the_other_49_canaries_do_not_notice_one_that_is_broken(fleet: Fleet, cluster: Cluster) -> None:
    broken, shipped, before = fleet.names[0], fleet.names[1], fleet.rest()
    fleet.ship(broken, "v2")
    eventually(lambda: fleet.status(broken).get("phase") == "Waiting", "a run of the one begins", 30)
    nonsense = [
        {"op": "replace", "path": "/status/run/evidence", "value": {"reader": "nonsense", "before": "nonsense"}}
    ]
    cluster.patch(kinds.CANARY, broken, fleet.namespace, nonsense, subresource="status")
    eventually(lambda: f'"canary:{fleet.namespace}/{broken}"' in _errors(cluster), "its reconcile fails", 30)
    fleet.ship(shipped, "v2")
    eventually(lambda: fleet.status(shipped).get("phase") in ("Analysing", "Waiting"), "another begins a run", 30)
    cluster.serinus("promote", shipped, "-n", fleet.namespace, "--full")
    eventually(lambda: fleet.status(shipped)["phase"] == "Ready", "and is promoted", 60)
    cluster.kubectl("delete", "pod", operator_pod(cluster), "-n", SYSTEM, "--wait=true", timeout_s=60)
    operator_pod(cluster)
    fleet.ship(shipped, "v3")
    eventually(lambda: fleet.status(shipped).get("phase") in ("Analysing", "Waiting"), "also after a restart", 60)
    after = fleet.versions()
    unchanged = about(about(before, broken), shipped)
    assert about(about(after, broken), shipped) == unchanged
    assert len([key for key in unchanged if key.startswith("Canary/")]) == 48


def _errors(cluster: Cluster) -> str:
    logs = cluster.kubectl("logs", operator_pod(cluster), "-n", SYSTEM).splitlines()
    return "\n".join(line for line in logs if '"reconcile failed' in line)


# -- the operator itself


@pytest.mark.alone
@pytest.mark.acceptance(60)
def test_the_operator_needs_no_more_than_the_rights_and_the_file_system_that_deploy_gives_it(
    app: App, cluster: Cluster
) -> None:
    installed = list(yaml.safe_load_all((ROOT / "deploy" / "base" / "rbac.yaml").read_text()))
    for body in installed:
        if body["kind"] in ("ClusterRole", "Role"):
            path = ["-n", SYSTEM] if body["kind"] == "Role" else []
            present = json.loads(cluster.kubectl("get", body["kind"], "serinus", *path, "-o", "json"))
            assert present["rules"] == body["rules"], f"{body['kind']} is not as in deploy/"
    bindings = json.loads(cluster.kubectl("get", "clusterrolebindings,rolebindings", "-A", "-o", "json"))["items"]
    granted = [
        (binding["kind"], binding["metadata"]["name"])
        for binding in bindings
        for subject in binding.get("subjects") or []
        if (subject["kind"], subject["name"]) == ("ServiceAccount", "serinus") and subject["namespace"] == SYSTEM
    ]
    assert sorted(granted) == [("ClusterRoleBinding", "serinus"), ("RoleBinding", "serinus")]
    assert in_operator(cluster, "id", "-u").strip() == "65532"
    assert "Read-only file system" in in_operator(cluster, "touch", "/opt/serinus/x", check=False)
    assert "NoNewPrivs:\t1" in in_operator(cluster, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in in_operator(cluster, "cat", "/proc/1/status")
    app.create(caller=False)
    app.adopt({"weight": 50})
    app.ship("v2")
    app.wait_weight(50)
    command(app, "promote", full=True)
    app.wait_promoted("v2")
    app.ship("v3")
    app.wait_weight(50)
    command(app, "abort")
    app.wait_phase("Failed")
    app.cluster.kubectl("delete", "canary", "web", "-n", app.namespace, "--timeout=60s", timeout_s=70)
    logs = cluster.kubectl("logs", operator_pod(cluster), "-n", SYSTEM)
    assert [line for line in logs.splitlines() if "(403)" in line or "orbidden" in line] == []
    refused = [key for key, count in operator_metrics(cluster).items() if 'outcome="rejected"' in key and count]
    assert [key for key in refused if 'kind="Pod"' not in key] == []  # a pod that lost our label before we took it


@pytest.mark.acceptance(60)
@pytest.mark.parametrize(
    "words",
    [
        "get secrets -n default",
        "list secrets -n serinus-system",
        "create pods -n default",
        "delete pods -n default",
        "create pods --subresource=exec -n default",
        "delete deployments.apps -n default",
        "create deployments.apps -n default",
        "delete canaries.serinus.dev -n default",
        "update mutatingwebhookconfigurations/others",
        "create clusterrolebindings",
        "impersonate users",
        "get nodes",
        "update configmaps -n kube-system",
    ],
)
def test_the_operator_may_not(cluster: Cluster, words: str) -> None:
    account = f"--as=system:serviceaccount:{SYSTEM}:serinus"
    assert cluster.kubectl("auth", "can-i", *words.split(), account, check=False).splitlines()[0] == "no"


@pytest.mark.alone
@pytest.mark.acceptance(53)
def test_a_release_ends_the_same_when_the_operator_is_killed_after_every_single_write(
    app: App, cluster: Cluster
) -> None:
    app.create()
    app.adopt({"weight": 20}, {"weight": 50})
    crashing = Path(__file__).with_name("crashing.py").read_text()

    def change(container: Object) -> None:
        container["command"] = ["python", "-c", crashing]
        container["env"] += [{"name": "CRASH_NAMESPACE", "value": app.namespace}]

    with operator_with(cluster, change):
        watch, since = app.watch(), app.mark()
        app.ship("v2")
        app.wait_promoted("v2", 240)
        eventually(lambda: app.leftovers() == [], "nothing of ours is left", 60)
        good, runs = watch.weights, _runs(watch.seen)
        unharmed(app, since)
        app.ship("v3", ERROR_RATE="1")
        status = app.wait_phase("Failed", within_s=120)
        killed = in_operator(cluster, "cat", "/tmp/killed").splitlines()
    assert good == [0, 20, 50, 100, 0]
    assert len(runs) == 1
    assert next(iter(runs.values())) == [0, 1, 2]
    assert status["run"]["cause"] == "RolledBack"
    assert app.report(since)["failed_by_us"] == 0, app.report(since)["failed"][:5]
    print(f"killed {len(killed)} times, after: " + "; ".join(killed))
    stages = {" ".join(place.split()[1:3]) for place in killed if place.startswith("status")}
    assert stages >= {
        "Preparing Scale",
        "Analysing Shift",
        "Waiting Judge",
        "Promoting Scale",
        "Promoting Shift",
        "Promoting Open",
        "Promoting Adopt",
        "Promoting Release",
        "Restoring Settle",
        "Restoring Shift",
        "Restoring Clean",
        "RollingBack Shift",
        "RollingBack Drain",
    }
    for words in ("create replicasets", "update replicasets", "patch deployments", "patch pods", "delete replicasets"):
        assert any(place.startswith(words) for place in killed), f"no kill after: {words}"


def _runs(seen: list[Object]) -> dict[str, list[int]]:
    """Return the steps that each run went through, in order, without repetitions in a row."""
    found: dict[str, list[int]] = {}
    for status in seen:
        run = status.get("run")
        if run:
            steps = found.setdefault(run["id"], [])
            if not steps or steps[-1] != run["step"]:
                steps.append(run["step"])
    return found
