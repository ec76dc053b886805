"""What a persisted status implies: routes, objects, and what is taken away."""

from dataclasses import fields, replace

import pytest

from serinus.api.names import LABEL_HASH, LABEL_OWNER, LABEL_TRACK, READINESS_GATE
from serinus.api.release import Phase, Promoted
from serinus.delivery import plan
from serinus.delivery.decide import decide
from serinus.delivery.model import Service, Snapshot
from serinus.delivery.project import Desired, Route, project
from serinus.delivery.revision import adopted_template, revision_of, twin_template

from .world import (
    NOW,
    OURS,
    REPLICAS,
    THEIRS,
    V1,
    V2,
    a_run,
    a_set,
    a_snapshot,
    a_spec,
    a_status,
    a_target,
    adopted,
    ago,
    analysing,
    meta,
    ordered,
    pods,
    promoting,
    template,
    twin,
    twin_pods,
)

PREPARING = analysing(plan.SCALE, phase=Phase.PREPARING, run_weight=0)
NO_TWIN = {"replicasets": (a_set("v1"),), "pods": pods("v1", REPLICAS)}
ROLLING_BACK = analysing(plan.SHIFT, phase=Phase.ROLLING_BACK, run_weight=0)
DRAINING = analysing(plan.DRAIN, phase=Phase.ROLLING_BACK, run_weight=0)
RESTORING = adopted(plan.SETTLE, phase=Phase.RESTORING, target=a_target("v2", paused=False, settled=True))
CLEANING = adopted(plan.CLEAN, phase=Phase.RESTORING, run_weight=0, target=a_target("v2", paused=False, settled=True))
FAILED = a_snapshot(a_status(Phase.FAILED, a_run("", weight=0), rejected=V2))
DELETED = meta(deleted_at=ago(1))


def mixed(old: int, judged: int, ready: int, held: str = "v3") -> Snapshot:
    """Beneath a newer template the target has pods of the stable and of the judged revision, so many of these ready."""
    return adopted(
        plan.NATIVE,
        replicasets=(a_set("v1", old), a_set("v2", judged)),
        target=a_target(held),
        pods=pods("v1", old) + pods("v2", ready) + pods("v2", judged, ready=False)[ready:],
    )


@pytest.mark.parametrize(
    ("snapshot", "route"),
    [
        pytest.param(a_snapshot(), Route(), id="idle: everything to the ready pods"),
        pytest.param(PREPARING, Route(0, V2, V2), id="preparing: the candidate is known and gets nothing"),
        pytest.param(analysing(), Route(10, V2, V2), id="analysing: the candidate has its share"),
        pytest.param(analysing(problems=("?",)), Route(10, V2, V2), id="an invalid spec leaves the share"),
        pytest.param(analysing(target=None), Route(10, V2, V2), id="a missing target leaves the share"),
        pytest.param(promoting(plan.SHIFT), Route(100, V2, V2), id="promoting: everything to the candidate"),
        pytest.param(promoting(plan.NATIVE), Route(100, V2, V2), id="native rollout: everything stays on the twin"),
        pytest.param(adopted(), Route(100, V2, V2), id="adopted: everything to the judged pods"),
        pytest.param(RESTORING, Route(100, V2, "", shifted=True), id="restoring: the judged pods are stable too"),
        pytest.param(CLEANING, Route(0, "", "", shifted=True), id="cleaning: the plain route"),
        pytest.param(ROLLING_BACK, Route(0, V2, V2), id="rolling back: nothing to the candidate, which stays known"),
        pytest.param(DRAINING, Route(0, "", V2), id="draining: no route names the candidate"),
        pytest.param(
            replace(ROLLING_BACK, replicasets=(a_set("v1"), a_set("v2"))),
            Route(0, V2, ""),
            id="rolling back what the target has taken: its pods are the target's",
        ),
        pytest.param(FAILED, Route(), id="failed: everything to the ready pods"),
        pytest.param(
            analysing(phase=Phase.SUSPENDED, status_changes={"suspended_phase": Phase.ANALYSING}),
            Route(10, V2, V2),
            id="suspended: the share stays",
        ),
        pytest.param(a_snapshot(meta=DELETED), None, id="deleted: the Service is none of our business"),
        pytest.param(replace(ROLLING_BACK, meta=DELETED), Route(0, V2, V2), id="deleted in a run: not yet"),
    ],
)
def test_route(snapshot: Snapshot, route: Route | None) -> None:
    assert project(snapshot).route == route


