"""What a release does next, as tables: the state of the world, and the phase, reason and words that follow from it."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from serinus.analysis.model import Outcome, Reading
from serinus.api.canary import HandledCommand, Phase, Promoted
from serinus.api.status import Reason
from serinus.delivery import evidence, plan
from serinus.delivery.deletion import UNDO_S
from serinus.delivery.finishing import LAGGARDS_S, REVISION_NUMBER
from serinus.delivery.model import Autoscaler, ReplicaSet, Service, Snapshot

from .world import (
    BAD,
    GOOD,
    LITTLE,
    NOW,
    OURS,
    REPLICAS,
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
    analysing,
    counts,
    is_stalled,
    look,
    meta,
    ordered,
    pods,
    promoting,
    reason_of,
    seen,
    twin,
    twin_pods,
)

READY, PREPARING, ANALYSING, WAITING = Phase.READY, Phase.PREPARING, Phase.ANALYSING, Phase.WAITING
PROMOTING, RESTORING, ROLLING_BACK, FAILED = Phase.PROMOTING, Phase.RESTORING, Phase.ROLLING_BACK, Phase.FAILED
GONE = {"replicasets": (a_set("v1"),), "pods": pods("v1", REPLICAS)}
"""The candidate has left."""


class Case(NamedTuple):
    """One row: what is seen, and what follows; ``words`` are parts of the message, ``stage`` is the run's."""

    sentence: str
    snapshot: Snapshot
    phase: Phase | None
    reason: Reason
    words: tuple[str, ...] = ()
    stage: str | None = None
    weight: int | None = None
    stalled: bool = False


def table(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.sentence for case in cases])


def check(case: Case) -> None:
    decision = look(case.snapshot)
    assert (decision.status.phase, reason_of(decision)) == (case.phase, case.reason), decision.status.message
    for words in case.words:
        assert words in decision.status.message
    run = decision.status.run
    if case.stage is not None:
        assert run is not None
        assert run.stage == case.stage
    if case.weight is not None:
        assert run is not None
        assert run.weight == case.weight
    assert is_stalled(decision) is case.stalled


def failed(cause: Reason = Reason.ROLLED_BACK, words: str = "success rate 40 %", **parts: object) -> Snapshot:
    """A Canary whose candidate ``v2`` was refused and is gone; the target holds ``v2``."""
    run = a_run("", weight=0, cause=cause.value, cause_message=words)
    changes = {"status": a_status(FAILED, run, rejected=V2), "target": a_target("v2"), **GONE, **parts}
    return a_snapshot(**changes)  # type: ignore[arg-type]


def rolling_back(stage: str = plan.SHIFT, cause: Reason = Reason.ROLLED_BACK, **parts: object) -> Snapshot:
    fields = {"run_weight": 0, "run_cause": cause.value, "run_cause_message": "success rate 40 %"}
    return analysing(stage, phase=ROLLING_BACK, **{**fields, **parts})


def restoring(stage: str, **parts: object) -> Snapshot:
    """``v2`` is the stable version by now."""
    weight = 100 if stage == plan.SETTLE else 0
    changes = {"stable": Promoted(revision=V2, at=ago(5)), "history": [Promoted(revision=V1, at=ago(3600))]}
    fields = {
        "phase": RESTORING,
        "run_weight": weight,
        "status_changes": changes,
        "target": a_target("v2", paused=False, settled=True),
        "mesh": acknowledged(weight, shifted=True),
    }
    return adopted(stage, **{**fields, **parts})


def numbered(replicaset: ReplicaSet) -> ReplicaSet:
    """The ReplicaSet, once the target's controller has taken it for the newest."""
    metadata = {**replicaset.manifest["metadata"], "annotations": {REVISION_NUMBER: "2"}}
    return replace(replicaset, manifest={**replicaset.manifest, "metadata": metadata})


