"""``decide``: what the status of a release becomes, given the state of the world. This is what Serinus thinks.

One call orders at most one thing. The caller persists the status, projects it (``serinus.delivery.project``), applies
that, and looks again: no status advances before the effect that it ordered has been observed.
"""

from dataclasses import replace
from datetime import datetime

from serinus.analysis.model import Verdict
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, Phase, Promoted, RunStatus
from serinus.api.status import Condition, Reason
from serinus.delivery import deletion, experiment, finishing, moves, plan, requests, running
from serinus.delivery.model import Decision, Event, Snapshot, Target, since, stamp
from serinus.delivery.moves import TICK_S, Move


def decide(snapshot: Snapshot, now: datetime) -> Decision:
    """Return the next status, Events, and when to look again. Pure; the same snapshot gives the same decision."""
    if snapshot.meta.deleted_at:
        move = deletion.deleting(snapshot, now)
    else:
        hindered = _obstacle(snapshot) or _suspended(snapshot)
        move = (hindered and (_stopped(snapshot, now) or hindered)) or _resumed(snapshot) or _live(snapshot, now)
    if move.stalled or move.status.phase is Phase.SUSPENDED:  # nobody looks after an experiment now
        move = replace(move, status=experiment.broken_off(move.status, now))
    status = _described(snapshot, move, now)
    return Decision(status, move.events, move.after_s, move.finished)


def _obstacle(snapshot: Snapshot) -> Move | None:
    """Return why nothing can be decided, in the order in which a user would mend it; what runs stays as it is."""
    meta, spec, target, service = snapshot.meta, snapshot.spec, snapshot.target, snapshot.service
    if spec is None or snapshot.problems:
        return _stalled(snapshot, Reason.INVALID_SPEC, "; ".join(snapshot.problems) or "the spec cannot be read")
    if snapshot.rival:
        message = f"Canary {snapshot.rival} is older and has the same target; delete one of the two"
        return _stalled(snapshot, Reason.CONFLICT, message)
    if target is None:
        message = f"there is no Deployment {spec.target_ref.name} in {meta.namespace}; create it or mend spec.targetRef"
        return _stalled(snapshot, Reason.TARGET_NOT_FOUND, message)
    name = spec.service or spec.target_ref.name
    if service is None:
        message = f"there is no Service {name} in {meta.namespace}; create it, or name another in spec.service"
        return _stalled(snapshot, Reason.SERVICE_NOT_FOUND, message)
    if service.unusable:
        return _stalled(snapshot, Reason.SERVICE_UNUSABLE, service.unusable)
    if snapshot.obstacles and snapshot.status.phase in (None, Phase.READY, Phase.FAILED):
        return _stalled(snapshot, Reason.SERVICE_UNUSABLE, snapshot.obstacles[0])
    return None


def _stalled(snapshot: Snapshot, reason: Reason, message: str) -> Move:
    known = any(c.reason == reason.value and c.message == message for c in snapshot.status.conditions)
    events = () if known else (Event(reason, message, warning=True),)
    return Move(snapshot.status, reason, message, events, 30.0, stalled=True)


def _suspended(snapshot: Snapshot) -> Move | None:
    """Return the standstill that ``spec.suspend`` asks for: weights and evidence are kept."""
    status = snapshot.status
    if snapshot.spec is None or not snapshot.spec.suspend or _ending(status):
        return None
    weight = status.run.weight if status.run and plan.effective_phase(status) in plan.ACTIVE else 0
    message = f"spec.suspend is true; the candidate stays at {weight} % and nothing moves until it is false"
    if status.phase is Phase.SUSPENDED:
        return Move(status, Reason.SUSPENDED, message)
    stopped = status.model_copy(update={"phase": Phase.SUSPENDED, "suspended_phase": status.phase})
    return Move(stopped, Reason.SUSPENDED, message, (Event(Reason.SUSPENDED, message),))