def test_an_idle_canary_wants_its_label_and_nothing_else():
    assert project(a_snapshot()) == Desired(route=Route(), label="web", delete_service="web-canary")


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        pytest.param({}, "web", id="is wanted"),
        pytest.param({"problems": ("?",)}, "", id="is left as it is while the spec is invalid"),
        pytest.param({"service": None}, "", id="is left as it is without a Service"),
        pytest.param({"service": Service("web", "headless")}, "", id="is left as it is when the Service is unusable"),
        pytest.param({"rival": "web-old"}, "", id="belongs to the older Canary"),
        pytest.param({"meta": DELETED}, None, id="goes with the Canary"),
        pytest.param({"meta": DELETED, "target": a_target("v2")}, None, id="goes from a template that stays held"),
        pytest.param(
            {"status": a_status(None, stable=None), "target": a_target("v3")},
            None,
            id="goes from a mixture that is paused before it is adopted, so that a person can resume it",
        ),
    ],
)
def test_the_label_on_the_target(parts, label):
    assert project(a_snapshot(**parts)).label == label


def test_a_rival_touches_nothing_but_its_requests():
    snapshot = a_snapshot(rival="web-old", meta=meta(annotations=ordered("abort")), replicasets=(twin(),))
    assert project(snapshot) == Desired()


def test_the_twin_is_the_targets_template_gated_tracked_and_invisible_to_the_target():
    wanted = project(replace(PREPARING, **NO_TWIN))
    made = next(body for body in wanted.create if body["kind"] == "ReplicaSet")
    assert made["metadata"]["name"] == f"web-{V2}"
    assert made["metadata"]["labels"] == {LABEL_OWNER: "web"}
    assert made["metadata"]["ownerReferences"][0]["uid"] == OURS
    assert made["spec"]["replicas"] == 2
    assert made["spec"]["selector"] == {"matchLabels": {LABEL_HASH: V2}}
    body = made["spec"]["template"]
    assert body["metadata"]["labels"] == {"app": "web", "team": "shop", LABEL_HASH: V2, LABEL_TRACK: "candidate"}
    assert body["spec"]["readinessGates"] == [{"conditionType": READINESS_GATE}]
    assert body["spec"]["containers"] == template("v2")["spec"]["containers"]
    assert revision_of(body) == V2


def test_labels_that_the_user_names_are_not_on_the_twins_pods():
    spec = a_spec(candidate={"withoutLabels": ["team"]})
    made = project(replace(PREPARING, spec=spec, **NO_TWIN)).create[0]
    assert "team" not in made["spec"]["template"]["metadata"]["labels"]


def test_a_service_reaches_the_candidate_by_name():
    (service,) = project(PREPARING).create
    assert service["kind"] == "Service"
    assert service["metadata"]["name"] == "web-canary"
    assert service["spec"]["selector"] == {LABEL_HASH: V2}
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080}]


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(replace(PREPARING, target=a_target("v3"), **NO_TWIN), id="holds another template"),
        pytest.param(replace(PREPARING, target=None, **NO_TWIN), id="is missing"),
        pytest.param(replace(ROLLING_BACK, **NO_TWIN), id="is being rolled back to"),
    ],
)
def test_no_twin_is_made_when_the_target(snapshot: Snapshot) -> None:
    assert all(body["kind"] != "ReplicaSet" for body in project(snapshot).create)


def test_a_twin_follows_the_size_that_the_status_asks_for():
    snapshot = analysing(run_replicas=3)
    assert project(replace(snapshot, replicasets=(a_set("v1"), twin(2)))).scale == ((twin(2), 3),)
    assert project(replace(snapshot, replicasets=(a_set("v1"), twin(3)))).scale == ()


def test_a_replicaset_that_the_target_has_taken_is_not_scaled():
    assert project(adopted(run_replicas=6)).scale == ()


def test_gates_open_when_the_candidate_enters_the_service_and_not_before():
    assert project(promoting(plan.SHIFT)).open_gates == ()
    shut = promoting(plan.OPEN, pods=pods("v1", 4) + twin_pods(2) + twin_pods(1, version="v3"))
    assert project(shut).open_gates == tuple(pod.name for pod in twin_pods(2))
    assert project(promoting(plan.NATIVE, run_native=True)).open_gates == ()


def test_a_pod_that_is_opened_already_is_not_opened_again():
    assert project(promoting(plan.OPEN)).open_gates == ()