@table(
    Case(
        "a target without our label gets it before anything else",
        a_snapshot(a_status(None, stable=None), target=a_target("v1", labelled=False)),
        None,
        Reason.WAITING,
        ("gets its label",),
    ),
    Case(
        "a healthy Deployment is adopted as it is",
        a_snapshot(a_status(None, stable=None)),
        READY,
        Reason.ADOPTED,
        (f"revision {V1} serves and is the stable version",),
    ),
    Case(
        "a Deployment that rolls out is adopted afterwards",
        a_snapshot(a_status(None, stable=None), target=a_target("v1", settled=False)),
        None,
        Reason.WAITING,
        ("own rollout must end",),
    ),
    Case(
        "a paused Deployment is adopted once a person resumes it",
        a_snapshot(a_status(None, stable=None), target=a_target("v1", paused=True, labelled=False)),
        None,
        Reason.WAITING,
        ("kubectl rollout resume deployment/web",),
    ),
    Case(
        "a template that was held before the adoption is not taken for what serves",
        a_snapshot(a_status(None, stable=None), target=a_target("v2")),
        READY,
        Reason.ADOPTED,
        (f"revision {V1} serves and is the stable version",),
    ),
    Case(
        "a mixture that was held before the adoption is left to a person",
        a_snapshot(a_status(None, stable=None), target=a_target("v3"), replicasets=(a_set("v1", 3), a_set("v2", 2))),
        None,
        Reason.WAITING,
        ("kubectl rollout resume deployment/web",),
    ),
    Case("nothing to do is Ready", a_snapshot(), READY, Reason.PROMOTED, (f"revision {V1} serves",)),
    Case(
        "a held template begins a run",
        a_snapshot(target=a_target("v2")),
        PREPARING,
        Reason.PREPARING,
        (f"revision {V2} is held", "2 pods of it start"),
        plan.SCALE,
        0,
    ),
    Case(
        "a held template that equals the stable one is released without a run",
        a_snapshot(target=a_target("v1", paused=True)),
        READY,
        Reason.RELEASED,
        ("is the stable revision", "no run is needed"),
    ),
    Case(
        "a change at 0 replicas is released at once",
        a_snapshot(target=a_target("v2", replicas=0)),
        READY,
        Reason.RELEASED,
        ("the target has 0 replicas",),
    ),
    Case(
        "a template that was promoted within the window is released without a run",
        a_snapshot(
            a_status(READY, history=[Promoted(revision=V2, at=ago(23 * 3600))]),
            target=a_target("v2"),
        ),
        READY,
        Reason.RELEASED,
        ("was promoted within 24h",),
    ),
    Case(
        "a template that was promoted before the window needs a run",
        a_snapshot(
            a_status(READY, history=[Promoted(revision=V2, at=ago(25 * 3600))]),
            target=a_target("v2"),
        ),
        PREPARING,
        Reason.PREPARING,
    ),
    Case(
        "a released template rolls out by itself",
        a_snapshot(a_status(READY, released=V2), target=a_target("v2", replicas=0)),
        READY,
        Reason.RELEASED,
        ("rolls out by itself, without a run",),
    ),
    Case(
        "a template released for want of pods is judged when there are pods by now",
        a_snapshot(a_status(READY, released=V2), target=a_target("v2")),
        PREPARING,
        Reason.PREPARING,
    ),
    Case(
        "a released template that has rolled out is the stable version",
        a_snapshot(a_status(READY, released=V2), target=a_target("v2", paused=False, settled=True)),
        READY,
        Reason.RELEASED,
        (f"revision {V2} rolled out without a run and is the stable version",),
    ),
)
def test_between_runs(case: Case) -> None:
    check(case)