def _stopped(snapshot: Snapshot, now: datetime) -> Move | None:
    """Return how a run is taken back while something hinders it: on a person's abort, or, unless suspended, for harm.

    Users' metrics are left out of it: what hinders may be a metric that was written wrong.
    """
    status, spec = snapshot.status, snapshot.spec
    run, phase = status.run, plan.effective_phase(status)
    if spec is None or run is None or snapshot.rival or phase not in (*plan.IN_RUN, Phase.PROMOTING):
        return None
    awake = replace(snapshot, status=status.model_copy(update={"phase": phase, "suspended_phase": None}))
    abort = next((command for command in requests.pending(snapshot) if command.verb == "abort"), None)
    if abort:
        move = requests.carry_out(awake, spec, abort, now)
        return move if move.status.phase is Phase.ROLLING_BACK else None
    if status.phase is Phase.SUSPENDED or _ending(status):
        return None
    plain = spec.model_copy(update={"analysis": spec.analysis.model_copy(update={"metrics": []})})
    judged, judgement = running.judged(awake, plain, run, now)
    if judgement.verdict is not Verdict.HARM:
        return None
    return moves.roll_back(judged, Reason.ROLLED_BACK, judgement.message, now)


def _ending(status: CanaryStatus) -> bool:
    """Whether a run is at a point at which it does not bear a standstill: the pods that serve are being exchanged."""
    if status.phase in (Phase.RESTORING, Phase.ROLLING_BACK):
        return True
    return status.phase is Phase.PROMOTING and status.run is not None and status.run.stage in plan.FINAL


def _resumed(snapshot: Snapshot) -> Move | None:
    status = snapshot.status
    if status.phase is not Phase.SUSPENDED:
        return None
    awake = status.model_copy(update={"phase": status.suspended_phase, "suspended_phase": None})
    message = "spec.suspend is false; the release goes on where it was"
    return Move(awake, Reason.WAITING, message, (Event(Reason.SUSPENDED, message),), 0)


def _live(snapshot: Snapshot, now: datetime) -> Move:
    """Decide on a Canary that has what it needs and may move; where a move orders nothing, also on what is next.

    So a weight takes two looks, each with a write: one that orders it, and one that sees it in force.
    """
    move = _moved(snapshot, now)
    if not _ordered_nothing(snapshot, move):
        return move
    following = _moved(replace(snapshot, status=move.status), now)
    stays = _place(following.status) == _place(move.status) and following.status.phase in plan.IN_RUN
    return replace(following, events=(*move.events, *following.events)) if stays else move


def _ordered_nothing(snapshot: Snapshot, move: Move) -> bool:
    """Whether a run came to a leg that has not asked for anything yet, or to a weight that is in force."""
    before, run = snapshot.status.run, move.status.run
    if before is None or run is None or before.id != run.id or move.status.phase not in plan.IN_RUN:
        return False
    arrived = run.stage == plan.SCALE and before.step != run.step
    in_force = run.stage == plan.JUDGE and before.stage == plan.SHIFT
    return arrived or in_force


def _place(status: CanaryStatus) -> tuple[str, int] | None:
    return (status.run.id, status.run.step) if status.run else None


def _moved(snapshot: Snapshot, now: datetime) -> Move:
    """Return one move of a Canary that may move: what a person asked for, else what the run or the target asks for."""
    spec, target, status = snapshot.spec, snapshot.target, snapshot.status
    assert spec is not None  # noqa: S101 - _obstacle has seen to it
    assert target is not None  # noqa: S101 - _obstacle has seen to it
    asked = requests.pending(snapshot)
    if asked:
        return requests.carry_out(snapshot, spec, asked[0], now)
    if status.run is None or status.phase not in plan.ACTIVE:
        return _idle(snapshot, spec, target, now)
    turned = _interrupted(snapshot, status.run, target, now)
    if turned:
        return turned
    snapshot = _sized(snapshot, spec, target)
    return _carry_on(snapshot, spec, target, now)


