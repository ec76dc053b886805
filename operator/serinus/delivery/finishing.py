"""How a run ends: the candidate becomes the stable version, or leaves; and then what was put up is taken down."""

from datetime import datetime

from serinus.analysis.model import Verdict
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, Phase, Promoted, RunStatus
from serinus.api.status import Reason
from serinus.delivery import moves, plan, running
from serinus.delivery.model import Event, ReplicaSet, Snapshot, Target, since, stamp
from serinus.delivery.moves import PUSH_S, TICK_S, Move

REVISION_NUMBER = "deployment.kubernetes.io/revision"
"""The Deployment controller writes this on the ReplicaSet that it takes for the newest. Before it knows the adopted one
a released target would get another one."""
LAGGARDS_S = 15.0
"""A rollback waits so long for sidecars that do not acknowledge; then the twin goes all the same."""


def promoting(snapshot: Snapshot, spec: CanarySpec, run: RunStatus, target: Target, now: datetime) -> Move:
    """Carry a promotion on. Until the target adopts the candidate, harm still takes it back."""
    status = snapshot.status
    if run.stage in (plan.SCALE, plan.SHIFT, plan.OPEN):
        status, judgement = running.judged(snapshot, spec, run, now)
        if judgement.verdict is Verdict.HARM:
            return moves.roll_back(status, Reason.ROLLED_BACK, judgement.message, now)
    return _STAGES[run.stage](snapshot, status, spec, run, target, now)


def _scale(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, target: Target, now: datetime
) -> Move:
    ready = running.ready_pods(snapshot)
    if ready < target.replicas:
        late = running.not_in_time(snapshot, status, spec, target.replicas, now)
        message = (
            f"{ready} of {target.replicas} candidate pods are ready to take all traffic{running.trouble(snapshot)}"
        )
        return late or Move(status, Reason.PROMOTING, message, (), TICK_S)
    changed = moves.enter(status, Phase.PROMOTING, plan.SHIFT, now, weight=100, acknowledged_at="")
    return Move(changed, Reason.PROMOTING, "the sidecars are given weight 100 %", (), PUSH_S)


def _shift(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, _target: Target, now: datetime
) -> Move:
    if snapshot.mesh.weight != run.weight or not snapshot.mesh.complete:
        reason, message = moves.proxies_wait(snapshot, "weight 100 %")
        return Move(status, reason, message, (), TICK_S)
    acknowledged = {"acknowledged_at": stamp(now)}
    why_not = not_adoptable(snapshot, spec, run)
    if why_not:
        message = f"the target rolls out by itself, traffic stays on the candidate's pods meanwhile: {why_not}"
        changed = moves.enter(status, Phase.PROMOTING, plan.NATIVE, now, native=True, **acknowledged)
        return Move(changed, Reason.PROMOTING, message, (Event(Reason.PROMOTING, message),), 0)
    changed = moves.enter(status, Phase.PROMOTING, plan.OPEN, now, **acknowledged)
    return Move(changed, Reason.PROMOTING, "the candidate's pods enter the Service", (), 0)


def not_adoptable(snapshot: Snapshot, spec: CanarySpec, run: RunStatus) -> str:
    """Return why the target cannot adopt the candidate's ReplicaSet; empty when it can."""
    if spec.candidate.without_labels:
        return "the candidate's pods lack labels (candidate.withoutLabels), which cannot be mended in place"
    for replicaset in snapshot.replicasets:
        if replicaset.owner_uid != snapshot.meta.uid and replicaset.revision == run.revision:
            return f"ReplicaSet {replicaset.name} in the target's history has an equal template and would be preferred"
    return ""


def _open(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, _run: RunStatus, target: Target, now: datetime
) -> Move:
    serving = sum(pod.gate_open and pod.ready for pod in snapshot.candidates)
    if serving < target.replicas:
        message = f"{serving} of {target.replicas} candidate pods are in the Service"
        late = running.not_in_time(snapshot, status, spec, target.replicas, now)
        return late or Move(status, Reason.PROMOTING, message, (), TICK_S)
    changed = moves.enter(status, Phase.PROMOTING, plan.ADOPT, now)
    return Move(changed, Reason.PROMOTING, "the target adopts the candidate's ReplicaSet", (), 0)


def _annotations(replicaset: ReplicaSet) -> dict[str, str]:
    return replicaset.manifest["metadata"].get("annotations") or {}


def _adopt(
    snapshot: Snapshot, status: CanaryStatus, _spec: CanarySpec, run: RunStatus, target: Target, now: datetime
) -> Move:
    twin = snapshot.twin
    if twin is None or twin.owner_uid != target.uid:
        return Move(status, Reason.PROMOTING, "the target adopts the candidate's ReplicaSet", (), TICK_S)
    others = sum(rs.replicas for rs in snapshot.targets_own if rs.uid != twin.uid)
    if others and (target.revision != run.revision or REVISION_NUMBER not in _annotations(twin)):
        message = f"the target's controller takes the judged pods over; {others} older pods leave"
        return Move(status, Reason.PROMOTING, message, (), TICK_S)
    changed = moves.enter(status, Phase.PROMOTING, plan.RELEASE, now)
    return Move(changed, Reason.PROMOTING, "the target is released", (), 0)