@table(
    Case(
        "the way past the hold is followed and called Bypassed",
        a_snapshot(target=a_target("v2", paused=False, settled=False)),
        READY,
        Reason.BYPASSED,
        (f"revision {V2} rolls out by itself",),
    ),
    Case(
        "a bypass that has rolled out is the stable version",
        a_snapshot(target=a_target("v2", paused=False, settled=True)),
        READY,
        Reason.BYPASSED,
        (f"revision {V2} rolled out without a run",),
    ),
    Case(
        "break-glass on a held template names the next command",
        a_snapshot(target=a_target("v2", break_glass=True)),
        READY,
        Reason.BYPASSED,
        ("break-glass is set", "kubectl rollout resume"),
    ),
    Case(
        "break-glass on a refused template is not mistaken for the old failure",
        failed(target=a_target("v2", break_glass=True)),
        FAILED,
        Reason.BYPASSED,
        ("break-glass is set",),
    ),
    Case(
        "break-glass in a run ends it",
        analysing(target=a_target("v2", break_glass=True)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("break-glass is set on the target",),
        plan.SHIFT,
        0,
    ),
    Case(
        "a release past the hold ends the run",
        analysing(target=a_target("v2", paused=False)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("released past the hold",),
        plan.SHIFT,
        0,
    ),
    Case(
        "after a bypass the run leaves no failure behind",
        rolling_back(plan.DRAIN, Reason.BYPASSED, target=a_target("v2", paused=False), **GONE),
        READY,
        Reason.BYPASSED,
    ),
    Case(
        "a template that gets past the hold while the judged one is released takes the routes back",
        adopted(plan.RELEASE, target=a_target("v3", paused=False)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("released past the hold",),
        plan.SHIFT,
        0,
    ),
    Case(
        "a template that gets past the hold during the native rollout takes the routes back",
        promoting(plan.NATIVE, run_native=True, target=a_target("v3", paused=False)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("released past the hold",),
        plan.SHIFT,
        0,
    ),
)
def test_past_the_hold(case: Case) -> None:
    check(case)


@table(
    Case(
        "a spec that cannot be done is Stalled",
        a_snapshot(problems=("steps: weights may not fall",)),
        READY,
        Reason.INVALID_SPEC,
        ("weights may not fall",),
        stalled=True,
    ),
    Case(
        "a spec that became invalid in a run leaves weight and phase",
        analysing(problems=("steps: weights may not fall",), run_weight=20),
        ANALYSING,
        Reason.INVALID_SPEC,
        ("weights may not fall",),
        plan.JUDGE,
        20,
        stalled=True,
    ),
    Case(
        "a spec that cannot be read leaves weight and phase",
        analysing(spec=None, problems=("strategy: missing",)),
        ANALYSING,
        Reason.INVALID_SPEC,
        ("strategy: missing",),
        plan.JUDGE,
        10,
        stalled=True,
    ),
    Case(
        "of two Canaries for one target the younger stands still and names the other",
        a_snapshot(rival="web-old"),
        READY,
        Reason.CONFLICT,
        ("Canary web-old is older", "delete one of the two"),
        stalled=True,
    ),
    Case(
        "a missing target is named",
        a_snapshot(target=None),
        READY,
        Reason.TARGET_NOT_FOUND,
        ("no Deployment web in shop", "mend spec.targetRef"),
        stalled=True,
    ),
    Case(
        "a target that is deleted in a run leaves the weight",
        analysing(target=None),
        ANALYSING,
        Reason.TARGET_NOT_FOUND,
        ("no Deployment web",),
        plan.JUDGE,
        10,
        stalled=True,
    ),
    Case(
        "a missing Service is named",
        a_snapshot(service=None, spec=a_spec(service="web-http")),
        READY,
        Reason.SERVICE_NOT_FOUND,
        ("no Service web-http in shop", "spec.service"),
        stalled=True,
    ),
    Case(
        "a Service that cannot carry a canary says why",
        a_snapshot(service=Service("web", "Service web is headless; name one with a cluster IP")),
        READY,
        Reason.SERVICE_UNUSABLE,
        ("headless",),
        stalled=True,
    ),
    Case(
        "a Service that publishes not-ready addresses refuses a run",
        a_snapshot(target=a_target("v2"), obstacles=("Service web-all publishes not-ready addresses",)),
        READY,
        Reason.SERVICE_UNUSABLE,
        ("web-all",),
        stalled=True,
    ),
    Case(
        "an obstacle that appears in a run does not stop it",
        analysing(totals=GOOD, obstacles=("Service web-all publishes not-ready addresses",)),
        ANALYSING,
        Reason.ANALYSING,
        ("step 2 of 3",),
    ),
)
def test_what_is_in_the_way(case: Case) -> None:
    check(case)


def test_an_obstacle_is_told_once_by_an_event():
    snapshot = a_snapshot(target=None)
    first = look(snapshot)
    again = look(replace(snapshot, status=first.status))
    assert [event.reason for event in first.events] == [Reason.TARGET_NOT_FOUND]
    assert again.events == ()
    assert again.status == first.status


@table(
    Case(
        "pods that start are waited for and counted",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, pods=twin_pods(1)),
        PREPARING,
        Reason.PREPARING,
        ("1 of 2 candidate pods are ready",),
        plan.SCALE,
        0,
    ),
    Case(
        "the wait names what keeps a pod",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            pods=twin_pods(2, containers_ready=False, trouble="container app waits: ImagePullBackOff"),
        ),
        PREPARING,
        Reason.PREPARING,
        ("0 of 2", "ImagePullBackOff"),
    ),
    Case(
        "an image that does not come is rolled back at the progress deadline",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            run_stage_since=ago(601),
            pods=twin_pods(2, containers_ready=False, trouble="container app waits: ImagePullBackOff"),
        ),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("0 of 2 candidate pods became ready within 10m", "ImagePullBackOff"),
        plan.SHIFT,
        0,
    ),
    Case(
        "a full quota ends the run at once",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            replicasets=(a_set("v1"), twin(2, failure="pods are forbidden: exceeded quota: five")),
            pods=twin_pods(1),
        ),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("no room for the candidate's pods", "exceeded quota: five", "raise the quota"),
    ),
    Case(
        "another failure to create pods is named and waited for",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            replicasets=(a_set("v1"), twin(2, failure="denied by policy")),
            pods=(),
        ),
        PREPARING,
        Reason.PREPARING,
        ("0 of 2", "denied by policy"),
    ),
    Case(
        "pods that are about to end do not count",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, pods=twin_pods(1) + twin_pods(1, terminating=True)),
        PREPARING,
        Reason.PREPARING,
        ("1 of 2",),
    ),
    Case(
        "ready pods get the first weight",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0),
        ANALYSING,
        Reason.ANALYSING,
        ("the sidecars are given weight 10 %",),
        plan.SHIFT,
        10,
    ),
    Case(
        "a plan that begins with an approval asks before the first request",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            spec=a_spec({"approval": "look at the smoke tests"}, {"weight": 50}),
        ),
        WAITING,
        Reason.WAITING,
        ("step 1 of 2 waits for approval: look at the smoke tests",),
        plan.JUDGE,
        0,
    ),
    Case(
        "the next step waits for its pods at the weight before",
        analysing(plan.SCALE, run_step=2, run_weight=20, target=a_target("v2", replicas=10), pods=twin_pods(3)),
        ANALYSING,
        Reason.ANALYSING,
        ("3 of 5 candidate pods are ready",),
        plan.SCALE,
        20,
    ),
)
def test_preparing(case: Case) -> None:
    check(case)


