"""Releases from outside, under constant load: adopted, promoted, rolled back, superseded, suspended, deleted."""

import math
import time
from datetime import datetime

import pytest
from harness import App, Cluster, eventually

from serinus.kube import kinds

FAST = ({"weight": 10, "for": "2s"}, {"weight": 20, "for": "2s"}, {"weight": 30, "for": "2s"})


def unharmed(app: App, since: str) -> None:
    """No request failed because of us."""
    report = app.report(since)
    assert report["total"] > 0
    assert report["failed_by_us"] == 0, report["failed"][:5]


@pytest.mark.acceptance(1)
def test_adopting_a_deployment_under_load_restarts_nothing_and_changes_one_label(app: App) -> None:
    app.create()
    before, pods, since = app.cluster.get(kinds.DEPLOYMENT, "web", app.namespace), app.pods(), app.mark()
    began = time.monotonic()
    app.adopt(within_s=5)
    print(f"Ready after {time.monotonic() - began:.1f} s")
    after = app.cluster.get(kinds.DEPLOYMENT, "web", app.namespace)
    assert before
    assert after
    labels = dict(after["metadata"]["labels"])
    assert labels.pop("serinus.dev/canary") == "web"
    assert labels == before["metadata"]["labels"]
    assert after["spec"] == before["spec"]
    assert app.pods().keys() == pods.keys()
    assert app.restarts() == 0
    unharmed(app, since)


@pytest.mark.acceptance(2, 4)
def test_a_good_version_goes_through_all_weights_and_the_judged_pods_become_the_promoted_pods(app: App) -> None:
    app.create()
    app.adopt({"weight": 10, "for": "4s"}, {"weight": 20, "for": "4s"}, {"weight": 30, "for": "4s"})
    watch, since = app.watch(), app.mark()
    app.ship("v2")
    app.wait_phase("Promoting")
    eventually(lambda: app.status()["run"]["stage"] == "Open" or app.phase() != "Promoting", "gates open", 60, 0.05)
    judged = {name for name, pod in app.pods().items() if "serinus.dev/track" in pod["metadata"]["labels"]}
    began = time.monotonic()
    app.wait_promoted("v2")
    print(f"promoted by adoption in {time.monotonic() - began:.1f} s")
    eventually(lambda: app.leftovers() == [], "nothing of ours is left", 20)
    assert watch.weights == [0, 10, 20, 30, 100, 0]
    assert judged
    eventually(lambda: app.pods().keys() == judged, "the judged pods, and no others, serve", 30)
    assert app.restarts() == 0
    unharmed(app, since)
    answered = app.report(since)["versions"]
    assert answered["v2"]["requests"] > 0


@pytest.mark.acceptance(2)
def test_where_the_history_has_an_equal_template_the_target_rolls_out_by_itself(app: App) -> None:
    app.create()
    app.adopt({"weight": 50, "for": "1s"}, rollbackWindow="1s")
    app.ship("v2")
    app.wait_promoted("v2")
    since = app.mark()
    time.sleep(1)
    app.ship("v1")  # an equal template is in the history, and was promoted too long ago to be let through
    app.wait_promoted("v1")
    assert app.status()["run"]["native"] is True
    eventually(lambda: app.leftovers() == [], "nothing of ours is left", 30)
    unharmed(app, since)


@pytest.mark.long
@pytest.mark.acceptance(4)
def test_the_share_that_versions_answer_is_the_weight_at_every_step(app: App) -> None:
    app.create(replicas=3, rate=400)
    app.adopt(*({"weight": weight} for weight in (10, 50)), analysis={"minRequests": 1_000_000})
    app.ship("v2")
    for weight in (10, 50):
        app.wait_weight(weight)
        since = app.mark()
        eventually(lambda since=since: app.report(since)["total"] >= 10_000, "10,000 requests", 60, 1)  # type: ignore[misc]
        versions = app.report(since)["versions"]
        total = sum(counts["requests"] for counts in versions.values())
        share = versions["v2"]["requests"] / total
        sigma = math.sqrt(weight / 100 * (1 - weight / 100) / total)
        print(f"weight {weight}: {share:.4f} of {total}, {abs(share - weight / 100) / sigma:.1f} sigma")
        assert abs(share - weight / 100) < 3 * sigma
        app.cluster.serinus("promote", "web", "-n", app.namespace)