def _release(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, target: Target, now: datetime
) -> Move:
    whole = target.revision == run.revision and not target.paused and target.settled
    if not whole and not (target.revision != run.revision and target.paused and _only_judged(snapshot, run, target)):
        set_back = status.stable is not None and target.revision == status.stable.revision
        message = f"the target's controller finishes its rollout of revision {run.revision}"
        if set_back:
            message = f"the template was set back; the target's controller goes back to revision {target.revision}"
        if since(run.stage_since, now) > seconds(spec.progress_deadline):
            message += f", for longer than {spec.progress_deadline}; traffic stays on the judged pods"
            return Move(status, Reason.PROGRESS_DEADLINE, message, (), TICK_S, stalled=True)
        return Move(status, Reason.PROMOTING, message, (), TICK_S)
    changed = moves.settle_stable(status, Promoted(revision=run.revision, at=stamp(now)))
    changed = moves.enter(changed, Phase.RESTORING, plan.SETTLE, now)
    message = f"revision {run.revision} is the stable version; the routes are put back"
    event = Event(Reason.PROMOTED, f"revision {run.revision} is promoted")
    return Move(changed, Reason.RESTORING, message, (event,), 0)


def _only_judged(snapshot: Snapshot, run: RunStatus, target: Target) -> bool:
    """Whether, beneath a newer template that is held, all the target's pods are of the revision that was judged."""
    own = {rs.revision for rs in snapshot.targets_own if rs.replicas}
    return own <= {run.revision} and snapshot.ready_of(run.revision) >= target.replicas


_STAGES = {
    plan.SCALE: _scale,
    plan.SHIFT: _shift,
    plan.OPEN: _open,
    plan.ADOPT: _adopt,
    plan.RELEASE: _release,
    plan.NATIVE: _release,
}


def restoring(snapshot: Snapshot, run: RunStatus, now: datetime) -> Move:
    """Put the routes back onto the stable endpoints, which are the promoted pods by now, and take the helpers away."""
    status, mesh = snapshot.status, snapshot.mesh
    if run.stage == plan.SETTLE:
        if not mesh.shifted or not mesh.complete:
            reason, message = moves.proxies_wait(snapshot, "the promoted pods as stable ones")
            return Move(status, reason, message, (), TICK_S)
        changed = moves.enter(status, Phase.RESTORING, plan.SHIFT, now, weight=0, acknowledged_at="")
        return Move(changed, Reason.RESTORING, "the sidecars are given the plain route", (), PUSH_S)
    if run.stage == plan.SHIFT:
        if mesh.weight != 0 or not mesh.complete:
            reason, message = moves.proxies_wait(snapshot, "the plain route")
            return Move(status, reason, message, (), TICK_S)
        changed = moves.enter(status, Phase.RESTORING, plan.CLEAN, now)
        return Move(changed, Reason.RESTORING, "helpers are taken away", (), 0)
    left = [twin.name for twin in snapshot.twins] + [pod.name for pod in snapshot.candidates if pod.tracked]
    frozen = snapshot.autoscaler is not None and snapshot.autoscaler.frozen
    if left or frozen:
        return Move(status, Reason.RESTORING, f"{len(left)} helpers are being taken away", (), TICK_S)
    message = f"revision {run.revision} serves"
    changed = moves.enter(status, Phase.READY, "", now)
    return Move(changed, Reason.PROMOTED, message, (), 0)


def rolling_back(snapshot: Snapshot, run: RunStatus, target: Target | None, now: datetime) -> Move:
    """Take the candidate out of the routes, then take it away, then say where that leaves the release."""
    status, mesh = snapshot.status, snapshot.mesh
    if run.stage == plan.SHIFT:
        given = mesh.weight == 0 and mesh.settled  # by this process: while none runs, sidecars are given nothing
        slow = all(waited_s >= LAGGARDS_S for _, waited_s in mesh.laggards)
        overdue = given and slow and since(run.stage_since, now) >= LAGGARDS_S
        if not overdue and not (given and mesh.complete):
            _, message = moves.proxies_wait(snapshot, "weight 0 %")
            return Move(status, Reason.ROLLING_BACK, f"{run.cause_message}; {message}", (), TICK_S)
        changed = moves.enter(status, Phase.ROLLING_BACK, plan.DRAIN, now)
        return Move(changed, Reason.ROLLING_BACK, f"{run.cause_message}; the candidate's pods drain", (), 0)
    if snapshot.twins or any(pod.tracked for pod in snapshot.candidates):  # what the target has taken stays, untracked
        return Move(status, Reason.ROLLING_BACK, f"{run.cause_message}; the candidate's pods drain", (), TICK_S)
    return _after_rollback(status, run, target, now)


def _after_rollback(status: CanaryStatus, run: RunStatus, target: Target | None, now: datetime) -> Move:
    held = target is not None and target.paused and target.revision == run.revision
    if held and run.cause not in (Reason.DELETED, Reason.SUPERSEDED, Reason.BYPASSED):
        changed = moves.enter(status, Phase.FAILED, "", now)
        changed = changed.model_copy(update={"rejected": run.revision})
        reason = Reason(run.cause)
        return Move(changed, reason, run.cause_message, (), 0, stalled=True)
    changed = moves.enter(status, Phase.READY, "", now)
    return Move(changed, Reason(run.cause), run.cause_message, (), 0)


def is_final(snapshot: Snapshot, run: RunStatus, target: Target) -> bool:
    """Whether the target has begun to take the candidate over, so that the run ends as a promotion whatever is held."""
    stage, stable, twin = run.stage, snapshot.status.stable, snapshot.twin
    if snapshot.status.phase is not Phase.PROMOTING or stage not in plan.FINAL:
        return False
    if target.revision == run.revision:
        return target.paused or stage != plan.ADOPT or (twin is not None and twin.owner_uid == target.uid)
    taken = any(rs.revision == run.revision and rs.replicas for rs in snapshot.targets_own)
    if stable and target.revision == stable.revision and stage != plan.RELEASE:
        in_service = snapshot.ready_of(stable.revision) + snapshot.ready_of(run.revision)
        return taken and in_service < target.replicas
    return target.paused and (taken or stage == plan.RELEASE)