def test_the_twin_is_rewritten_for_the_target_to_take():
    made = project(promoting(plan.ADOPT)).adopt
    assert made is not None
    owner = made["metadata"]["ownerReferences"]
    assert [(reference["kind"], reference["uid"]) for reference in owner] == [("Deployment", THEIRS)]
    assert made["metadata"]["resourceVersion"] == "3"
    assert made["metadata"]["labels"] == {"app": "web", "team": "shop", LABEL_HASH: V2}
    assert made["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] == "4"
    assert made["spec"]["template"] == adopted_template(template("v2"), V2)
    assert "status" not in made


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(promoting(plan.OPEN), id="the candidate is not in the Service yet"),
        pytest.param(promoting(plan.ADOPT, target=a_target("v3")), id="the target holds a newer template"),
        pytest.param(promoting(plan.ADOPT, target=a_target("v2", paused=False)), id="the target is not held"),
        pytest.param(adopted(plan.ADOPT), id="the target has taken it already"),
        pytest.param(promoting(plan.NATIVE), id="the rollout is native"),
    ],
)
def test_nothing_is_handed_over_when(snapshot: Snapshot) -> None:
    assert project(snapshot).adopt is None


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(a_snapshot(target=a_target("v1", paused=True)), id="the stable one"),
        pytest.param(
            a_snapshot(a_status(Phase.READY, released=V2), target=a_target("v2", replicas=0)),
            id="one released for want of pods",
        ),
        pytest.param(
            a_snapshot(
                a_status(Phase.READY, released=V2, history=[Promoted(revision=V2, at=ago(60))]), target=a_target("v2")
            ),
            id="one released since it was promoted before",
        ),
        pytest.param(adopted(plan.RELEASE), id="the judged one after the hand-over"),
        pytest.param(adopted(plan.RELEASE, target=a_target("v2", break_glass=True)), id="the judged one, for good"),
        pytest.param(promoting(plan.NATIVE), id="the judged one for the native rollout"),
        pytest.param(
            promoting(plan.NATIVE, target=a_target("v1", paused=True)), id="set back in the middle of a native rollout"
        ),
        pytest.param(replace(adopted(plan.RELEASE), meta=DELETED), id="the judged one while the Canary is deleted"),
        pytest.param(
            a_snapshot(target=a_target("v1", paused=True, labelled=False), meta=DELETED),
            id="the stable one before we go, though the label went first",
        ),
    ],
)
def test_the_target_is_released_with_a_template_that_is(snapshot: Snapshot) -> None:
    assert project(snapshot).release == snapshot.target


@pytest.mark.parametrize(
    "snapshot",
    [
        pytest.param(a_snapshot(target=a_target("v2")), id="idle and not looked at yet"),
        pytest.param(FAILED, id="refused"),
        pytest.param(
            a_snapshot(a_status(Phase.READY, released=V2), target=a_target("v2")),
            id="released for want of pods, which are there by now",
        ),
        pytest.param(replace(FAILED, meta=DELETED), id="refused, and the Canary is deleted"),
        pytest.param(analysing(), id="being judged"),
        pytest.param(promoting(plan.ADOPT), id="about to be handed over"),
        pytest.param(adopted(plan.RELEASE, target=a_target("v3")), id="newer than what was judged"),
        pytest.param(promoting(plan.NATIVE, target=a_target("v3")), id="newer than what was judged, natively"),
        pytest.param(adopted(plan.RELEASE, target=a_target("v1", paused=True)), id="older than what was judged"),
        pytest.param(DRAINING, id="rolled back"),
        pytest.param(a_snapshot(target=a_target("v1", paused=True, break_glass=True)), id="a person's by break-glass"),
        pytest.param(a_snapshot(a_status(None, stable=None), target=a_target("v1", paused=True)), id="not ours yet"),
        pytest.param(mixed(4, 1, 1), id="newer than what rolls out natively"),
    ],
)
def test_the_target_stays_paused_with_a_template_that_is(snapshot: Snapshot) -> None:
    assert project(snapshot).release is None


@pytest.mark.parametrize(
    ("snapshot", "scale"),
    [
        pytest.param(mixed(4, 1, 1), ((a_set("v2", 1), 2),), id="the judged one grows while it is the smaller one"),
        pytest.param(mixed(3, 2, 1), (), id="it does not grow faster than its pods become ready"),
        pytest.param(mixed(2, 3, 3), ((a_set("v1", 2), 1),), id="then the others shrink, as far as it can stand in"),
        pytest.param(mixed(2, 3, 2), (), id="others do not shrink before it can stand in"),
        pytest.param(mixed(1, 4, 4), ((a_set("v1", 1), 0),), id="and in the end they go"),
        pytest.param(mixed(1, 4, 4, "v1"), (), id="a template that was set back is the controller's own business"),
    ],
)
def test_a_mixture_is_finished_towards_the_judged_revision(snapshot: Snapshot, scale: tuple[object, ...]) -> None:
    assert project(snapshot).scale == scale