@table(
    Case(
        "a weight waits for every sidecar and names the slow one",
        analysing(plan.SHIFT, mesh=acknowledged(10, acknowledged=2, laggards=(("shop/front-1", 4.2),))),
        ANALYSING,
        Reason.WAITING,
        ("2 of 3 sidecars have weight 10 %", "the slowest is shop/front-1, 4 s"),
        plan.SHIFT,
    ),
    Case(
        "a weight that was not published yet is not taken for acknowledged",
        analysing(plan.SHIFT, run_weight=20, mesh=acknowledged(10)),
        ANALYSING,
        Reason.WAITING,
        ("weight 20 %",),
        plan.SHIFT,
    ),
    Case(
        "sidecars that are coming back are waited for",
        analysing(plan.SHIFT, mesh=acknowledged(10, connected=0, acknowledged=0, settled=False)),
        ANALYSING,
        Reason.WAITING,
        ("coming back after a restart of the operator",),
        plan.SHIFT,
    ),
    Case(
        "a refused configuration is shown in the sidecar's words",
        analysing(plan.SHIFT, mesh=acknowledged(10, acknowledged=2, rejections=("shop/front-1: bad route",))),
        ANALYSING,
        Reason.REJECTED_BY_PROXY,
        ("shop/front-1: bad route",),
        plan.SHIFT,
    ),
    Case(
        "a weight that all sidecars have is judged",
        analysing(plan.SHIFT),
        ANALYSING,
        Reason.ANALYSING,
        ("all sidecars have weight 10 %",),
        plan.JUDGE,
    ),
    Case(
        "a step without requests says so and is neither passed nor failed",
        analysing(),
        WAITING,
        Reason.NO_TRAFFIC,
        ("step 1 of 3 at 10 %", "no request to the candidate yet"),
        plan.JUDGE,
    ),
    Case(
        "a step with too few requests says how many are wanted",
        analysing(totals=LITTLE),
        WAITING,
        Reason.WAITING,
        ("7 requests", "43 more requests"),
    ),
    Case(
        "a good step is followed by the next",
        analysing(totals=GOOD),
        ANALYSING,
        Reason.ANALYSING,
        ("step 2 of 3: 20 %",),
        plan.SCALE,
        10,
    ),
    Case(
        "a good step is held for its time",
        analysing(totals=GOOD, spec=a_spec({"weight": 10, "for": "1m"}), run_acknowledged_at=ago(20)),
        ANALYSING,
        Reason.ANALYSING,
        ("for another 40 s",),
        plan.JUDGE,
    ),
    Case(
        "a step whose time is over goes on when it is good",
        analysing(totals=GOOD, spec=a_spec({"weight": 10, "for": "1m"}, {"weight": 40}), run_acknowledged_at=ago(61)),
        ANALYSING,
        Reason.ANALYSING,
        ("step 2 of 2: 40 %",),
    ),
    Case(
        "a step whose time is over does not go on without evidence",
        analysing(totals=LITTLE, spec=a_spec({"weight": 10, "for": "1m"}), run_acknowledged_at=ago(61)),
        WAITING,
        Reason.WAITING,
        ("43 more requests",),
    ),
    Case(
        "a refused configuration blocks the next step",
        analysing(totals=GOOD, mesh=acknowledged(10, rejections=("shop/front-1: bad route",))),
        WAITING,
        Reason.REJECTED_BY_PROXY,
        ("bad route",),
    ),
    Case(
        "an approval waits, whatever the evidence says",
        analysing(totals=GOOD, spec=a_spec({"weight": 10}, {"approval": "look at the graphs"}), run_step=1),
        WAITING,
        Reason.WAITING,
        ("waits for approval: look at the graphs", "serinus approve web"),
    ),
    Case(
        "the last good step begins the promotion",
        analysing(totals=GOOD, run_step=2, run_weight=50),
        PROMOTING,
        Reason.PROMOTING,
        ("it gets all pods, then all traffic",),
        plan.SCALE,
        50,
    ),
    Case(
        "a run that a person paused stays",
        analysing(totals=GOOD, run_paused=True),
        WAITING,
        Reason.PAUSED,
        ("paused by a person at step 1 of 3 at 10 %",),
    ),
    Case(
        "a run that was paused while it starts gives no request to the candidate",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, run_paused=True),
        PREPARING,
        Reason.PAUSED,
        ("paused by a person before step 1 of 3 gets its weight of 10 %",),
        plan.SCALE,
        0,
    ),
    Case(
        "an unanswered query is not a verdict",
        analysing(
            totals=GOOD,
            spec=a_spec(
                analysis={
                    "prometheus": {"address": "http://prometheus:9090"},
                    "metrics": [{"name": "carts", "query": "carts", "min": 1}],
                }
            ),
            run_evidence=replace(evidence.Book(), notes={"queries": {"carts": [1, 0, 0]}}).dump(),
            readings=(Reading("carts", Outcome.UNREACHABLE, sequence=2),),
        ),
        WAITING,
        Reason.METRICS_UNAVAILABLE,
        ("carts", "cannot be reached"),
    ),
)
def test_steps(case: Case) -> None:
    check(case)