def _carry_on(snapshot: Snapshot, spec: CanarySpec, target: Target, now: datetime) -> Move:
    run = snapshot.status.run
    assert run is not None  # noqa: S101 - the caller has seen to it
    phase = snapshot.status.phase
    if phase is Phase.PROMOTING:
        return finishing.promoting(snapshot, spec, run, target, now)
    if phase is Phase.RESTORING:
        return finishing.restoring(snapshot, run, now)
    if phase is Phase.ROLLING_BACK:
        return finishing.rolling_back(snapshot, run, target, now)
    return running.look(snapshot, spec, run, now)


def _sized(snapshot: Snapshot, spec: CanarySpec, target: Target) -> Snapshot:
    """Return the snapshot with the candidate's size following the target's and the present step's weight."""
    status, run = snapshot.status, snapshot.status.run
    assert run is not None  # noqa: S101 - the caller has seen to it
    if status.phase is Phase.PROMOTING:
        size = target.replicas
    elif status.phase in plan.IN_RUN:
        size = plan.twin_size(max(plan.room_of(spec, run.step), run.weight), target.replicas)
    else:
        return snapshot
    return replace(snapshot, status=moves.with_run(status, replicas=size))


def _interrupted(snapshot: Snapshot, run: RunStatus, target: Target, now: datetime) -> Move | None:
    """Return how a run ends early because the target changed under it, as long as it can still be taken back."""
    status = snapshot.status
    if status.phase in (Phase.RESTORING, Phase.ROLLING_BACK) or finishing.is_final(snapshot, run, target):
        return None
    if status.stable and target.revision == status.stable.revision:
        message = f"the template was set back to the stable revision {target.revision}; the run ends"
        return moves.roll_back(status, Reason.ABORTED, message, now)
    if target.break_glass or not target.paused:
        why = "break-glass is set on the target" if target.break_glass else "the target was released past the hold"
        return moves.roll_back(status, Reason.BYPASSED, f"{why}; it rolls out by itself, the run ends", now)
    if target.revision == run.revision:
        return None
    message = f"revision {target.revision} takes the place of {run.revision}; it gets a run of its own"
    return moves.roll_back(status, Reason.SUPERSEDED, message, now)


def _idle(snapshot: Snapshot, spec: CanarySpec, target: Target, now: datetime) -> Move:
    """Decide between runs: adopt, stay, start a run, let a known template through, or admit that we were bypassed."""
    status = snapshot.status
    if status.stable is None:
        return _adopt(snapshot, target, now)
    if target.revision == status.stable.revision:
        return _same(status, target)
    if not target.paused or target.break_glass:
        return _rolling(status, target, now)
    if status.phase is Phase.FAILED and status.run and target.revision == status.rejected:
        return Move(status, Reason(status.run.cause), status.run.cause_message, stalled=True)
    known = _known(status, spec, target, now)
    if known and status.released == target.revision:
        return _rolling(status, target, now)
    if known:
        let = status.model_copy(update={"released": target.revision, "phase": Phase.READY})
        return Move(let, Reason.RELEASED, known, (Event(Reason.RELEASED, known),), 0)
    return moves.start_run(snapshot, spec, now)


def _adopt(snapshot: Snapshot, target: Target, now: datetime) -> Move:
    status = snapshot.status
    serving = target.revision
    if target.paused:
        # With our label it was held between label and adoption: what serves is adopted, what is held gets a run.
        serving = _serving(snapshot, target) if target.labelled else ""
    elif not target.settled:
        return Move(status, Reason.WAITING, "the target's own rollout must end before it is adopted", (), TICK_S)
    elif not target.labelled:
        return Move(status, Reason.WAITING, "the target gets its label", (), 1.0)
    if not serving:
        message = f"the target is paused; kubectl rollout resume deployment/{target.name}, and it is adopted"
        return Move(status, Reason.WAITING, message, (), 30.0)
    message = f"revision {serving} serves and is the stable version"
    adopted = moves.settle_stable(status, Promoted(revision=serving, at=stamp(now)))
    adopted = adopted.model_copy(update={"phase": Phase.READY})
    return Move(adopted, Reason.ADOPTED, message, (Event(Reason.ADOPTED, message),))


