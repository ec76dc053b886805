"""An experiment of the fault gate in a release: what is waited for, each stage, every end, and what it projects."""

import re
from dataclasses import replace
from typing import Any

from serinus.analysis.model import Counts, Evidence
from serinus.api.names import LABEL_HASH
from serinus.api.release import ExperimentStatus, MetricStatus, Phase
from serinus.api.status import Reason
from serinus.delivery import evidence, plan
from serinus.delivery.decide import decide
from serinus.delivery.model import ArmTotals, Dependency, Pod, Snapshot
from serinus.delivery.project import project
from serinus.delivery.revision import twin_name

from .tables import Case, check, table
from .world import (
    ANALYSING,
    NOW,
    ROLLING_BACK,
    V2,
    WAITING,
    a_set,
    a_spec,
    acknowledged,
    ago,
    analysing,
    counts,
    seen,
)

ARMS = (f"{V2}cf", f"{V2}sf")
FREE = Dependency()
THROUGH = Dependency(through=4)
INJECTING = Dependency(through=4, injecting=4)
MANY = seen(counts(900), counts(8100))
WHAT = "answer 503 in 50 % of the calls to stock"
STEPS = ({"weight": 10}, {"fault": "stock-fails"}, {"weight": 50})


def spec(**fields: Any) -> Any:
    experiment = {"name": "stock-fails", "to": "stock", "abort": {"httpStatus": 503}, "duration": "2m"} | fields
    return a_spec(*STEPS, faults=[experiment])


def arm_pods(count: int = 2) -> tuple[Pod, ...]:
    return tuple(Pod(f"web-{pod_hash}-{n}", pod_hash, containers_ready=True) for pod_hash in ARMS for n in range(count))


def arms(candidate: Counts | None = None, stable: Counts | None = None, **changes: Any) -> ArmTotals:
    return ArmTotals("reader-1", Evidence(candidate or counts(30), stable or counts(30)), (30, 30), **changes)


def note(**changes: Any) -> dict[str, Any]:
    """Counting from nothing."""
    clean = evidence.dump_counts(MANY.evidence)
    nothing = evidence.dump_counts(Evidence(counts(0), counts(0)))
    before = evidence.dump_counts(Evidence(counts(100), counts(900)))
    return {
        "reader": "reader-1",
        "before": before,
        "mark": {"arms": nothing, "clean": clean, "calls": [0, 0]},
    } | changes


def at(stage: str, **parts: Any) -> Snapshot:
    """A release at its experiment."""
    under_way = [ExperimentStatus(name="stock-fails", budget=200, began_at=ago(60))]
    fields: dict[str, Any] = {
        "run_step": 1,
        "run_acknowledged_at": ago(60),
        "run_stage_since": ago(60),
        "run_experiments": under_way if stage in plan.EXPERIMENT else [],
        "spec": spec(),
        "totals": MANY,
        "dependency": FREE,
        "mesh": acknowledged(10, arms=2, arms_pct=5),
    }
    snapshot = analysing(stage, **{**fields, **parts})
    return replace(snapshot, pods=(*snapshot.pods, *arm_pods())) if stage in plan.EXPERIMENT else snapshot


