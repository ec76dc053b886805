"""The candidate on its way: prepared, given its share step by step, judged at each."""

import math
from dataclasses import replace
from datetime import datetime

from serinus.analysis import judge
from serinus.analysis.model import Judgement, Verdict
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec, CanaryStatus, MetricStatus, Phase, RunStatus
from serinus.api.status import Reason
from serinus.delivery import evidence, moves, plan
from serinus.delivery.model import Event, Snapshot, since, stamp
from serinus.delivery.moves import TICK_S, Move


def look(snapshot: Snapshot, spec: CanarySpec, run: RunStatus, now: datetime) -> Move:
    """Carry a run on that is being prepared, analysed, or waits."""
    status, judgement = judged(snapshot, spec, run)
    if judgement.verdict is Verdict.HARM:
        return moves.roll_back(status, Reason.ROLLED_BACK, judgement.message, now)
    late = _deadline(status, spec, run, now)
    if late:
        return late
    if status.phase is Phase.PREPARING:
        return _scale(snapshot, status, spec, run, now)
    if run.stage == plan.SCALE:
        return _scale(snapshot, status, spec, run, now)
    if run.stage == plan.SHIFT:
        return _shift(snapshot, status, run, now)
    if run.weight and run.replicas and not ready_pods(snapshot):
        message = f"0 of {run.replicas} candidate pods are ready{trouble(snapshot)}"
        return Move(moves.enter(status, Phase.ANALYSING, plan.SCALE, now), Reason.ANALYSING, message, (), 0)
    return _judge(snapshot, status, spec, judgement, now)


def judged(snapshot: Snapshot, spec: CanarySpec, run: RunStatus) -> tuple[CanaryStatus, Judgement]:
    """Return the status with the present counts and findings in it, and the judgement on them."""
    book = evidence.load(run.evidence).counted(snapshot.totals)
    if run.weight == 0:
        nothing = Judgement(Verdict.UNDECIDED, "the candidate gets no requests yet")
        return moves.with_run(snapshot.status, evidence=book.dump(), verdict="Undecided"), nothing
    window = book.window if run.weight < 100 else book.compared
    judgement = judge(spec.analysis, window, snapshot.readings, dict(book.notes or {}))
    book = replace(book, notes=judgement.state)
    metrics = [
        MetricStatus(
            name=finding.metric,
            verdict=finding.verdict.value,
            outcome=finding.outcome,
            candidate=finding.candidate,
            stable=finding.stable,
            limit=finding.limit,
            message=finding.message,
        )
        for finding in judgement.findings
    ]
    status = moves.with_run(
        snapshot.status,
        evidence=book.dump(),
        verdict=judgement.verdict.value,
        metrics=metrics,
        measured_weight=evidence.measured_weight(book.window),
    )
    return status, judgement


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


def proxies_wait(snapshot: Snapshot, what: str) -> tuple[Reason, str]:
    """Return the reason and sentence for waiting until the sidecars have what was published."""
    mesh = snapshot.mesh
    if mesh.rejections:
        return Reason.REJECTED_BY_PROXY, f"a sidecar refused the configuration: {mesh.rejections[0]}"
    slow = f"; the slowest is {mesh.laggards[0][0]}, {mesh.laggards[0][1]:.0f} s" if mesh.laggards else ""
    if not mesh.settled:
        return Reason.WAITING, "sidecars are coming back after a restart of the operator"
    return Reason.WAITING, f"{mesh.acknowledged} of {mesh.connected} sidecars have {what}{slow}"


def _deadline(status: CanaryStatus, spec: CanarySpec, run: RunStatus, now: datetime) -> Move | None:
    if since(run.started_at, now) <= seconds(spec.deadline) or spec.on_inconclusive == "Hold":
        return None
    message = f"neither harmful nor safe after {spec.deadline}; onInconclusive is {spec.on_inconclusive}"
    if spec.on_inconclusive == "Rollback":
        return moves.roll_back(status, Reason.DEADLINE, message, now)
    if status.phase is Phase.PREPARING:
        return None
    passed = moves.with_run(status, step=len(spec.strategy.steps), step_since=stamp(now))
    return moves.promote(passed, now).also(Event(Reason.DEADLINE, message, warning=True))


