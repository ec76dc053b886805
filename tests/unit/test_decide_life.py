"""Suspension, deletion, a restarted operator, evidence over time, an edited plan."""

from dataclasses import replace
from datetime import timedelta

import pytest

from serinus.api.release import Phase
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.deletion import UNDO_S
from serinus.delivery.model import Autoscaler, Snapshot

from .world import (
    ANALYSING,
    BAD,
    FAILED,
    GOOD,
    LITTLE,
    NOW,
    OURS,
    PROMOTING,
    READY,
    RESTORING,
    ROLLING_BACK,
    STAGES_BEYOND,
    STAGES_OF_A_RUN,
    WAITING,
    a_set,
    a_snapshot,
    a_spec,
    a_status,
    a_target,
    acknowledged,
    adopted,
    ago,
    analysing,
    counts,
    failed,
    good_at,
    look,
    meta,
    ordered,
    reason_of,
    rolling_back,
    seen,
    twin,
    twin_pods,
)


def suspended(snapshot: Snapshot) -> Snapshot:
    asleep = replace(snapshot, spec=a_spec(suspend=True))
    return replace(asleep, status=look(asleep).status)


def test_suspension_keeps_weight_and_evidence_and_writes_nothing_more():
    before = analysing(totals=LITTLE, run_weight=20)
    asleep = suspended(replace(before, status=look(before).status))
    assert asleep.status.phase is Phase.SUSPENDED
    assert "stays at 20 %" in asleep.status.message
    again = look(replace(asleep, totals=BAD))
    assert (again.status, again.events, again.after_s) == (asleep.status, (), None)


def test_a_suspended_run_goes_on_where_it_was():
    before = analysing(totals=LITTLE)
    noted = replace(before, status=look(before).status)
    awake = look(replace(suspended(noted), spec=a_spec()))
    assert awake.status.phase is noted.status.phase
    assert awake.status.run == noted.status.run
    assert awake.status.suspended_phase is None


@pytest.mark.parametrize("stage", [*STAGES_BEYOND, "rolling back"])
def test_a_suspension_waits_for_a_candidate_that_is(stage):
    snapshot = {**STAGES_BEYOND, "rolling back": rolling_back()}[stage]
    decision = look(replace(snapshot, spec=a_spec(suspend=True)))
    assert decision.status.phase in (PROMOTING, RESTORING, ROLLING_BACK)


def test_a_suspended_canary_starts_no_run_and_deals_with_no_request():
    snapshot = suspended(a_snapshot())
    decision = look(replace(snapshot, target=a_target("v2"), meta=meta(annotations=ordered("abort"))))
    assert decision.status.phase is Phase.SUSPENDED
    assert decision.status.commands == []


@pytest.mark.parametrize(
    "hindrance",
    [
        pytest.param(
            {"problems": ("spec.analysis.metrics[0].query: the query is empty",)}, id="an edited spec is wrong"
        ),
        pytest.param({"target": None}, id="the target is missing"),
        pytest.param({"service": None}, id="the Service is missing"),
    ],
)
def test_harm_is_taken_back_whatever_else_is_wrong(hindrance: dict[str, object]):
    good = look(replace(analysing(run_weight=20, totals=GOOD), **hindrance))
    assert (good.status.phase, good.status.run.weight) == (Phase.ANALYSING, 20)
    bad = look(replace(analysing(run_weight=20, totals=BAD), **hindrance))
    assert (bad.status.phase, bad.status.run.weight) == (Phase.ROLLING_BACK, 0)


def test_a_suspended_or_hindered_run_can_be_aborted():
    for hindered in (suspended(analysing(run_weight=20)), replace(analysing(run_weight=20), service=None)):
        asked = replace(hindered, meta=meta(annotations=ordered("abort")))
        decision = look(asked)
        assert (decision.status.phase, decision.status.run.weight) == (Phase.ROLLING_BACK, 0)
        assert decision.status.suspended_phase is None


def test_a_suspended_canary_forgets_an_obstacle_that_is_gone():
    snapshot = suspended(analysing(run_weight=20))
    hindered = replace(snapshot, status=look(replace(snapshot, target=None)).status)
    assert "no Deployment" in hindered.status.message
    assert "stays at 20 %" in look(hindered).status.message


def test_a_failure_is_a_failure_again_after_a_suspension():
    snapshot = failed(Reason.QUOTA_EXCEEDED, "no room for the candidate's pods")
    awake = replace(snapshot, status=look(replace(suspended(snapshot), spec=a_spec())).status)
    decision = look(awake)
    assert (decision.status.phase, reason_of(decision)) == (FAILED, Reason.QUOTA_EXCEEDED)
    assert decision.status.message == "no room for the candidate's pods"


