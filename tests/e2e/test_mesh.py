"""The data path under load: weights move, pods crash, restart and start alone, and no request fails because of us."""

import json
import uuid
from collections.abc import Iterator

import pytest
from driving import (
    Killer,
    away,
    candidates,
    changes,
    crash_candidate,
    evidence,
    manage,
    restart_rolling,
    retries,
    stable_failures,
    sweep_weights,
)
from harness import App, Cluster, Object, eventually

BY_HAND = {"minRequests": 1_000_000}
"""So much evidence is never there: steps end by command only."""


def unharmed(app: App, since: str) -> None:
    """No request failed because of us, and enough were sent to tell."""
    report = app.report(since)
    assert report["total"] > 100
    assert report["failed_by_us"] == 0, report["failed"][:5]


@pytest.fixture
def killer(cluster: Cluster) -> Iterator[Killer]:
    killer = Killer(cluster)
    yield killer
    killer.close()


@pytest.mark.alone
@pytest.mark.acceptance(31)
def test_no_request_fails_over_200_weight_changes_then_promotion_rollback_and_supersession(app: App) -> None:
    app.create(rate=500)
    app.adopt(*({"weight": weight} for weight in range(1, 51)), analysis=BY_HAND)
    watch, since = app.watch(), app.mark()
    app.ship("v2")
    sweep_weights(app, watch, steps=50, climbs=4)
    app.wait_promoted("v2")
    assert changes(watch) > 200
    unharmed(app, since)
    since = app.mark()
    app.ship("v3", ERROR_RATE="1")
    app.wait_phase("Failed")
    app.ship("v4")
    app.wait_weight(1)
    superseded = app.status()["run"]["id"]
    app.ship("v5")
    eventually(lambda: app.status()["run"]["id"] != superseded, "v5 gets a run of its own", 60)
    app.wait_weight(1)
    eventually(lambda: app.report(since)["versions"].get("v5"), "v5 gets requests", 30)
    unharmed(app, since)


@pytest.mark.acceptance(63)
def test_a_candidate_that_crashes_four_times_costs_no_request_and_every_failed_try_is_evidence(
    app: App, killer: Killer
) -> None:
    app.create(rate=200)
    app.adopt({"weight": 50}, analysis={**BY_HAND, "successRate": {"min": 0, "maxDrop": 100}})
    before = retries(app)  # while the application started, on a busy machine
    app.ship("v2")
    app.wait_weight(50)
    pods, since = candidates(app), app.mark()
    died = crash_candidate(app, killer)
    assert died >= 4 * len(pods)
    assert candidates(app) == pods
    assert app.status()["weight"] == 50
    unharmed(app, since)
    assert app.report(since)["bad_answers"] == 0
    tried_again = retries(app) - before
    print(f"{died} containers died; {tried_again} requests were tried again on stable")
    assert tried_again > 0

    def booked() -> bool:  # on a busy machine a stable pod may fail a try too, and that is not the candidate's
        print(f"evidence: candidate {evidence(app)}, stable's failed tries {stable_failures(app)}")
        return evidence(app)[1] + stable_failures(app) == tried_again

    eventually(booked, f"{tried_again} failed tries in the evidence", 10, 1)
    assert evidence(app)[1] > 0.9 * tried_again


@pytest.mark.long
@pytest.mark.acceptance(64)
def test_no_request_fails_over_five_rolling_restarts_of_apps_that_exit_at_once_and_that_drain(cluster: Cluster) -> None:
    apps = {how: App(cluster, f"t-{how}-{uuid.uuid4().hex[:8]}") for how in ("now", "drain")}
    try:
        for how, app in apps.items():
            app.create(rate=150, EXIT_ON_TERM=how)
            manage(app)
        pods = {how: set(app.pods()) for how, app in apps.items()}
        since = {how: app.mark() for how, app in apps.items()}
        restart_rolling(list(apps.values()), times=5)
        for how, app in apps.items():
            assert not pods[how] & set(app.pods())
            unharmed(app, since[how])
    finally:
        for app in apps.values():
            app.close()


@pytest.mark.alone
@pytest.mark.acceptance(65)
def test_a_meshed_pod_that_starts_while_the_operator_is_away_reaches_everything_and_calls_stable(
    app: App, cluster: Cluster
) -> None:
    app.create()
    plain = app.service("plain")
    plain["spec"]["selector"] = {"app": "web"}
    plain["spec"]["ports"] = [{"name": "raw", "port": 7000, "targetPort": "http"}]
    cluster.apply(plain)
    app.adopt({"weight": 50}, analysis=BY_HAND)
    app.ship("v2")
    app.wait_weight(50)
    stable = {name for name, pod in app.pods().items() if "serinus.dev/track" not in pod["metadata"]["labels"]}
    injected = next(iter(app.pods("app=caller").values()))
    since = app.mark()
    with away(cluster):
        cluster.apply(alone(injected))
        cluster.kubectl("wait", "pod/late", "-n", app.namespace, "--for=condition=Ready", "--timeout=60s")
        late = App(cluster, app.namespace)
        late.calls_from("late")
        late.rate(50)
        eventually(lambda: late.report()["total"] > 100, "the late caller gets answers", 30)
        report = late.report()
        assert report["failed_by_us"] == 0, report["failed"][:5]
        assert set(report["versions"]) == {"v1"}
        for url in ("http://plain:7000/", f"http://web.{app.namespace}.svc.cluster.local/"):
            assert answers(late, url) == {("v1", "200")}
        assert answers(late, "http://kubernetes.default:443/") == {("none", "400")}  # it is told to speak TLS
        assert {name for name in app.pods() if name in stable} == stable
    eventually(lambda: "v2" in late.report()["versions"], "the late caller gets its routes once we are back", 60)
    assert late.report()["failed_by_us"] == 0
    unharmed(app, since)


def answers(caller: App, url: str) -> set[tuple[str, str]]:
    """Return the versions and statuses that three requests from within the pod ``late`` get."""
    load = ["shop", "load", "--url", url, "--rate", "10", "--count", "3", "--duration", "5s", "--listen", "", "--exit"]
    said = caller.cluster.kubectl("exec", "late", "-n", caller.namespace, "-c", "load", "--", *load)
    report = json.loads(said[said.index("{") :])
    assert report["requests"] == 3
    return {(total["version"], total["outcome"]) for total in report["totals"]}


def alone(injected: Object) -> Object:
    """Return a pod as it was after injection, to be created anew under the name ``late`` with nobody to inject it.

    It opens a connection per request: one that is kept goes on as it began, without routes.
    """
    spec = {key: value for key, value in injected["spec"].items() if key != "nodeName"}
    granted = {volume["name"] for volume in spec["volumes"] if volume["name"].startswith("kube-api-access")}
    spec["volumes"] = [volume for volume in spec["volumes"] if volume["name"] not in granted]
    for kind in ("containers", "initContainers"):
        spec[kind] = [
            {**body, "volumeMounts": [m for m in body.get("volumeMounts") or [] if m["name"] not in granted]}
            for body in spec[kind]
        ]
    spec["containers"][0]["args"] += ["--connections", "fresh"]
    meta = injected["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": meta["namespace"],
            "name": "late",
            "labels": {"app": "late"},
            "annotations": meta.get("annotations") or {},
        },
        "spec": spec,
    }