@pytest.mark.acceptance(5, 8)
def test_a_version_that_answers_500_is_rolled_back_and_setting_the_template_back_ends_it(app: App) -> None:
    app.create()
    app.adopt(*FAST)
    stable, since = app.pods(), app.mark()
    app.ship("v2", ERROR_RATE="1")
    app.wait_phase("Failed")
    stalled = app.condition("Stalled")
    assert stalled["status"] == "True"
    assert stalled["reason"] == "RolledBack"
    assert "success rate" in stalled["message"]
    assert "limit" in stalled["message"]
    eventually(lambda: app.pods().keys() == stable.keys(), "the stable pods, and no others", 30)
    report = app.report(since)
    bad = report["versions"]["v2"]
    print(f"bad answers: {report['bad_answers']}, first to last {bad['last_bad_at'] - bad['first_bad_at']:.2f} s")
    assert report["failed_by_us"] == 0
    settled = app.mark()
    app.ship("v1")
    eventually(app.ready, "Ready again", 30)
    assert app.status()["run"]["revision"] != app.status()["stable"]["revision"]
    assert app.phase() == "Ready"
    assert app.pods().keys() == stable.keys()
    assert app.restarts() == 0
    unharmed(app, settled)


@pytest.mark.acceptance(7)
@pytest.mark.parametrize("env", [{"NEVER_READY": "true"}, {"CRASH_AFTER": "1s"}], ids=["never ready", "crash loop"])
def test_a_version_whose_pods_do_not_become_ready_in_time_gets_no_request(app: App, env: dict[str, str]) -> None:
    app.create()
    app.adopt(*FAST, progressDeadline="8s")
    since = app.mark()
    app.ship("v2", READY_AFTER="20s", **env)
    status = app.wait_phase("Failed")
    assert status["run"]["cause"] == "ProgressDeadlineExceeded"
    report = app.report(since)
    assert "v2" not in report["versions"]
    assert report["failed_by_us"] == 0


@pytest.mark.acceptance(7)
def test_a_missing_image_is_named_in_the_verdict(app: App) -> None:
    app.create(caller=False)
    app.adopt(*FAST, progressDeadline="8s")
    body = app.deployment("v2")
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "localhost/no-such-image:v1"
    app.cluster.apply(body)
    status = app.wait_phase("Failed")
    assert status["run"]["cause"] == "ProgressDeadlineExceeded"
    assert "Image" in status["message"] or "ErrImage" in status["message"], status["message"]


@pytest.mark.acceptance(10)
def test_a_template_set_back_in_the_middle_of_a_run_ends_it_without_another(app: App) -> None:
    app.create()
    app.adopt({"weight": 20, "for": "10m"})
    since = app.mark()
    app.ship("v2")
    app.wait_weight(20)
    run = app.status()["run"]["id"]
    app.ship("v1")
    eventually(app.ready, "Ready again", 60)
    status = app.status()
    assert status["run"]["id"] == run
    assert status["run"]["cause"] == "Aborted"
    assert app.leftovers() == []
    unharmed(app, since)


@pytest.mark.acceptance(11)
def test_a_newer_version_takes_the_place_of_the_one_that_is_being_judged(app: App) -> None:
    app.create()
    app.adopt({"weight": 20, "for": "5s"})
    since = app.mark()
    app.ship("v2")
    app.wait_weight(20)
    first = app.status()["run"]["id"]
    app.ship("v3", READY_AFTER="2s")
    eventually(lambda: app.status()["run"]["id"] != first, "a run of its own", 60)
    assert app.status()["run"]["weight"] == 0
    app.wait_promoted("v3")
    unharmed(app, since)


@pytest.mark.acceptance(13)
def test_only_what_was_judged_is_promoted_when_the_template_changes_at_that_moment(app: App) -> None:
    app.create()
    app.adopt({"weight": 50, "for": "1s"})
    since = app.mark()
    watch = app.watch()
    app.ship("v2")
    eventually(lambda: app.phase() == "Promoting", "the promotion begins", 60, 0.05)
    judged = app.status()["run"]["revision"]
    app.ship("v3")
    app.wait_promoted("v3", 120)
    newest = app.status()["stable"]["revision"]
    assert newest != judged
    for status in watch.seen:  # v3 is stable only after a run of its own, and gets a share only in that run
        run = status.get("run") or {}
        if status["stable"]["revision"] == newest:
            assert run["revision"] == newest
        if run and run["revision"] != newest:
            assert status["stable"]["revision"] != newest
    first_of_v3 = app.report(since)["versions"]["v3"]["first_at"]
    began = next(
        status["run"]["startedAt"] for status in watch.seen if (status.get("run") or {}).get("revision") == newest
    )
    assert first_of_v3 > datetime.fromisoformat(began).timestamp()
    unharmed(app, since)