def _scale(snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, now: datetime) -> Move:
    ready = ready_pods(snapshot)
    if ready < run.replicas:
        message = f"{ready} of {run.replicas} candidate pods are ready{trouble(snapshot)}"
        late = not_in_time(snapshot, status, spec, run.replicas, now)
        reason = Reason.PREPARING if status.phase is Phase.PREPARING else Reason.ANALYSING
        return late or Move(status, reason, message, (), TICK_S)
    step = plan.step_at(spec, run.step)
    if status.phase is Phase.PREPARING and step is not None and step.approval is not None:
        return moves.go_to_step(status, spec, run.step, now)
    weight = max(plan.weight_of(spec, run.step), run.weight)  # the plan may have been edited
    if run.paused:
        message = f"paused by a person before {_place(spec, run)} gets its weight of {weight} %"
        return Move(status, Reason.PAUSED, message, (), TICK_S)
    acknowledged_at = run.acknowledged_at if weight == run.weight else ""
    changed = moves.enter(status, Phase.ANALYSING, plan.SHIFT, now, weight=weight, acknowledged_at=acknowledged_at)
    return Move(changed, Reason.ANALYSING, f"the sidecars are given weight {weight} %", (), 0)


def _shift(snapshot: Snapshot, status: CanaryStatus, run: RunStatus, now: datetime) -> Move:
    if snapshot.mesh.weight != run.weight or not snapshot.mesh.complete:
        reason, message = proxies_wait(snapshot, f"weight {run.weight} %")
        return Move(status, reason, message, (), TICK_S)
    assert status.run is not None  # noqa: S101 - a phase of a run
    changed = moves.enter(status, Phase.ANALYSING, plan.JUDGE, now)
    if not run.acknowledged_at:  # else its pods were away for a while, and the step goes on
        book = evidence.load(status.run.evidence).marked()
        changed = moves.with_run(changed, acknowledged_at=stamp(now), evidence=book.dump(), measured_weight=None)
    return Move(changed, Reason.ANALYSING, f"all sidecars have weight {run.weight} %", (), 0)


def _judge(snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, judgement: Judgement, now: datetime) -> Move:
    run = status.run
    assert run is not None  # noqa: S101 - a phase of a run
    step = plan.step_at(spec, run.step)
    place = f"{_place(spec, run)} at {run.weight} %"
    if run.paused:
        return Move(_as(status, Phase.WAITING), Reason.PAUSED, f"paused by a person at {place}", (), TICK_S)
    if step is not None and step.approval is not None:
        message = f"{place} waits for approval: {step.approval} (serinus approve {snapshot.meta.name})"
        return Move(_as(status, Phase.WAITING), Reason.WAITING, message, (), TICK_S)
    if run.weight == 0:  # the approval that was waited for is not in the plan any more
        return moves.go_to_step(status, spec, plan.next_step(spec, run), now)
    left = (plan.hold_s(step) if step else 0.0) - since(run.acknowledged_at, now)
    if left > 0:
        message = f"{place} for another {_about(left)}; {judgement.message}"
        return Move(_as(status, Phase.ANALYSING), Reason.ANALYSING, message, (), min(TICK_S, left + 0.05))
    if snapshot.mesh.rejections:
        reason, message = proxies_wait(snapshot, "it")
        return Move(_as(status, Phase.WAITING), reason, message, (), TICK_S)
    if judgement.verdict is Verdict.SAFE:
        return moves.go_to_step(status, spec, plan.next_step(spec, run), now)
    return Move(_as(status, Phase.WAITING), _why_undecided(judgement), f"{place}: {judgement.message}", (), TICK_S)


def _place(spec: CanarySpec, run: RunStatus) -> str:
    return f"step {min(run.step + 1, len(spec.strategy.steps))} of {len(spec.strategy.steps)}"


def _about(seconds_left: float) -> str:
    """Return a time in words that do not change with every look, so that the status is not written for them alone."""
    if seconds_left > 120:
        return f"{math.ceil(seconds_left / 60)} min"
    return f"{math.ceil(seconds_left / 5) * 5} s" if seconds_left > 10 else f"{math.ceil(seconds_left)} s"


def _why_undecided(judgement: Judgement) -> Reason:
    for finding in judgement.findings:
        if finding.verdict is Verdict.UNDECIDED and finding.outcome not in ("", "Value"):
            return Reason.METRICS_UNAVAILABLE
    undecided = [finding for finding in judgement.findings if finding.verdict is Verdict.UNDECIDED]
    return Reason.NO_TRAFFIC if any(finding.candidate is None for finding in undecided) else Reason.WAITING


def _as(status: CanaryStatus, phase: Phase) -> CanaryStatus:
    return status.model_copy(update={"phase": phase})
