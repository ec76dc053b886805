"""The candidate on its way: prepared, given its share step by step, judged at each."""

from dataclasses import replace
from datetime import datetime

from serinus.analysis import analyse
from serinus.analysis.model import Evidence, Finding, Judgement, Sample, Verdict
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, Phase, RunStatus
from serinus.api.status import Reason
from serinus.delivery import evidence, experiment, moves, plan
from serinus.delivery.model import Event, Snapshot, Totals, since, stamp
from serinus.delivery.moves import PUSH_S, TICK_S, Move

REQUESTS = "requests"
"""Name of the finding that says why requests cannot be counted."""
UNREAD = "unread-sidecars"
"""Name of the finding that says whose requests are not counted."""
RATE_UNKNOWN_S = 15.0
"""Where no request was seen for so long, an adaptive run begins with the least weight."""


def look(snapshot: Snapshot, spec: CanarySpec, run: RunStatus, now: datetime) -> Move:
    """Carry a run on that is being prepared, analysed, or waits."""
    status, judgement = judged(snapshot, spec, run, now)
    if judgement.verdict is Verdict.HARM:
        return moves.roll_back(status, Reason.ROLLED_BACK, judgement.message, now)
    late = _deadline(status, spec, run, now)
    if late:
        return late
    leg = plan.leg_at(spec, run.step)
    if leg is not None and leg.kind == plan.FAULT and run.stage not in (plan.SCALE, plan.SHIFT):
        if ready_pods(snapshot):
            return experiment.look(snapshot, status, spec, run, judgement, now)
        status = experiment.broken_off(status, now)
    if status.phase is Phase.PREPARING or run.stage == plan.SCALE:
        return _scale(snapshot, status, spec, run, judgement, now)
    if run.stage == plan.SHIFT:
        return _shift(snapshot, status, run, now)
    if run.weight and run.replicas and not ready_pods(snapshot):
        message = f"0 of {run.replicas} candidate pods are ready{trouble(snapshot)}"
        return Move(moves.enter(status, Phase.ANALYSING, plan.SCALE, now), Reason.ANALYSING, message, (), 0)
    return _judge(snapshot, status, spec, judgement, now)


def judged(snapshot: Snapshot, spec: CanarySpec, run: RunStatus, now: datetime) -> tuple[CanaryStatus, Judgement]:
    """Return the status with the present counts and findings in it, and the judgement on them."""
    book = evidence.load(run.evidence).counted(snapshot.totals)
    in_force = bool(run.acknowledged_at)
    sample = Sample(
        total=book.total,
        window=book.window if in_force else Evidence(),
        halves=book.halves,
        before=book.before,
        candidates=max(1, ready_pods(snapshot)),
        stables=max(1, book.stable_pods),
        weight_pct=run.weight,
        at_weight_s=since(run.acknowledged_at, now),
        now_s=since(run.started_at, now),
        readings=snapshot.readings if run.weight else (),
        age_s=snapshot.totals.age_s if snapshot.totals else 0.0,
    )
    judgement = analyse(spec, sample, book.notes)
    if snapshot.totals and snapshot.totals.trouble:
        judgement = _blind(judgement, snapshot.totals, run)
    if snapshot.totals and snapshot.totals.unread and run.weight:
        judgement = _in_part(judgement, snapshot.totals, snapshot.meta.namespace)
    if not run.weight:
        judgement = replace(judgement, verdict=Verdict.UNDECIDED, message="the candidate gets no requests yet")
    book = replace(book, notes=judgement.state)
    status = moves.with_run(
        snapshot.status,
        evidence=book.dump(),
        verdict=judgement.verdict.value,
        metrics=[moves.metric_status(finding) for finding in judgement.findings] if run.weight else run.metrics,
        measured_weight=evidence.measured_weight(book.window) if in_force and run.weight else None,
    )
    return status, judgement


def _blind(judgement: Judgement, totals: Totals, run: RunStatus) -> Judgement:
    """Return the judgement while requests cannot be counted: nothing goes on, and what was seen of harm stays seen."""
    missing = Finding(REQUESTS, Verdict.UNDECIDED, outcome=totals.outcome, message=totals.trouble)
    harm = judgement.verdict is Verdict.HARM
    return replace(
        judgement,
        verdict=Verdict.HARM if harm else Verdict.UNDECIDED,
        message=judgement.message if harm else totals.trouble,
        findings=(*judgement.findings, missing),
        hold=totals.trouble,
        weight_pct=run.weight,
        done=False,
    )