DELETED = meta(deleted_at=ago(1))
UNDONE = {"meta": DELETED, "target": a_target("v1", labelled=False)}


def test_the_deletion_of_an_idle_canary_waits_for_its_label_and_says_nothing():
    waits = look(a_snapshot(meta=DELETED))
    assert not waits.finished
    done = look(a_snapshot(**UNDONE))
    assert (done.finished, done.events) == (True, ())


@pytest.mark.parametrize(
    "left",
    [
        pytest.param({"replicasets": (a_set("v1"), twin())}, id="a twin"),
        pytest.param({"autoscaler": Autoscaler("web", frozen=True)}, id="a frozen autoscaler"),
        pytest.param({"target": a_target("v1", labelled=False, paused=True)}, id="a pause on the stable template"),
    ],
)
def test_a_deletion_waits_for(left):
    assert not look(a_snapshot(**{**UNDONE, **left})).finished


def test_a_deletion_does_not_hang_for_ever():
    overdue = meta(deleted_at=ago(UNDO_S + 1))
    assert look(a_snapshot(meta=overdue, replicasets=(a_set("v1"), twin()))).finished


@pytest.mark.parametrize("stage", [*STAGES_OF_A_RUN, *STAGES_BEYOND])
def test_a_deletion_that_nobody_saw_to_for_long_still_takes_back_a_candidate_that_is(stage):
    snapshot = {**STAGES_OF_A_RUN, **STAGES_BEYOND}[stage]
    decision = look(replace(snapshot, meta=meta(deleted_at=ago(UNDO_S + 1))))
    assert (decision.status.phase, decision.finished) == (ROLLING_BACK, False)


def test_a_rollback_that_takes_too_long_does_not_hang_a_deletion():
    stuck = rolling_back(plan.DRAIN, meta=meta(deleted_at=ago(UNDO_S + 9)), run_stage_since=ago(UNDO_S + 1))
    assert look(stuck).status.phase is READY
    assert look(stuck).finished
    assert not look(replace(stuck, mesh=acknowledged(None))).finished
    assert look(replace(stuck, mesh=acknowledged(None), service=None)).finished


def test_a_deletion_after_a_rollback_leaves_the_template_held_and_names_the_command():
    decision = look(failed(meta=DELETED, target=a_target("v2", labelled=False)))
    assert decision.finished
    (event,) = decision.events
    assert event.warning
    assert "kubectl rollout resume deployment/web -n shop" in event.message


@pytest.mark.parametrize("stage", STAGES_BEYOND)
def test_a_deletion_lets_a_promotion_finish_that_is(stage):
    decision = look(replace(STAGES_BEYOND[stage], meta=DELETED))
    assert decision.status.phase in (PROMOTING, RESTORING)
    assert not decision.finished


def test_a_deletion_while_suspended_undoes_the_run():
    snapshot = replace(suspended(analysing()), meta=DELETED)
    snapshot = replace(snapshot, status=look(snapshot).status)
    assert look(snapshot).status.phase is ROLLING_BACK


def test_a_deletion_of_a_canary_that_never_adopted_ends_at_once():
    never = a_status(None, stable=None)
    assert look(a_snapshot(never, meta=DELETED, target=None)).finished
    assert look(a_snapshot(never, meta=DELETED, target=None, spec=None, problems=("?",))).finished


def test_a_restart_of_the_operator_keeps_the_evidence():
    first = analysing(totals=seen(counts(30), counts(270), "reader-1"))
    again = replace(first, status=look(first).status, totals=seen(counts(0), counts(0), "reader-2"))
    later = replace(again, status=look(again).status, totals=seen(counts(19), counts(171), "reader-2"))
    assert "49 requests" in look(later).status.message
    enough = replace(later, status=look(later).status, totals=seen(counts(20), counts(180), "reader-2"))
    assert look(enough).status.run.step == 1  # type: ignore[union-attr]


def test_a_candidate_that_lost_all_its_pods_gets_its_progress_deadline_and_keeps_its_evidence():
    away = analysing(totals=LITTLE, pods=twin_pods(2, containers_ready=False, trouble="container app waits: Crash"))
    lost = look(away)
    assert "0 of 2 candidate pods are ready" in lost.status.message
    late = replace(away, status=lost.status)
    assert look(late, NOW.replace(minute=9)).status.phase is ANALYSING
    assert look(late, NOW.replace(minute=11)).status.phase is ROLLING_BACK
    back = analysing(totals=LITTLE)
    for _ in range(2):
        lost = look(replace(back, status=lost.status))
    assert lost.status.run is not None
    assert (lost.status.run.stage, lost.status.run.acknowledged_at) == (plan.JUDGE, ago(20))
    assert "7 requests" in look(replace(back, status=lost.status)).status.message