def test_scale_in_is_frozen_in_a_run_and_not_after_it():
    assert project(PREPARING).freeze
    assert project(promoting(plan.NATIVE)).freeze
    for over in (a_snapshot(), CLEANING, DRAINING, FAILED):
        assert not project(over).freeze


def test_the_twin_stays_as_long_as_a_route_names_it():
    for needed in (PREPARING, analysing(), promoting(plan.SHIFT), promoting(plan.NATIVE), ROLLING_BACK):
        assert project(needed).delete == ()
        assert project(needed).delete_service == ""
    for over in (DRAINING, replace(FAILED, replicasets=(a_set("v1"), twin()))):
        assert project(over).delete == (twin(),)
        assert project(over).delete_service == "web-canary"


def test_a_twin_of_an_older_run_goes():
    older = twin(2, pod_hash="older")
    assert project(replace(analysing(), replicasets=(a_set("v1"), twin(), older))).delete == (older,)


def test_twins_go_even_when_the_target_is_gone():
    assert project(replace(DRAINING, target=None)).delete == (twin(),)
    assert project(a_snapshot(meta=DELETED, target=None, replicasets=(twin(),))).delete == (twin(),)


def test_a_replicaset_that_the_target_has_taken_is_never_deleted():
    for snapshot in (adopted(), RESTORING, CLEANING):
        assert project(snapshot).delete == ()


def test_promoted_pods_lose_the_track_label_when_routes_do_not_need_it():
    assert project(RESTORING).untrack == ()
    assert project(CLEANING).untrack == tuple(pod.name for pod in pods("v2", REPLICAS))
    assert project(DRAINING).untrack == ()


def test_annotations_of_requests_that_were_dealt_with_go():
    both = {**ordered("pause", token="t1"), **ordered("resume", token="t2")}
    snapshot = analysing(meta=meta(annotations=both))
    handled = decide(snapshot, NOW).status
    assert project(replace(snapshot, status=handled)).commands_done == ("command.serinus.dev/t1",)


@pytest.mark.parametrize(
    "snapshot",
    [a_snapshot(), PREPARING, analysing(), promoting(plan.ADOPT), adopted(), RESTORING, CLEANING, DRAINING, FAILED],
    ids=["idle", "preparing", "analysing", "adopting", "adopted", "restoring", "cleaning", "draining", "failed"],
)
def test_the_same_status_projects_the_same_again_when(snapshot: Snapshot) -> None:
    assert project(snapshot) == project(snapshot)


def test_an_idle_canary_over_what_it_wants_writes_nothing():
    """What ``apply`` compares with the world is all there is; a field that is new must be thought of here."""
    desired = project(a_snapshot())
    quiet = {"route", "label", "delete_service"}
    for field in fields(Desired):
        if field.name not in quiet:
            assert not getattr(desired, field.name), field.name


def test_a_revision_does_not_depend_on_what_others_add_to_a_template():
    plain = template("v2")
    assert revision_of(twin_template(plain, "h", [])) == revision_of(adopted_template(plain, "h")) == revision_of(plain)
    created = template("v2")
    created["metadata"]["creationTimestamp"] = None
    assert revision_of(created) == revision_of(plain)
    assert revision_of(template("v1")) == V1 != revision_of(plain)


def test_a_users_own_readiness_gate_is_part_of_the_revision_and_kept():
    gated = template("v2")
    gated["spec"]["readinessGates"] = [{"conditionType": "example.com/lb"}]
    assert revision_of(gated) != V2
    made = twin_template(gated, "h", [])
    assert made["spec"]["readinessGates"] == [{"conditionType": "example.com/lb"}, {"conditionType": READINESS_GATE}]
    assert adopted_template(made, "h")["spec"]["readinessGates"] == [{"conditionType": "example.com/lb"}]


def test_a_promoted_revision_is_projected_by_the_new_status_alone():
    status = a_status(Phase.READY, a_run(""), stable=Promoted(revision=V2, at=ago(1)))
    snapshot = a_snapshot(status, target=a_target("v2", paused=False, settled=True), replicasets=(a_set("v2"),))
    wanted = project(snapshot)
    assert wanted == Desired(route=Route(), label="web", delete_service="web-canary", record=wanted.record)