def _in_part(judgement: Judgement, totals: Totals, namespace: str) -> Judgement:
    """Return the judgement while some sidecars give no statistics. Where no request is seen, that may be the reason."""
    pod, why = min(totals.unread, key=lambda each: (not each.pod.startswith(f"{namespace}/"), each.pod))
    words = (
        f"{len(totals.unread)} of {totals.asked} sidecars cannot be read, so their requests do not count; {pod}: {why}"
    )
    told = replace(judgement, findings=(*judgement.findings, Finding(UNREAD, Verdict.UNDECIDED, message=words)))
    if not judgement.starved:
        return told
    return replace(told, message=f"{judgement.message}; {words}", hold=f"{judgement.hold}; {words}")


def ready_pods(snapshot: Snapshot) -> int:
    """Return how many of the candidate's pods have all their containers ready."""
    return sum(pod.containers_ready for pod in snapshot.candidates)


def trouble(snapshot: Snapshot) -> str:
    """Return what keeps the candidate's pods from being ready, in words; empty when nothing is known."""
    twin = snapshot.twin
    if twin and twin.failure:
        return f"; {twin.failure}"
    reasons = sorted({f"{pod.name}: {pod.trouble}" for pod in snapshot.candidates if pod.trouble})
    return f"; {reasons[0]}" if reasons else ""


def not_in_time(snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, wanted: int, now: datetime) -> Move | None:
    """Return the rollback when the candidate's pods took longer than ``progressDeadline`` to become ready."""
    run = status.run
    assert run is not None  # noqa: S101 - callers are phases of a run
    twin = snapshot.twin
    if twin and "quota" in twin.failure:
        message = f"the namespace has no room for the candidate's pods: {twin.failure}; raise the quota and retry"
        return moves.roll_back(status, Reason.QUOTA_EXCEEDED, message, now)
    if since(run.stage_since, now) <= seconds(spec.progress_deadline):
        return None
    message = (
        f"{ready_pods(snapshot)} of {wanted} candidate pods became ready within {spec.progress_deadline}"
        f"{trouble(snapshot)}"
    )
    return moves.roll_back(status, Reason.PROGRESS_DEADLINE, message, now)


def _deadline(status: CanaryStatus, spec: CanarySpec, run: RunStatus, now: datetime) -> Move | None:
    if since(run.started_at, now) <= seconds(spec.deadline) or spec.on_inconclusive == "Hold":
        return None
    leg = plan.leg_at(spec, run.step)
    if leg is not None and leg.kind == plan.WATCH and status.phase is Phase.WATCHING:
        return None  # it has passed
    message = f"neither harmful nor safe after {spec.deadline}; onInconclusive is {spec.on_inconclusive}"
    if spec.on_inconclusive == "Rollback":
        return moves.roll_back(status, Reason.DEADLINE, message, now)
    if status.phase is Phase.PREPARING:
        return None
    passed = moves.with_run(status, step=len(plan.legs(spec)), step_since=stamp(now))
    return moves.promote(passed, now).also(Event(Reason.DEADLINE, message, warning=True))


def _scale(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, judgement: Judgement, now: datetime
) -> Move:
    ready, leg = ready_pods(snapshot), plan.leg_at(spec, run.step)
    phase = plan.phase_of(leg) if leg is not None else Phase.ANALYSING
    if ready < run.replicas:
        message = f"{ready} of {run.replicas} candidate pods are ready{trouble(snapshot)}"
        late = not_in_time(snapshot, status, spec, run.replicas, now)
        reason = Reason.PREPARING if status.phase is Phase.PREPARING else Reason(phase.value)
        return late or Move(status, reason, message, (), TICK_S)
    if status.phase is Phase.PREPARING and leg is not None and leg.kind == plan.APPROVAL:
        return moves.go_to_leg(status, spec, run.step, now)
    weight = max(plan.weight_of(spec, run.step), run.weight)  # the plan may have been edited
    if leg is not None and leg.kind == plan.ADAPTIVE and not run.weight:
        if not judgement.weight_pct and since(run.started_at, now) < RATE_UNKNOWN_S:
            message = "how many requests there are is being counted; the first weight follows from that"
            return Move(status, Reason.PREPARING, message, (), TICK_S)
        weight = judgement.weight_pct or 1
    if run.paused:
        message = f"paused by a person before {plan.place(spec, run.step)} gets its weight of {weight} %"
        return Move(status, Reason.PAUSED, message, (), TICK_S)
    acknowledged_at = run.acknowledged_at if weight == run.weight else ""
    changed = moves.enter(status, phase, plan.SHIFT, now, weight=weight, acknowledged_at=acknowledged_at)
    return Move(changed, Reason(phase.value), f"the sidecars are given weight {weight} %", (), PUSH_S)