def test_the_same_totals_are_not_counted_twice():
    snapshot = analysing(totals=seen(counts(30), counts(270)))
    once = look(snapshot).status
    twice = look(replace(snapshot, status=once)).status
    assert twice.run == once.run


def test_evidence_of_the_step_before_does_not_count_for_the_next():
    passed = analysing(plan.SHIFT, run_step=1, run_weight=20, totals=GOOD)
    judged = replace(passed, status=look(passed).status)
    assert "no request to the candidate yet" in look(judged).status.message


def test_at_weight_100_what_the_stable_version_is_remembered_to_do_is_what_is_compared_with():
    plan_of_two = a_spec({"weight": 50}, {"weight": 100})
    before = analysing(totals=seen(counts(100), counts(100)), spec=plan_of_two, run_weight=50)
    shift = analysing(
        plan.SHIFT,
        spec=plan_of_two,
        run_step=1,
        run_weight=100,
        run_evidence=look(before).status.run.evidence,  # type: ignore[union-attr]
        totals=seen(counts(110), counts(100)),
    )
    judged = replace(shift, status=look(shift, NOW + timedelta(seconds=2)).status)
    waits = look(judged, NOW + timedelta(seconds=4))
    assert "no request to the candidate yet at this weight" in waits.status.message
    later = NOW + timedelta(seconds=6)
    assert look(replace(judged, totals=seen(counts(300), counts(100))), later).status.phase is PROMOTING
    assert look(replace(judged, totals=seen(counts(300, 60), counts(100))), later).status.phase is ROLLING_BACK


def test_a_plan_edited_so_that_the_present_weight_is_gone_goes_on_with_the_next_higher_step():
    edited = a_spec({"weight": 5}, {"weight": 50}, {"weight": 80})
    decision = look(analysing(totals=good_at(20), spec=edited, run_step=1, run_weight=20))
    assert "step 2 of 3: 50 %" in decision.status.message


def test_a_plan_that_lost_the_approval_that_is_waited_for_goes_on():
    decision = look(analysing(phase=WAITING, run_weight=0))
    assert "step 1 of 3: 10 %" in decision.status.message


def test_a_plan_edited_to_lower_weights_does_not_lower_the_present_one():
    edited = a_spec({"weight": 1}, {"weight": 2})
    decision = look(analysing(plan.SCALE, spec=edited, run_step=1, run_weight=20))
    assert decision.status.run is not None
    assert decision.status.run.weight == 20


def test_a_plan_that_became_shorter_than_the_run_goes_on_with_the_next_higher_step():
    edited = a_spec({"weight": 10}, {"weight": 90})
    decision = look(analysing(totals=good_at(40), spec=edited, run_step=4, run_weight=40))
    assert decision.status.run is not None
    assert decision.status.run.step == 1
    assert any("step 2 of 2: 90 %" in event.message for event in decision.events)


SETTLED = {
    "idle": a_snapshot(),
    "failed": failed(),
    "waiting for requests": analysing(totals=LITTLE),
    "waiting for approval": analysing(spec=a_spec({"weight": 10}, {"approval": "?"}), run_step=1, totals=GOOD),
    "paused": analysing(run_paused=True, totals=GOOD),
    "invalid": analysing(problems=("?",)),
    "without a target": a_snapshot(target=None),
    "waiting for a sidecar": analysing(plan.SHIFT, mesh=acknowledged(10, acknowledged=1)),
    "adopted": adopted(plan.RELEASE, target=a_target("v2", paused=False)),
    "draining": rolling_back(plan.DRAIN),
}


@pytest.mark.parametrize("state", SETTLED)
def test_nothing_is_written_when_nothing_changed_and_the_canary_is(state):
    snapshot = SETTLED[state]
    once = look(snapshot)
    again = look(replace(snapshot, status=once.status))
    assert again.status == once.status
    assert again.events == ()


def test_conditions_tell_since_when_they_hold():
    first = look(a_snapshot()).status
    later = look(a_snapshot(first), NOW.replace(hour=15)).status
    assert later.conditions == first.conditions


def test_a_twin_of_another_canary_is_none_of_ours():
    foreign = a_set("v2", 2, owner="uid-of-another")
    assert look(rolling_back(plan.DRAIN, replicasets=(a_set("v1"), foreign), pods=())).status.phase is FAILED
    assert foreign.owner_uid != OURS