@table(
    Case(
        "harm while a step is judged",
        analysing(totals=BAD),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 % of 200 requests", "the limit is"),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm while a weight is being acknowledged",
        analysing(plan.SHIFT, totals=BAD, mesh=acknowledged(10, acknowledged=1)),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm while the next step gets its pods",
        analysing(plan.SCALE, totals=BAD, run_step=1),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm while an approval is waited for",
        analysing(totals=BAD, phase=WAITING, spec=a_spec({"weight": 10}, {"approval": "?"}), run_step=1),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
    ),
    Case(
        "harm while a person holds the run",
        analysing(totals=BAD, phase=WAITING, run_paused=True),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
    ),
    Case(
        "harm while the candidate gets all pods",
        promoting(plan.SCALE, totals=BAD),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm while the candidate gets all traffic",
        promoting(plan.SHIFT, totals=BAD),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm while the candidate enters the Service",
        promoting(plan.OPEN, totals=BAD),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate 40 %",),
        plan.SHIFT,
        0,
    ),
    Case(
        "harm after the target has taken the candidate comes too late",
        adopted(plan.RELEASE, totals=BAD),
        PROMOTING,
        Reason.PROMOTING,
        ("finishes its rollout",),
        plan.RELEASE,
        100,
    ),
    Case(
        "no traffic, no verdict, while pods start",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, totals=BAD, pods=()),
        PREPARING,
        Reason.PREPARING,
        ("0 of 2",),
    ),
)
def test_harm(case: Case) -> None:
    check(case)


