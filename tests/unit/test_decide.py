"""What a release does next, as tables: between runs, past the hold, hindered, on its way, harmful, too late."""

from dataclasses import replace

from serinus.analysis.model import Outcome, Reading
from serinus.api.release import Promoted
from serinus.api.status import Reason
from serinus.delivery import evidence, plan
from serinus.delivery.model import Service, Unread

from .tables import Case, check, table
from .world import (
    ANALYSING,
    BAD,
    FAILED,
    GONE,
    GOOD,
    LITTLE,
    PREPARING,
    PROMOTING,
    READY,
    ROLLING_BACK,
    V1,
    V2,
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
    promoting,
    rolling_back,
    seen,
    twin,
    twin_pods,
)

UNREAD = (
    Unread("other/a-1", "no connection to port 15090"),
    Unread("shop/cart-1", "no answer on port 15090 within 1 s"),
)


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
        ("the sidecars are given weight 20 %",),
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
        WAITING,
        Reason.NO_TRAFFIC,
        ("step 1 of 3 at 10 %",),
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
        ("the sidecars are given weight 20 %",),
        plan.SHIFT,
        20,
    ),
    Case(
        "a step that needs more pods waits for them before it gets its weight",
        analysing(totals=GOOD, spec=a_spec({"weight": 10}, {"weight": 90})),
        ANALYSING,
        Reason.ANALYSING,
        ("2 of 4 candidate pods are ready",),
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
        ("the sidecars are given weight 40 %",),
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
        analysing(totals=good_at(50), run_step=2, run_weight=50),
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
    Case(
        "requests that cannot be counted are not a verdict",
        analysing(totals=replace(GOOD, outcome="Timeout", trouble="requests cannot be counted: Timeout")),
        WAITING,
        Reason.METRICS_UNAVAILABLE,
        ("requests cannot be counted: Timeout",),
    ),
    Case(
        "no request, and sidecars that give no statistics",
        analysing(totals=replace(seen(counts(0), counts(900)), asked=9, unread=UNREAD)),
        WAITING,
        Reason.NO_TRAFFIC,
        (
            "the candidate gets 0 % of 900 requests",
            "2 of 9 sidecars cannot be read, so their requests do not count; shop/cart-1: no answer on port 15090",
        ),
    ),
    Case(
        "no request at all, and sidecars that give no statistics",
        analysing(totals=replace(seen(counts(0)), asked=2, unread=UNREAD)),
        WAITING,
        Reason.NO_TRAFFIC,
        ("no request to the candidate yet", "2 of 2 sidecars cannot be read"),
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