def _serving(snapshot: Snapshot, target: Target) -> str:
    """Return the one revision that all the target's pods are of and that is ready; empty when there is none."""
    own = {rs.revision for rs in snapshot.targets_own if rs.replicas}
    if len(own) != 1:
        return ""
    (serving,) = own
    return serving if snapshot.ready_of(serving) >= target.replicas else ""


def _same(status: CanaryStatus, target: Target) -> Move:
    stable = status.stable
    assert stable is not None  # noqa: S101 - the caller has seen to it
    if status.phase is Phase.FAILED or target.paused or status.released:
        message = f"the template is the stable revision {stable.revision} again; no run is needed"
        back = status.model_copy(update={"phase": Phase.READY, "rejected": "", "released": ""})
        return Move(back, Reason.RELEASED, message, (), 1.0 if target.paused else 0)
    return Move(status.model_copy(update={"phase": Phase.READY}), Reason.PROMOTED, f"revision {stable.revision} serves")


def _known(status: CanaryStatus, spec: CanarySpec, target: Target, now: datetime) -> str:
    """Return why a held template needs no run; empty when it needs one."""
    if target.replicas == 0:
        return f"revision {target.revision} is released without a run: the target has 0 replicas, so nothing serves"
    for old in status.history:
        if old.revision == target.revision and since(old.at, now) <= seconds(spec.rollback_window):
            return f"revision {old.revision} was promoted within {spec.rollback_window}; it is released without a run"
    return ""


def _rolling(status: CanaryStatus, target: Target, now: datetime) -> Move:
    """Follow a native rollout that no run stands behind, and take its end as it is."""
    released = status.released == target.revision
    reason = Reason.RELEASED if released else Reason.BYPASSED
    if target.paused and not released:
        message = "break-glass is set: the template is not held; kubectl rollout resume, and it rolls out unjudged"
        return Move(status, reason, message, (), 30.0)
    if target.paused or not target.settled:
        message = f"revision {target.revision} rolls out by itself, without a run"
        return Move(status, reason, message, (), TICK_S)
    message = f"revision {target.revision} rolled out without a run and is the stable version"
    done = moves.settle_stable(status, Promoted(revision=target.revision, at=stamp(now)))
    done = done.model_copy(update={"phase": Phase.READY, "released": "", "rejected": ""})
    return Move(done, reason, message, (Event(reason, message, warning=not released),), 0)


def _described(snapshot: Snapshot, move: Move, now: datetime) -> CanaryStatus:
    """Return the status with its message, its columns and its conditions."""
    status, run = move.status, move.status.run
    phase = plan.effective_phase(status)
    active = run is not None and phase in plan.ACTIVE
    steps = len(plan.legs(snapshot.spec)) if snapshot.spec else 0
    conditions = _conditions(snapshot, move, status.phase, now)
    return status.model_copy(
        update={
            "observed_generation": snapshot.meta.generation,
            "message": move.message,
            "weight": run.weight if run and active else 0,
            "step": f"{min(run.step + 1, steps)}/{steps}" if run and active else "",
            "conditions": conditions,
        }
    )


def _conditions(snapshot: Snapshot, move: Move, phase: Phase | None, now: datetime) -> list[Condition]:
    quiet = phase is Phase.READY and move.after_s is None
    if move.stalled:
        wanted = [("Stalled", "True"), ("Ready", "False")]
    elif phase is Phase.SUSPENDED:
        wanted = [("Ready", "Unknown")]
    elif quiet:
        wanted = [("Ready", "True")]
    else:
        wanted = [("Reconciling", "True"), ("Ready", "Unknown")]
    before: dict[str, Condition] = {condition.type: condition for condition in snapshot.status.conditions}
    conditions = []
    for kind, value in wanted:
        condition = Condition(
            type=kind,  # type: ignore[arg-type]
            status=value,  # type: ignore[arg-type]
            reason=move.reason.value,
            message=move.message,
            observed_generation=snapshot.meta.generation,
        )
        old = before.get(kind)
        same = old and (old.status, old.reason, old.message) == (condition.status, condition.reason, condition.message)
        at = old.last_transition_time if old and same else stamp(now)
        conditions.append(condition.model_copy(update={"last_transition_time": at}))
    return conditions