LATE = {"run_started_at": ago(3700), "totals": LITTLE}


@table(
    Case(
        "hold at the deadline waits on",
        analysing(**LATE, spec=a_spec(deadline="1h", onInconclusive="Hold")),
        WAITING,
        Reason.WAITING,
        ("43 more requests",),
    ),
    Case(
        "rollback at the deadline rolls back",
        analysing(**LATE, spec=a_spec(deadline="1h", onInconclusive="Rollback")),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("neither harmful nor safe after 1h", "onInconclusive is Rollback"),
        plan.SHIFT,
        0,
    ),
    Case(
        "promote at the deadline promotes",
        analysing(**LATE, spec=a_spec(deadline="1h", onInconclusive="Promote")),
        PROMOTING,
        Reason.PROMOTING,
        stage=plan.SCALE,
        weight=10,
    ),
    Case(
        "promote at the deadline never promotes pods that are not ready",
        analysing(
            plan.SCALE,
            **LATE,
            phase=PREPARING,
            run_weight=0,
            pods=(),
            spec=a_spec(deadline="1h", onInconclusive="Promote"),
        ),
        PREPARING,
        Reason.PREPARING,
        ("0 of 2",),
    ),
    Case(
        "rollback at the deadline also ends a run that prepares",
        analysing(
            plan.SCALE,
            **LATE,
            phase=PREPARING,
            run_weight=0,
            spec=a_spec(deadline="1h", onInconclusive="Rollback"),
        ),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
    ),
    Case(
        "before the deadline nothing is different",
        analysing(totals=LITTLE, spec=a_spec(deadline="1h", onInconclusive="Rollback")),
        WAITING,
        Reason.WAITING,
    ),
    Case(
        "harm counts before the deadline does",
        analysing(run_started_at=ago(3700), totals=BAD, spec=a_spec(deadline="1h", onInconclusive="Promote")),
        ROLLING_BACK,
        Reason.ROLLING_BACK,
        ("success rate",),
    ),
)
def test_deadline(case: Case) -> None:
    check(case)


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


STAGES_OF_A_RUN = {
    "preparing": analysing(plan.SCALE, phase=PREPARING, run_weight=0),
    "scaling for a step": analysing(plan.SCALE, run_step=1),
    "shifting": analysing(plan.SHIFT),
    "judging": analysing(),
    "waiting": analysing(phase=WAITING),
    "scaling for the promotion": promoting(plan.SCALE),
    "shifting all traffic": promoting(plan.SHIFT),
    "entering the Service": promoting(plan.OPEN),
    "about to be adopted": promoting(plan.ADOPT),
}
STAGES_BEYOND = {
    "adopted": adopted(plan.ADOPT, replicasets=(a_set("v1", 2), a_set("v2"))),
    "released": adopted(plan.RELEASE, replicasets=(a_set("v1", 2), a_set("v2"))),
    "rolling out natively": promoting(plan.NATIVE, run_native=True, replicasets=(a_set("v1", 2), a_set("v2", 2))),
    "putting the routes back": restoring(plan.SETTLE, mesh=acknowledged(100)),
}


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


# --- requests of people ---------------------------------------------------------------------------

ASKED = {"token": "t1", "run": "run-1"}


class Asked(NamedTuple):
    sentence: str
    snapshot: Snapshot
    phase: Phase
    answer: str
    step: int | None = None