def _shift(snapshot: Snapshot, status: CanaryStatus, run: RunStatus, now: datetime) -> Move:
    if snapshot.mesh.weight != run.weight or not snapshot.mesh.complete:
        reason, message = moves.proxies_wait(snapshot, f"weight {run.weight} %")
        return Move(status, reason, message, (), TICK_S)
    assert status.run is not None  # noqa: S101 - a phase of a run
    phase = status.phase or Phase.ANALYSING
    changed = moves.enter(status, phase, plan.JUDGE, now)
    if not run.acknowledged_at:  # else its pods were away for a while, and the step goes on
        book = evidence.load(status.run.evidence).marked()
        changed = moves.with_run(changed, acknowledged_at=stamp(now), evidence=book.dump(), measured_weight=None)
    return Move(changed, Reason(phase.value), f"all sidecars have weight {run.weight} %", (), 0)


def _judge(snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, judgement: Judgement, now: datetime) -> Move:
    """Decide on a weight that every sidecar has: stay, and say why, or go on."""
    run = status.run
    assert run is not None  # noqa: S101 - a phase of a run
    leg = plan.leg_at(spec, run.step)
    place = f"{plan.place(spec, run.step)} at {run.weight} %"
    if run.paused:
        return Move(_as(status, Phase.WAITING), Reason.PAUSED, f"paused by a person at {place}", (), TICK_S)
    if leg is not None and leg.kind == plan.APPROVAL:
        message = f"{place} waits for approval: {leg.text} (serinus approve {snapshot.meta.name})"
        return Move(_as(status, Phase.WAITING), Reason.WAITING, message, (), TICK_S)
    if run.weight == 0:  # the approval that was waited for is not in the plan any more
        return moves.go_to_leg(status, spec, plan.next_leg(spec, run), now)
    left = (leg.hold_s if leg else 0.0) - since(run.acknowledged_at, now)
    if leg is not None and left > 0:
        message = f"{place} for another {plan.about(left)}; {judgement.message}"
        return Move(_as(status, plan.phase_of(leg)), plan.reason_of(leg), message, (), min(TICK_S, left + 0.05))
    if snapshot.mesh.rejections:
        reason, message = moves.proxies_wait(snapshot, "it")
        return Move(_as(status, Phase.WAITING), reason, message, (), TICK_S)
    if leg is not None and leg.kind == plan.ADAPTIVE:
        return _adapt(status, spec, run, judgement, now)
    if _passed(spec, run, judgement):
        return moves.go_to_leg(status, spec, plan.next_leg(spec, run), now)
    why = judgement.hold or judgement.message
    return Move(_as(status, Phase.WAITING), _why_undecided(judgement), f"{place}: {why}", (), TICK_S)


def _passed(spec: CanarySpec, run: RunStatus, judgement: Judgement) -> bool:
    """Whether the run may leave its step or watch.

    On the way, a weight is left when nothing speaks against the candidate and enough requests were seen. What makes it
    the stable version, or puts it under watch, takes proof that it is safe.
    """
    leg = plan.leg_at(spec, run.step)
    if judgement.hold or (leg is not None and leg.kind == plan.WATCH):
        return not judgement.hold
    last = plan.is_last(spec, run)
    limited = any(finding.outcome for finding in judgement.findings if finding.verdict is Verdict.UNDECIDED)
    return judgement.verdict is Verdict.SAFE or (not last and not limited)


def _adapt(status: CanaryStatus, spec: CanarySpec, run: RunStatus, judgement: Judgement, now: datetime) -> Move:
    """Go where the evidence allows."""
    if judgement.done:
        return moves.go_to_leg(status, spec, plan.next_leg(spec, run), now)
    weight = judgement.weight_pct
    if weight > run.weight:
        message = f"the weight rises from {run.weight} % to {weight} %: {judgement.message}"
        changed = moves.enter(status, Phase.ANALYSING, plan.SHIFT, now, weight=weight, acknowledged_at="")
        return Move(changed, Reason.ANALYSING, message, (Event(Reason.ANALYSING, f"weight {weight} %"),), PUSH_S)
    why = f"; {judgement.hold}" if judgement.hold and judgement.hold != judgement.message else ""
    message = f"{plan.place(spec, run.step)} at {run.weight} %{why}; {judgement.message}"
    reason = Reason.METRICS_UNAVAILABLE if _unanswered(judgement) else Reason.ANALYSING
    return Move(_as(status, Phase.ANALYSING), reason, message, (), TICK_S)


def _why_undecided(judgement: Judgement) -> Reason:
    if _unanswered(judgement):
        return Reason.METRICS_UNAVAILABLE
    return Reason.NO_TRAFFIC if judgement.starved else Reason.WAITING


def _unanswered(judgement: Judgement) -> bool:
    """Whether a query that matters has no good answer."""
    outcomes = (finding.outcome for finding in judgement.findings if finding.verdict is Verdict.UNDECIDED)
    return any(outcome not in ("", "Value") for outcome in outcomes)


def _as(status: CanaryStatus, phase: Phase) -> CanaryStatus:
    return status.model_copy(update={"phase": phase})
