"""What people ask for: each request is dealt with once, at the place that it is about, and answered in a sentence."""

from datetime import datetime

from serinus.api.canary import CanarySpec
from serinus.api.commands import VERBS, Command, commands
from serinus.api.release import CanaryStatus, HandledCommand, Phase
from serinus.api.status import Reason
from serinus.delivery import moves, plan
from serinus.delivery.model import Event, Snapshot, stamp
from serinus.delivery.moves import Move


def pending(snapshot: Snapshot) -> list[Command]:
    """Return the requests that were not dealt with yet, oldest first."""
    done = {handled.token for handled in snapshot.status.commands}
    return [command for command in commands(snapshot.meta.annotations) if command.token not in done]


def carry_out(snapshot: Snapshot, spec: CanarySpec, command: Command, now: datetime) -> Move:
    """Deal with one request: the status that follows, with the request and its result written in it."""
    move, result = _result(snapshot, spec, command, now)
    handled = HandledCommand(token=command.token, verb=command.verb, by=command.by, at=stamp(now), result=result)
    waiting = {other.token for other in commands(snapshot.meta.annotations)}
    kept = [old for index, old in enumerate(move.status.commands) if index < moves.HISTORY - 1 or old.token in waiting]
    status = move.status.model_copy(update={"commands": [handled, *kept]})
    event = Event(Reason.COMMAND, f"{command.verb or 'unreadable request'} by {command.by or 'somebody'}: {result}")
    return Move(status, move.reason, move.message, (event, *move.events), 0)


def _result(snapshot: Snapshot, spec: CanarySpec, command: Command, now: datetime) -> tuple[Move, str]:
    status = snapshot.status
    stay = Move(status, Reason.COMMAND, status.message)
    if command.verb not in VERBS:
        return stay, f'nothing done: "{command.verb}" is not one of {", ".join(VERBS)}'
    if command.verb == "retry":
        return _retry(snapshot, spec, now, stay)
    run = status.run
    if run is None or status.phase not in plan.ACTIVE:
        return stay, f"nothing to do: no run is under way, the phase is {status.phase}"
    if command.run and command.run != run.id:
        return stay, f"nothing to do: it was meant for run {command.run}, and {run.id} is under way"
    if command.verb == "abort":
        return _abort(status, command, now, stay)
    if status.phase not in plan.IN_RUN:
        return stay, f"nothing to do: the phase is {status.phase}, which goes on by itself"
    if command.verb in ("pause", "resume"):
        paused = command.verb == "pause"
        if run.paused is paused:
            return stay, "nothing to do: the run is paused" if paused else "nothing to do: the run is not paused"
        stay = Move(moves.with_run(status, paused=paused), Reason.COMMAND, status.message)
        return stay, f"the run {'stays at' if paused else 'goes on from'} step {run.step + 1}, {run.weight} %"
    return _forward(status, spec, command, now, stay)


def _forward(status: CanaryStatus, spec: CanarySpec, command: Command, now: datetime, stay: Move) -> tuple[Move, str]:
    run = status.run
    assert run is not None  # noqa: S101 - the caller has checked
    if command.step not in (-1, run.step):
        return stay, f"nothing to do: it was meant for step {command.step + 1}, and the run is at step {run.step + 1}"
    leg = plan.leg_at(spec, run.step)
    if command.verb == "approve":
        if leg is None or leg.kind != plan.APPROVAL or status.phase is not Phase.WAITING:
            return stay, f"nothing to do: step {run.step + 1} waits for no approval"
        return moves.go_to_leg(status, spec, plan.next_leg(spec, run), now), f"step {run.step + 1} is approved"
    if status.phase is Phase.PREPARING:
        return stay, "nothing to do: the candidate's pods are not ready yet, so no step can be passed"
    if command.full:
        passed = moves.with_run(status, step=len(plan.legs(spec)), step_since=stamp(now), paused=False)
        return moves.promote(passed, now), "all remaining steps are passed"
    status = moves.with_run(status, paused=False)
    return moves.go_to_leg(status, spec, plan.next_leg(spec, run), now), f"step {run.step + 1} is passed"


def _abort(status: CanaryStatus, command: Command, now: datetime, stay: Move) -> tuple[Move, str]:
    run = status.run
    if status.phase is Phase.ROLLING_BACK:
        return stay, "nothing to do: the run is being rolled back"
    final = run is not None and run.stage in plan.FINAL
    if status.phase is Phase.RESTORING or (status.phase is Phase.PROMOTING and final):
        return stay, "nothing to do: the target has begun to take over the candidate, which cannot be undone"
    message = f"aborted by {command.by or 'a person'}"
    return moves.roll_back(status, Reason.ABORTED, message, now), "the run is rolled back"


def _retry(snapshot: Snapshot, spec: CanarySpec, now: datetime, stay: Move) -> tuple[Move, str]:
    status, target = snapshot.status, snapshot.target
    if status.phase is not Phase.FAILED:
        return stay, f"nothing to do: nothing was rolled back, the phase is {status.phase}"
    if target is None or not target.paused or status.stable is None or target.revision == status.stable.revision:
        return stay, "nothing to do: the target holds no other template than the stable one"
    return moves.start_run(snapshot, spec, now), f"a new run with revision {target.revision} begins"