@table(
    Case(
        "a Service that is not there is waited for",
        at(plan.JUDGE, dependency=Dependency(refusal="there is no Service stock in namespace shop; create it")),
        WAITING,
        Reason.FAULT_REFUSED,
        ("there is no Service stock",),
    ),
    Case(
        "another Canary's experiment with the same Service is waited for",
        at(plan.JUDGE, dependency=Dependency(busy="shop/front")),
        WAITING,
        Reason.WAITING,
        ("Canary shop/front makes an experiment", "one at a time"),
    ),
    Case(
        "so many requests must have been answered before",
        at(plan.JUDGE, totals=seen(counts(499), counts(4500))),
        WAITING,
        Reason.WAITING,
        ("499 of 500 requests",),
    ),
    Case(
        "with all of that the pods start", at(plan.JUDGE), ANALYSING, Reason.ANALYSING, ("2 pods of each",), plan.ARMS
    ),
    Case(
        "ready pods get their share",
        at(plan.ARMS),
        ANALYSING,
        Reason.ANALYSING,
        ("get 5 % of the requests",),
        plan.WARM,
    ),
    Case(
        "pods that do not become ready end it without a verdict",
        replace(at(plan.ARMS, run_stage_since=ago(601)), pods=()),
        ANALYSING,
        Reason.ANALYSING,
        (),
        plan.SCALE,
    ),
    Case(
        "warm pods whose sidecars stand ready meet the fault",
        at(plan.WARM, dependency=THROUGH, arms=arms()),
        ANALYSING,
        Reason.ANALYSING,
        ("the fault begins",),
        plan.INJECT,
    ),
    Case(
        "sidecars that do not stand ready end it without a verdict",
        at(plan.WARM, arms=arms()),
        WAITING,
        Reason.FAULT_GATE,
        ("NotInjected", "0 of 4"),
        plan.HELD,
    ),
    Case(
        "one block alone decides nothing, and is told with both numbers",
        at(
            plan.INJECT,
            dependency=INJECTING,
            run_experiment=note(),
            run_experiments=[ExperimentStatus(name="stock-fails", budget=200, began_at=ago(2))],
            arms=arms(counts(30, 28), counts(30)),
        ),
        ANALYSING,
        Reason.ANALYSING,
        ("93.3 % of 30 requests to the candidate failed, 0 % of 30 requests to stable",),
        plan.INJECT,
    ),
    Case(
        "a spent budget ends it, and a person decides",
        at(
            plan.INJECT,
            dependency=INJECTING,
            spec=spec(budget=50),
            run_experiment=note(),
            arms=arms(counts(300, 30), counts(300, 29)),
        ),
        WAITING,
        Reason.FAULT_GATE,
        ("Budget", "59 requests failed, 50 were risked"),
        plan.HELD,
    ),
    Case(
        "a spent budget goes on where that is what it says",
        at(
            plan.INJECT,
            dependency=INJECTING,
            spec=spec(budget=50, onInconclusive="Promote"),
            run_experiment=note(),
            arms=arms(counts(300, 30), counts(300, 29)),
        ),
        ANALYSING,
        Reason.ANALYSING,
        ("the sidecars are given weight 50 %",),
        plan.SHIFT,
        50,
    ),
    Case(
        "a spent budget rolls back where that is what it says",
        at(
            plan.INJECT,
            dependency=INJECTING,
            spec=spec(budget=50, onInconclusive="Rollback"),
            run_experiment=note(),
            arms=arms(counts(300, 30), counts(300, 29)),
        ),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("Budget",),
    ),
    Case(
        "a stop ends it",
        at(
            plan.INJECT,
            dependency=Dependency(refusal="faults are stopped in namespace shop"),
            run_experiment=note(),
            arms=arms(),
        ),
        WAITING,
        Reason.FAULT_GATE,
        ("Stopped", "faults are stopped"),
        plan.HELD,
    ),
    Case(
        "counts of another process begin it again",
        at(plan.INJECT, dependency=INJECTING, run_experiment=note(reader="reader-0"), arms=arms()),
        ANALYSING,
        Reason.ANALYSING,
        ("interrupted",),
        plan.JUDGE,
    ),
    Case(
        "a fault that is gone by itself begins it again",
        at(plan.INJECT, dependency=THROUGH, run_experiment=note(), arms=arms()),
        ANALYSING,
        Reason.ANALYSING,
        ("interrupted",),
        plan.JUDGE,
    ),
    Case(
        "what was broken off too often ends without a verdict",
        at(plan.JUDGE, run_experiments=[ExperimentStatus(name="stock-fails", what=WHAT, attempt=3)]),
        WAITING,
        Reason.FAULT_GATE,
        ("Interrupted",),
        plan.HELD,
    ),
    Case(
        "a person who pauses the run ends the fault",
        at(plan.INJECT, dependency=INJECTING, run_experiment=note(), arms=arms(), run_paused=True),
        ANALYSING,
        Reason.ANALYSING,
        ("broken off",),
        plan.JUDGE,
    ),
    Case(
        "one without a verdict waits for a person",
        at(plan.HELD, run_experiments=[ExperimentStatus(name="stock-fails", verdict="Inconclusive", message="Budget")]),
        WAITING,
        Reason.FAULT_GATE,
        ("serinus promote web goes on without one",),
        plan.HELD,
    ),
)
def test_an_experiment(case: Case) -> None:
    check(case)


def test_evidence_from_several_looks_rolls_a_candidate_back_that_copes_worse() -> None:
    snapshot = at(plan.INJECT, dependency=INJECTING, run_experiment=note())
    for look in range(1, 12):
        read = arms(counts(20 * look, 15 * look), counts(20 * look, 0))
        began = [ExperimentStatus(name="stock-fails", budget=200, began_at=ago(3 * look))]
        run = snapshot.status.run.model_copy(update={"experiments": began})
        snapshot = replace(snapshot, arms=read, status=snapshot.status.model_copy(update={"run": run}))
        decision = decide(snapshot, NOW)
        if decision.status.phase is ROLLING_BACK:
            break
        snapshot = replace(snapshot, status=decision.status)
    assert decision.status.phase is ROLLING_BACK, decision.status.message
    run = decision.status.run
    assert (run.cause, run.experiments[-1].verdict) == ("FaultGate", "Failed")
    assert "75 % of" in run.cause_message
    assert "stable" in run.cause_message