REQUESTS = (
    Asked(
        "promote passes the present step",
        analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED))),
        ANALYSING,
        "step 1 is passed",
        1,
    ),
    Asked(
        "promote for a step that is over does nothing",
        analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED)), run_step=1),
        ANALYSING,
        "nothing to do: it was meant for step 1, and the run is at step 2",
        1,
    ),
    Asked(
        "promote for another run does nothing",
        analysing(meta=meta(annotations=ordered("promote", token="t1", run="run-0", step=0))),
        ANALYSING,
        "nothing to do: it was meant for run run-0, and run-1 is under way",
        0,
    ),
    Asked(
        "promote ends a pause",
        analysing(phase=WAITING, run_paused=True, meta=meta(annotations=ordered("promote", step=0, **ASKED))),
        ANALYSING,
        "step 1 is passed",
        1,
    ),
    Asked(
        "promote at the last step promotes",
        analysing(run_step=2, run_weight=50, meta=meta(annotations=ordered("promote", step=2, **ASKED))),
        PROMOTING,
        "step 3 is passed",
        3,
    ),
    Asked(
        "promote --full passes every step",
        analysing(meta=meta(annotations=ordered("promote", step=0, full=True, **ASKED))),
        PROMOTING,
        "all remaining steps are passed",
        3,
    ),
    Asked(
        "promote does not pass pods that are not ready",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            meta=meta(annotations=ordered("promote", step=0, full=True, **ASKED)),
        ),
        PREPARING,
        "pods are not ready yet",
        0,
    ),
    Asked(
        "promote while promoting does nothing",
        promoting(plan.SHIFT, meta=meta(annotations=ordered("promote", **ASKED))),
        PROMOTING,
        "nothing to do: the phase is Promoting, which goes on by itself",
        3,
    ),
    Asked(
        "promote without a run does nothing",
        a_snapshot(meta=meta(annotations=ordered("promote"))),
        READY,
        "nothing to do: no run is under way, the phase is Ready",
    ),
    Asked(
        "abort rolls back",
        analysing(meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
        0,
    ),
    Asked(
        "abort works while pods start",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
    ),
    Asked(
        "abort works until the target adopts the candidate",
        promoting(plan.OPEN, meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
    ),
    Asked(
        "abort after that says that it is too late",
        adopted(plan.RELEASE, meta=meta(annotations=ordered("abort", **ASKED))),
        PROMOTING,
        "cannot be undone",
    ),
    Asked(
        "abort while rolling back does nothing",
        rolling_back(meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "nothing to do: the run is being rolled back",
    ),
    Asked(
        "pause keeps the step",
        analysing(meta=meta(annotations=ordered("pause", **ASKED))),
        ANALYSING,
        "the run stays at step 1, 10 %",
        0,
    ),
    Asked(
        "pause twice is once",
        analysing(run_paused=True, phase=WAITING, meta=meta(annotations=ordered("pause", **ASKED))),
        WAITING,
        "nothing to do: the run is paused",
    ),
    Asked(
        "resume goes on",
        analysing(run_paused=True, phase=WAITING, meta=meta(annotations=ordered("resume", **ASKED))),
        WAITING,
        "the run goes on from step 1, 10 %",
    ),
    Asked(
        "resume of a run that is not paused does nothing",
        analysing(meta=meta(annotations=ordered("resume", **ASKED))),
        ANALYSING,
        "nothing to do: the run is not paused",
    ),
    Asked(
        "approve passes the approval",
        analysing(
            phase=WAITING,
            spec=a_spec({"approval": "?"}, {"weight": 50}),
            run_weight=0,
            meta=meta(annotations=ordered("approve", step=0, **ASKED)),
        ),
        ANALYSING,
        "step 1 is approved",
        1,
    ),
    Asked(
        "approve before the approval is reached does not count later",
        analysing(
            spec=a_spec({"weight": 10}, {"approval": "?"}), meta=meta(annotations=ordered("approve", step=0, **ASKED))
        ),
        ANALYSING,
        "nothing to do: step 1 waits for no approval",
        0,
    ),
    Asked(
        "approve for the step to come does nothing",
        analysing(
            spec=a_spec({"weight": 10}, {"approval": "?"}), meta=meta(annotations=ordered("approve", step=1, **ASKED))
        ),
        ANALYSING,
        "nothing to do: it was meant for step 2",
        0,
    ),
    Asked(
        "retry begins a new run",
        failed(meta=meta(annotations=ordered("retry"))),
        PREPARING,
        f"a new run with revision {V2} begins",
    ),
    Asked(
        "retry of what was not refused does nothing",
        analysing(meta=meta(annotations=ordered("retry"))),
        ANALYSING,
        "nothing to do: nothing was rolled back",
    ),
    Asked(
        "retry after the template was set back does nothing",
        failed(target=a_target("v1", paused=True), meta=meta(annotations=ordered("retry"))),
        FAILED,
        "nothing to do: the target holds no other template",
    ),
    Asked(
        "an unknown verb is refused with the list of verbs",
        analysing(meta=meta(annotations=ordered("explode"))),
        ANALYSING,
        'nothing done: "explode" is not one of promote, abort',
    ),
    Asked(
        "a request that cannot be read is answered too",
        analysing(meta=meta(annotations={"command.serinus.dev/t1": '{"verb": ["abort"], "at": 5}'})),
        ANALYSING,
        "nothing done",
    ),
)


@pytest.mark.parametrize("asked", REQUESTS, ids=[asked.sentence for asked in REQUESTS])
def test_requests(asked: Asked) -> None:
    decision = look(asked.snapshot)
    handled = decision.status.commands[0]
    assert asked.answer in handled.result
    assert decision.status.phase is asked.phase
    if asked.step is not None:
        assert decision.status.run is not None
        assert decision.status.run.step == asked.step
    assert any(handled.result in event.message for event in decision.events)
    assert decision.after_s == 0


def test_a_request_that_was_dealt_with_is_not_dealt_with_again():
    snapshot = analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED)))
    first = look(snapshot)
    again = look(replace(snapshot, status=first.status))
    assert len(again.status.commands) == 1
    assert again.status.run is not None
    assert again.status.run.step == 1


