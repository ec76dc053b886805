"""How a run ends, as tables: promoted, rolled back, superseded, set back; and from which stages."""

from dataclasses import replace

import pytest

from serinus.api.release import Promoted
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.finishing import LAGGARDS_S
from serinus.delivery.model import Autoscaler

from .tables import Case, check, table
from .world import (
    FAILED,
    GONE,
    GOOD,
    PREPARING,
    PROMOTING,
    READY,
    REPLICAS,
    RESTORING,
    ROLLING_BACK,
    STAGES_BEYOND,
    STAGES_OF_A_RUN,
    V1,
    V2,
    V3,
    a_run,
    a_set,
    a_snapshot,
    a_spec,
    a_status,
    a_target,
    acknowledged,
    adopted,
    ago,
    failed,
    look,
    meta,
    numbered,
    ordered,
    pods,
    promoting,
    restoring,
    rolling_back,
    twin,
    twin_pods,
)


@table(
    Case(
        "all pods are waited for",
        promoting(plan.SCALE, pods=twin_pods(3)),
        PROMOTING,
        Reason.PROMOTING,
        ("3 of 4 candidate pods are ready to take all traffic",),
        plan.SCALE,
        10,
    ),
    Case(
        "all traffic follows all pods",
        promoting(plan.SCALE),
        PROMOTING,
        Reason.PROMOTING,
        ("weight 100 %",),
        plan.SHIFT,
        100,
    ),
    Case(
        "pods that do not come end the promotion",
        promoting(plan.SCALE, pods=twin_pods(3), run_stage_since=ago(601)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("3 of 4 candidate pods became ready within 10m",),
        plan.SHIFT,
        0,
    ),
    Case(
        "all traffic waits for every sidecar",
        promoting(plan.SHIFT, mesh=acknowledged(100, acknowledged=2, laggards=(("shop/front-1", 5.0),))),
        PROMOTING,
        Reason.WAITING,
        ("2 of 3 sidecars have weight 100 %", "shop/front-1"),
        plan.SHIFT,
    ),
    Case(
        "with all traffic the candidate enters the Service",
        promoting(plan.SHIFT),
        PROMOTING,
        Reason.PROMOTING,
        ("enter the Service",),
        plan.OPEN,
    ),
    Case(
        "an equal template in the history goes by the native rollout",
        promoting(
            plan.SHIFT,
            replicasets=(a_set("v1"), a_set("v2", 0), twin(REPLICAS, pod_hash="run-1")),
            run_pod_hash="run-1",
            pods=twin_pods(REPLICAS, pod_hash="run-1"),
        ),
        PROMOTING,
        Reason.PROMOTING,
        ("rolls out by itself", f"ReplicaSet web-{V2}", "equal template"),
        plan.NATIVE,
        100,
    ),
    Case(
        "pods that lack labels go by the native rollout",
        promoting(plan.SHIFT, spec=a_spec(candidate={"withoutLabels": ["team"]})),
        PROMOTING,
        Reason.PROMOTING,
        ("withoutLabels",),
        plan.NATIVE,
    ),
    Case(
        "pods that do not enter the Service yet are counted",
        promoting(plan.OPEN, pods=twin_pods(3, gate_open=True, ready=True) + twin_pods(1)),
        PROMOTING,
        Reason.PROMOTING,
        ("3 of 4 candidate pods are in the Service",),
        plan.OPEN,
    ),
    Case(
        "pods in the Service are handed to the target",
        promoting(plan.OPEN),
        PROMOTING,
        Reason.PROMOTING,
        ("the target adopts",),
        plan.ADOPT,
    ),
    Case(
        "the hand-over waits until the target has the ReplicaSet",
        promoting(plan.ADOPT),
        PROMOTING,
        Reason.PROMOTING,
        ("the target adopts",),
        plan.ADOPT,
    ),
    Case(
        "the hand-over waits until older pods leave",
        adopted(plan.ADOPT, replicasets=(a_set("v1", 3), a_set("v2"))),
        PROMOTING,
        Reason.PROMOTING,
        ("3 older pods leave",),
        plan.ADOPT,
    ),
    Case(
        "a mixture that came of scaling is finished by releasing the target",
        adopted(plan.ADOPT, replicasets=(a_set("v1", 2), numbered(a_set("v2", 3)))),
        PROMOTING,
        Reason.PROMOTING,
        ("the target is released",),
        plan.RELEASE,
    ),
    Case(
        "the target is released after the hand-over",
        adopted(plan.ADOPT),
        PROMOTING,
        Reason.PROMOTING,
        ("the target is released",),
        plan.RELEASE,
    ),
    Case(
        "the release waits for the target's controller",
        adopted(plan.RELEASE, target=a_target("v2", paused=False)),
        PROMOTING,
        Reason.PROMOTING,
        ("finishes its rollout",),
        plan.RELEASE,
    ),
    Case(
        "a target that does not become ready is told and traffic stays",
        promoting(plan.NATIVE, target=a_target("v2", paused=False), run_stage_since=ago(601)),
        PROMOTING,
        Reason.PROGRESS_DEADLINE,
        ("for longer than 10m", "traffic stays on the judged pods"),
        plan.NATIVE,
        100,
        stalled=True,
    ),
    Case(
        "what was judged is stable once the target agrees",
        adopted(plan.RELEASE, target=a_target("v2", paused=False, settled=True)),
        RESTORING,
        Reason.RESTORING,
        (f"revision {V2} is the stable version",),
        plan.SETTLE,
        100,
    ),
    Case(
        "the native rollout ends the same way",
        promoting(plan.NATIVE, target=a_target("v2", paused=False, settled=True)),
        RESTORING,
        Reason.RESTORING,
        (f"revision {V2} is the stable version",),
        plan.SETTLE,
        100,
    ),
    Case(
        "the routes wait until sidecars know the promoted pods as stable ones",
        restoring(plan.SETTLE, mesh=acknowledged(100, shifted=False)),
        RESTORING,
        Reason.WAITING,
        ("the promoted pods as stable ones",),
        plan.SETTLE,
        100,
    ),
    Case(
        "the plain route follows",
        restoring(plan.SETTLE),
        RESTORING,
        Reason.RESTORING,
        ("plain route",),
        plan.SHIFT,
        0,
    ),
    Case(
        "helpers go after every sidecar has the plain route",
        restoring(plan.SHIFT, mesh=acknowledged(0, shifted=True, acknowledged=1)),
        RESTORING,
        Reason.WAITING,
        ("1 of 3 sidecars have the plain route",),
        plan.SHIFT,
    ),
    Case("helpers go", restoring(plan.SHIFT), RESTORING, Reason.RESTORING, ("helpers",), plan.CLEAN),
    Case(
        "track labels are waited for",
        restoring(plan.CLEAN),
        RESTORING,
        Reason.RESTORING,
        ("4 helpers are being taken away",),
        plan.CLEAN,
    ),
    Case(
        "a frozen autoscaler is waited for",
        restoring(plan.CLEAN, pods=pods("v2", 4), autoscaler=Autoscaler("web", frozen=True)),
        RESTORING,
        Reason.RESTORING,
        stage=plan.CLEAN,
    ),
    Case(
        "with nothing left the promotion is over",
        restoring(plan.CLEAN, pods=pods("v2", 4)),
        READY,
        Reason.PROMOTED,
        (f"revision {V2} serves",),
    ),
)
def test_promotion(case: Case) -> None:
    check(case)


def test_the_revision_before_goes_into_the_history():
    status = look(adopted(plan.RELEASE, target=a_target("v2", paused=False, settled=True))).status
    assert status.stable is not None
    assert status.stable.revision == V2
    assert [old.revision for old in status.history] == [V1]


@table(
    Case(
        "the candidate stays until sidecars have weight 0",
        rolling_back(mesh=acknowledged(0, acknowledged=2), run_stage_since=ago(3)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %", "2 of 3 sidecars have weight 0 %"),
        plan.SHIFT,
    ),
    Case(
        "the candidate drains once sidecars have weight 0",
        rolling_back(mesh=acknowledged(0)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("drain",),
        plan.DRAIN,
    ),
    Case(
        "a sidecar that never answers does not hold a rollback for ever",
        rolling_back(mesh=acknowledged(0, acknowledged=2), run_stage_since=ago(LAGGARDS_S + 1)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("drain",),
        plan.DRAIN,
    ),
    Case(
        "sidecars that could not be told while no operator ran are told before the candidate goes",
        rolling_back(mesh=acknowledged(None, connected=0, acknowledged=0), run_stage_since=ago(LAGGARDS_S + 99)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("weight 0 %",),
        plan.SHIFT,
    ),
    Case(
        "a sidecar that came back just now is not given up",
        rolling_back(
            mesh=acknowledged(0, acknowledged=2, laggards=(("shop/front-1", 0.5),)),
            run_stage_since=ago(LAGGARDS_S + 99),
        ),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("2 of 3 sidecars have weight 0 %",),
        plan.SHIFT,
    ),
    Case(
        "pods that drain are waited for",
        rolling_back(plan.DRAIN, replicasets=(a_set("v1"),), pods=pods("v1", 4) + twin_pods(1)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("drain",),
        plan.DRAIN,
    ),
    Case(
        "a refused template stays held and the numbers stay in sight",
        rolling_back(plan.DRAIN, **GONE),
        FAILED,
        Reason.ROLLED_BACK,
        ("success rate 40 %",),
        stalled=True,
    ),
    Case(
        "an aborted run is a failure as long as the template is held",
        rolling_back(plan.DRAIN, Reason.ABORTED, **GONE),
        FAILED,
        Reason.ABORTED,
        stalled=True,
    ),
    Case(
        "a template that was set back leaves no failure",
        rolling_back(plan.DRAIN, Reason.ABORTED, target=a_target("v1", paused=True), **GONE),
        READY,
        Reason.ABORTED,
    ),
    Case(
        "a superseded run leaves no failure",
        rolling_back(plan.DRAIN, Reason.SUPERSEDED, target=a_target("v3"), **GONE),
        READY,
        Reason.SUPERSEDED,
    ),
    Case(
        "a template that arrives during a rollback waits until it is over",
        rolling_back(mesh=acknowledged(0, acknowledged=2), target=a_target("v3"), run_stage_since=ago(3)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        stage=plan.SHIFT,
    ),
    Case("a refused template is not tried again by itself", failed(), FAILED, Reason.ROLLED_BACK, stalled=True),
    Case(
        "going back to the stable template ends a failure",
        failed(target=a_target("v1", paused=True)),
        READY,
        Reason.RELEASED,
        ("is the stable revision", "no run is needed"),
    ),
    Case(
        "another template after a failure gets its run",
        failed(target=a_target("v3")),
        PREPARING,
        Reason.PREPARING,
        (V3,),
    ),
    Case(
        "a scaled target does not start a refused template again",
        failed(target=a_target("v2", replicas=6)),
        FAILED,
        Reason.ROLLED_BACK,
        stalled=True,
    ),
    Case(
        "the reason of a failure is known after an obstacle came and went",
        failed(
            Reason.PROGRESS_DEADLINE,
            "0 of 2 candidate pods became ready within 10m",
            status=look(failed(Reason.PROGRESS_DEADLINE, "0 of 2 candidate pods became ready", target=None)).status,
        ),
        FAILED,
        Reason.PROGRESS_DEADLINE,
        ("0 of 2 candidate pods became ready",),
        stalled=True,
    ),
    Case(
        "the reason of a failure is known after a request that did nothing",
        failed(
            status=look(failed(Reason.QUOTA_EXCEEDED, "no room", meta=meta(annotations=ordered("promote")))).status,
        ),
        FAILED,
        Reason.QUOTA_EXCEEDED,
        ("no room",),
        stalled=True,
    ),
)
def test_rollback(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("stage", STAGES_OF_A_RUN)
def test_a_newer_template_takes_the_place_of_a_candidate_that_is(stage):
    decision = look(replace(STAGES_OF_A_RUN[stage], target=a_target("v3"), totals=GOOD))
    run = decision.status.run
    assert run is not None
    assert (decision.status.phase, run.cause, run.weight) == (ROLLING_BACK, "Superseded", 0)
    assert f"revision {V3} takes the place of {V2}" in decision.status.message
    assert not decision.events[-1].warning


@pytest.mark.parametrize("stage", STAGES_OF_A_RUN)
def test_a_template_that_is_set_back_ends_the_run_of_a_candidate_that_is(stage):
    decision = look(replace(STAGES_OF_A_RUN[stage], target=a_target("v1", paused=True), totals=GOOD))
    run = decision.status.run
    assert run is not None
    assert (decision.status.phase, run.cause, run.weight) == (ROLLING_BACK, "Aborted", 0)
    assert "set back to the stable revision" in decision.status.message


@pytest.mark.parametrize("stage", [stage for stage in STAGES_OF_A_RUN if stage != "about to be adopted"])
def test_deletion_takes_back_a_candidate_that_is(stage):
    decision = look(replace(STAGES_OF_A_RUN[stage], meta=meta(deleted_at=ago(1)), totals=GOOD))
    run = decision.status.run
    assert run is not None
    assert (decision.status.phase, run.cause, run.weight) == (ROLLING_BACK, "Deleted", 0)
    assert not decision.finished


@pytest.mark.parametrize("stage", STAGES_BEYOND)
def test_a_newer_template_does_not_turn_a_candidate_that_is(stage):
    before = STAGES_BEYOND[stage]
    decision = look(replace(before, target=a_target("v3")))
    run = decision.status.run
    assert run is not None
    assert before.status.run is not None
    assert (decision.status.phase, run.stage, run.weight) == (
        before.status.phase,
        before.status.run.stage,
        before.status.run.weight,
    )


@pytest.mark.parametrize("stage", ["adopted", "rolling out natively"])
def test_a_template_that_is_set_back_waits_for_enough_pods_in_the_service_when_the_candidate_is(stage):
    few = replace(STAGES_BEYOND[stage], target=a_target("v1", paused=True), pods=pods("v1", 2) + pods("v2", 1))
    assert look(few).status.phase is PROMOTING
    enough = look(replace(few, pods=pods("v1", 2) + pods("v2", 2)))
    assert enough.status.run is not None
    assert (enough.status.phase, enough.status.run.cause) == (ROLLING_BACK, "Aborted")


@pytest.mark.parametrize("held", ["v1", "v3"])
def test_a_native_rollout_that_has_not_begun_makes_room_for(held):
    decision = look(promoting(plan.NATIVE, run_native=True, target=a_target(held, paused=True)))
    assert decision.status.phase is ROLLING_BACK


def test_pods_that_the_target_has_taken_do_not_hold_up_a_rollback():
    taken = {"replicasets": (a_set("v1"), a_set("v2", 2)), "pods": pods("v1", 4) + pods("v2", 2)}
    assert look(rolling_back(plan.DRAIN, Reason.ABORTED, target=a_target("v1"), **taken)).status.phase is READY


def test_a_promotion_beneath_a_newer_template_ends_when_all_pods_are_of_the_judged_revision():
    mixed = replace(adopted(plan.RELEASE, target=a_target("v3")), replicasets=(a_set("v1", 1), a_set("v2")))
    whole = adopted(plan.RELEASE, target=a_target("v3"))
    assert look(mixed).status.phase is PROMOTING
    status = look(whole).status
    assert status.stable is not None
    assert (status.phase, status.stable.revision) == (RESTORING, V2)


def test_after_such_a_promotion_the_newer_template_gets_a_run_of_its_own():
    done = a_status(READY, a_run(""), stable=Promoted(revision=V2, at=ago(1)))
    decision = look(a_snapshot(done, target=a_target("v3"), replicasets=(a_set("v2"),), pods=pods("v2", 4)))
    run = decision.status.run
    assert run is not None
    assert (decision.status.phase, run.revision, run.weight, run.evidence) == (PREPARING, V3, 0, {})


def test_a_run_for_a_template_whose_hash_is_taken_gets_a_hash_of_its_own():
    run = look(a_snapshot(target=a_target("v2"), replicasets=(a_set("v1"), a_set("v2", 0)))).status.run
    assert run is not None
    assert run.pod_hash == run.id != V2