@pytest.mark.acceptance(16)
def test_a_suspended_release_neither_moves_nor_writes_and_goes_on_with_its_evidence(app: App) -> None:
    app.create()
    app.adopt({"weight": 20, "for": "6s"})
    app.ship("v2")
    app.wait_weight(20)
    eventually(lambda: _counted(app) > 20, "some evidence", 30)
    app.cluster.patch(kinds.CANARY, "web", app.namespace, {"spec": {"suspend": True}})
    app.wait_phase("Suspended")
    before = app.cluster.get(kinds.CANARY, "web", app.namespace)
    events = app.events()
    time.sleep(8)
    after = app.cluster.get(kinds.CANARY, "web", app.namespace)
    assert before
    assert after
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert app.events() == events
    counted = _counted(app)
    app.cluster.patch(kinds.CANARY, "web", app.namespace, {"spec": {"suspend": False}})
    eventually(lambda: app.phase() != "Suspended", "it goes on", 20)
    assert app.status()["weight"] == 20
    assert _counted(app) >= counted
    app.wait_promoted("v2")


def _counted(app: App) -> int:
    evidence = app.status()["run"].get("evidence") or {}
    return int(evidence["total"][0][0]) if evidence else 0


@pytest.mark.acceptance(17)
@pytest.mark.parametrize("moment", ["idle", "at 30 %", "while promoting", "after a rollback"])
def test_deleting_the_canary_leaves_the_workload_serving_and_nothing_of_ours(app: App, moment: str) -> None:
    app.create()
    app.adopt({"weight": 30, "for": "1s" if moment == "while promoting" else "10m"})
    since = app.mark()
    if moment != "idle":
        app.ship("v2", ERROR_RATE="1" if moment == "after a rollback" else "0")
    if moment == "at 30 %":
        app.wait_weight(30)
    elif moment == "while promoting":
        eventually(lambda: app.phase() == "Promoting", "the promotion begins", 60, 0.05)
    elif moment == "after a rollback":
        app.wait_phase("Failed")
    app.cluster.kubectl("delete", "canary", "web", "-n", app.namespace, "--timeout=60s", timeout_s=70)
    target = app.cluster.get(kinds.DEPLOYMENT, "web", app.namespace)
    assert target
    assert "serinus.dev/canary" not in target["metadata"]["labels"]
    eventually(lambda: app.leftovers() == [], "nothing of ours is left", 30)
    held = target["spec"].get("paused", False)
    if moment in ("idle", "while promoting"):
        assert held is False or moment == "while promoting"
    else:
        assert held is True
        assert any("kubectl rollout resume deployment/web" in event for event in app.events("Deleted"))
    time.sleep(2)
    report = app.report(since)
    assert report["failed_by_us"] == 0, report["failed"][:5]


@pytest.mark.acceptance(19)
def test_two_promotes_at_once_pass_one_pause(app: App, cluster: Cluster) -> None:
    app.create()
    app.adopt({"weight": 10, "for": "10m"}, {"weight": 20, "for": "10m"}, {"weight": 30, "for": "10m"})
    app.ship("v2")
    app.wait_weight(10)
    run = app.status()["run"]
    for token in ("one", "two"):
        body = f'{{"verb": "promote", "run": "{run["id"]}", "step": {run["step"]}, "by": "test", "at": "{token}"}}'
        cluster.patch(
            kinds.CANARY, "web", app.namespace, {"metadata": {"annotations": {f"command.serinus.dev/{token}": body}}}
        )
    app.wait_weight(20)
    eventually(lambda: len(app.status().get("commands") or []) == 2, "both are answered", 20)
    time.sleep(3)
    assert app.status()["weight"] == 20
    results = sorted(handled["result"] for handled in app.status()["commands"])
    assert sum("nothing to do" in result for result in results) == 1
    canary = cluster.get(kinds.CANARY, "web", app.namespace)
    assert canary
    assert not any(key.startswith("command.") for key in canary["metadata"].get("annotations") or {})