def test_two_requests_for_the_same_step_pass_it_once():
    both = {
        **ordered("promote", token="t1", run="run-1", step=0),
        **ordered("promote", token="t2", run="run-1", step=0),
    }
    snapshot = analysing(phase=WAITING, meta=meta(annotations=both))
    first = look(snapshot)
    second = look(replace(snapshot, status=first.status))
    assert second.status.run is not None
    assert second.status.run.step == 1
    assert [command.result.startswith("nothing to do") for command in second.status.commands] == [True, False]


def test_requests_are_remembered_as_long_as_their_annotations_stand():
    waiting = {key: value for n in range(30) for key, value in ordered("pause", token=f"t{n:02}", run="run-0").items()}
    snapshot = analysing(meta=meta(annotations=waiting))
    for _ in range(30):
        snapshot = replace(snapshot, status=look(snapshot).status)
    assert len({command.token for command in snapshot.status.commands}) == 30
    cleared = replace(snapshot, meta=meta(annotations=ordered("pause", token="t99", run="run-0")))
    assert len(look(cleared).status.commands) == 10


# --- suspension, deletion, restart ----------------------------------------------------------------


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


def test_at_weight_100_the_last_window_of_the_stable_version_is_what_is_compared_with():
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
    judged = replace(shift, status=look(shift).status)
    waits = look(judged)
    assert "no request to the candidate yet" in waits.status.message
    assert look(replace(judged, totals=seen(counts(200), counts(100)))).status.phase is PROMOTING
    assert look(replace(judged, totals=seen(counts(200, 60), counts(100)))).status.phase is ROLLING_BACK


def test_a_plan_edited_so_that_the_present_weight_is_gone_goes_on_with_the_next_higher_step():
    edited = a_spec({"weight": 5}, {"weight": 50}, {"weight": 80})
    decision = look(analysing(totals=GOOD, spec=edited, run_step=1, run_weight=20))
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
    decision = look(analysing(totals=GOOD, spec=edited, run_step=4, run_weight=40))
    assert "step 2 of 2: 90 %" in decision.status.message


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


def test_a_handled_request_keeps_its_author_and_time():
    handled = look(analysing(meta=meta(annotations=ordered("abort", **ASKED)))).status.commands[0]
    assert isinstance(handled, HandledCommand)
    assert (handled.token, handled.verb, handled.by) == ("t1", "abort", "ada")
    assert handled.at


def test_a_twin_of_another_canary_is_none_of_ours():
    foreign = a_set("v2", 2, owner="uid-of-another")
    assert look(rolling_back(plan.DRAIN, replicasets=(a_set("v1"), foreign), pods=())).status.phase is FAILED
    assert foreign.owner_uid != OURS
