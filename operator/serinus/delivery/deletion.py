"""What becomes of a release when its Canary is deleted: everything is undone, and what serves goes on to serve."""

from datetime import datetime

from serinus.api.release import Phase
from serinus.api.status import Reason
from serinus.delivery import finishing, moves, plan
from serinus.delivery.model import Event, Snapshot, since
from serinus.delivery.moves import Move

UNDO_S = 120.0
"""A deletion waits so long for what it undoes; then it ends all the same, so that no namespace hangs."""


def deleting(snapshot: Snapshot, now: datetime) -> Move:
    """Undo everything: end the run, then label, routes and freeze. A template that is held stays held."""
    status, target, spec = snapshot.status, snapshot.target, snapshot.spec
    if status.phase is Phase.SUSPENDED:
        status = status.model_copy(update={"phase": status.suspended_phase, "suspended_phase": None})
        return Move(status, Reason.DELETED, "the Canary is being deleted", (), 0)
    overdue = since(snapshot.meta.deleted_at, now) > UNDO_S
    if status.run and status.phase is Phase.ROLLING_BACK and since(status.run.stage_since, now) > UNDO_S:
        status = moves.enter(status, Phase.READY, "", now) if _told(snapshot) else status
    if status.run and status.phase in plan.ACTIVE:
        if overdue and status.phase is not Phase.ROLLING_BACK:
            return moves.roll_back(status, Reason.DELETED, "the Canary is being deleted", now)
        if target and spec and finishing.is_final(snapshot, status.run, target):
            return finishing.promoting(snapshot, spec, status.run, target, now)
        if status.phase is Phase.RESTORING:
            return finishing.restoring(snapshot, status.run, now)
        if status.phase is Phase.ROLLING_BACK:
            return finishing.rolling_back(snapshot, status.run, target, now)
        return moves.roll_back(status, Reason.DELETED, "the Canary is being deleted", now)
    left = bool(target and target.labelled) or bool(snapshot.twins) or _frozen(snapshot) or _to_resume(snapshot)
    if left and not overdue:
        return Move(status, Reason.DELETED, "what the Canary left on other objects is taken away", (), 1.0)
    return Move(status, Reason.DELETED, "nothing is left", _farewell(snapshot), finished=True)


def _told(snapshot: Snapshot) -> bool:
    """Whether sidecars were given weight 0, unless there is nothing to give it for. A new operator looks first."""
    service, mesh = snapshot.service, snapshot.mesh
    return mesh.settled and (mesh.weight == 0 or service is None or bool(service.unusable))


def _frozen(snapshot: Snapshot) -> bool:
    return snapshot.autoscaler is not None and snapshot.autoscaler.frozen


def _to_resume(snapshot: Snapshot) -> bool:
    target, stable = snapshot.target, snapshot.status.stable
    held = target is not None and target.paused and not target.break_glass
    return bool(held and target and stable and target.revision == stable.revision)


def _farewell(snapshot: Snapshot) -> tuple[Event, ...]:
    target = snapshot.target
    if target is None or not target.paused or snapshot.status.stable is None:
        return ()
    command = f"kubectl rollout resume deployment/{target.name} -n {snapshot.meta.namespace}"
    message = f"Deployment {target.name} stays paused with a template that was not promoted; to release it: {command}"
    return (Event(Reason.DELETED, message, warning=True),)