def test_no_query_about_a_revisions_pods_counts_those_of_the_two_groups() -> None:
    for pod_hash in ARMS:
        pod = f"{twin_name('web', pod_hash)}-x2x4x"
        assert not re.fullmatch(f"web-{V2}-.*|.*-{V2}-.*", pod)
    assert re.fullmatch(f"web-{V2}-.*", f"{twin_name('web', V2)}-x2x4x")


def test_the_two_groups_exist_only_while_somebody_looks_after_the_experiment() -> None:
    inject = at(plan.INJECT, dependency=INJECTING, run_experiment=note(), arms=arms())
    desired = project(inject)
    names = [body["metadata"]["name"] for body in desired.create if body["kind"] == "ReplicaSet"]
    assert names == [f"web-{pod_hash}" for pod_hash in ARMS]
    labels = [body["spec"]["template"]["metadata"]["labels"][LABEL_HASH] for body in desired.create[-2:]]
    assert labels == list(ARMS)
    assert desired.route is not None
    assert (desired.route.arms, desired.route.arms_pct, desired.route.weight) == (ARMS, 5, 10)
    assert desired.trial is not None
    assert (desired.trial.to, desired.trial.injected, desired.trial.through) == ("shop/stock", True, True)
    recover = replace(inject, status=inject.status.model_copy(update={"run": _stage(inject, plan.RECOVER)}))
    assert project(recover).trial is not None
    assert not project(recover).trial.injected
    suspended = decide(replace(inject, spec=inject.spec.model_copy(update={"suspend": True})), NOW).status
    assert suspended.phase is Phase.SUSPENDED
    quiet = project(replace(inject, status=suspended))
    assert (quiet.trial, quiet.route.arms) == (None, ("", ""))
    stalled = decide(replace(inject, service=None), NOW).status
    assert stalled.run.stage == plan.JUDGE, "nobody judges it now"
    groups = tuple(a_set("v2", owner=inject.meta.uid, pod_hash=pod_hash) for pod_hash in ARMS)
    there = replace(inject, replicasets=(*inject.replicasets, *groups))
    assert not project(there).delete
    over = replace(there, status=there.status.model_copy(update={"run": _stage(there, plan.JUDGE)}))
    assert there.mesh.arms_pct
    assert not project(over).delete, "sidecars still send requests to them"
    withdrawn = replace(over.mesh, arms=0, arms_pct=0)
    for mesh, gone in ((withdrawn, set(ARMS)), (replace(withdrawn, acknowledged=withdrawn.connected - 1), set())):
        assert {each.pod_hash for each in project(replace(over, mesh=mesh)).delete} == gone


def test_recovery_adds_to_what_was_seen_and_spent_under_the_fault() -> None:
    metrics = [MetricStatus(name="errors", bad=3, requests=100), MetricStatus(name="calls", bad=90, requests=100)]
    seen = ExperimentStatus(name="stock-fails", budget=200, began_at=ago(60), metrics=metrics, difference=[1.0, 0, 2])
    fields = {
        "dependency": THROUGH,
        "run_experiment": note(spent=7),
        "run_experiments": [seen],
        "run_stage_since": ago(4),
    }
    run = decide(at(plan.RECOVER, **fields, arms=arms(counts(20, 1), counts(20))), NOW).status.run
    last = run.experiments[-1]
    assert [metric.name for metric in last.metrics] == ["errors", "calls", "recovery"]
    assert (last.spent, last.difference, run.stage) == (8, [1.0, 0, 2], plan.RECOVER)
    decision = decide(at(plan.RECOVER, **fields, spec=spec(budget=10), arms=arms(counts(20, 2), counts(20, 2))), NOW)
    assert decision.status.run.experiments[-1].reason == "Budget"


def test_one_that_a_person_has_passed_over_is_not_taken_for_an_attempt_of_the_next() -> None:
    passed_over = ExperimentStatus(name="another", what="something else")
    run = decide(at(plan.JUDGE, run_experiments=[passed_over]), NOW).status.run
    assert [(each.name, each.attempt) for each in run.experiments] == [("another", 1), ("stock-fails", 1)]


def test_a_dry_run_injects_nothing() -> None:
    dry = at(plan.INJECT, spec=spec(dryRun=True), dependency=THROUGH, run_experiment=note(), arms=arms())
    assert project(dry).trial is not None
    assert not project(dry).trial.injected
    assert decide(dry, NOW).status.run.stage == plan.INJECT


def _stage(snapshot: Snapshot, stage: str) -> Any:
    return snapshot.status.run.model_copy(update={"stage": stage})
