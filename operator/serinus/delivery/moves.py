"""How a status changes: the few moves that every phase uses. A move only describes; nothing happens here."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from serinus.analysis.model import Finding
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, MetricStatus, Phase, Promoted, RunStatus
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.model import Event, Snapshot, stamp

TICK_S = 2.0
"""How often a run that waits for evidence is looked at."""
PUSH_S = 0.25
"""So long after a weight was ordered it is looked at again, unless the sidecars' answers cut that short: to look sooner
takes time from the push."""
HISTORY = 10
"""How many promoted revisions and commands a status remembers."""


@dataclass(frozen=True, slots=True)
class Move:
    """The status after one look, the reason and sentence for its conditions, Events, and when to look again.

    ``stalled`` means: this does not go on without a change by a person.
    """

    status: CanaryStatus
    reason: Reason
    message: str
    events: tuple[Event, ...] = ()
    after_s: float | None = None
    stalled: bool = False
    finished: bool = False

    def also(self, *events: Event) -> "Move":
        """Return the move with more Events."""
        return replace(self, events=(*self.events, *events))


def with_run(status: CanaryStatus, **changes: Any) -> CanaryStatus:
    """Return the status with changes in its run."""
    assert status.run is not None  # noqa: S101 - for the type checker: phases of a run have one
    return status.model_copy(update={"run": status.run.model_copy(update=changes)})


def enter(status: CanaryStatus, phase: Phase, stage: str, now: datetime, **changes: Any) -> CanaryStatus:
    """Return the status in a phase and stage that begins now, with changes in its run."""
    changed = with_run(status, stage=stage, stage_since=stamp(now), **changes)
    return changed.model_copy(update={"phase": phase})


def start_run(snapshot: Snapshot, spec: CanarySpec, now: datetime) -> Move:
    """Begin a run with the template that the target holds."""
    target = snapshot.target
    assert target is not None  # noqa: S101 - checked before any phase
    at = stamp(now)
    run_id = f"{target.revision}-{int(now.timestamp() * 1000):x}"
    taken = {replicaset.pod_hash for replicaset in snapshot.replicasets}
    run = RunStatus(
        id=run_id,
        revision=target.revision,
        pod_hash=target.revision if target.revision not in taken else run_id,
        started_at=at,
        step_since=at,
        stage=plan.SCALE,
        stage_since=at,
        replicas=plan.twin_size(plan.room_of(spec, 0), target.replicas),
    )
    status = snapshot.status.model_copy(update={"run": run, "phase": Phase.PREPARING, "rejected": "", "released": ""})
    message = f"revision {run.revision} is held; {run.replicas} pods of it start beside the stable ones"
    return Move(status, Reason.PREPARING, message, (Event(Reason.PREPARING, message),), 0)


def roll_back(status: CanaryStatus, reason: Reason, message: str, now: datetime) -> Move:
    """Take the candidate out of the traffic."""
    changed = enter(status, Phase.ROLLING_BACK, plan.SHIFT, now, weight=0, cause=reason.value, cause_message=message)
    warning = reason not in (Reason.SUPERSEDED, Reason.ABORTED, Reason.DELETED)
    return Move(changed, Reason.ROLLING_BACK, message, (Event(reason, message, warning),), PUSH_S)


def promote(status: CanaryStatus, now: datetime) -> Move:
    """Begin to make the candidate the stable version."""
    changed = enter(status, Phase.PROMOTING, plan.SCALE, now)
    message = f"revision {changed.run.revision if changed.run else ''} passed; it gets all pods, then all traffic"
    return Move(changed, Reason.PROMOTING, message, (Event(Reason.PROMOTING, message),), 0)


def go_to_leg(status: CanaryStatus, spec: CanarySpec, index: int, now: datetime) -> Move:
    """Begin a leg: scale first, then shift. Beyond the last one begins the promotion."""
    leg, place = plan.leg_at(spec, index), plan.place(spec, index)
    if leg is None:
        passed = with_run(status, step=len(plan.legs(spec)), step_since=stamp(now), approved=False)
        return promote(passed, now)
    changes = {"step": index, "step_since": stamp(now), "approved": False}
    if leg.kind == plan.APPROVAL:
        message = f"{place} waits for approval: {leg.text}"
        waiting = enter(status, Phase.WAITING, plan.JUDGE, now, **changes)
        return Move(waiting, Reason.WAITING, message, (Event(Reason.WAITING, message),), 0)
    if leg.kind == plan.FAULT:
        message = f"{place} is next"
        analysing = enter(status, Phase.ANALYSING, plan.JUDGE, now, **changes, experiment={})
        return Move(analysing, Reason.ANALYSING, message, (Event(Reason.ANALYSING, message),), 0)
    message = f"{place}: {leg.weight} % of the requests go to the candidate"
    if leg.kind == plan.WATCH:
        message = f"the candidate has passed; it is watched at {leg.weight} % for {plan.about(leg.hold_s)}"
    begun = enter(status, plan.phase_of(leg), plan.SCALE, now, **changes, acknowledged_at="")
    return Move(begun, plan.reason_of(leg), message, (Event(plan.reason_of(leg), message),), 0)


def settle_stable(status: CanaryStatus, promoted: Promoted) -> CanaryStatus:
    """Return the status with another stable revision; the one before goes into the history."""
    history = status.history
    if status.stable and status.stable.revision != promoted.revision:
        history = [status.stable, *(old for old in history if old.revision != status.stable.revision)][:HISTORY]
    history = [old for old in history if old.revision != promoted.revision]
    return status.model_copy(update={"stable": promoted, "history": history})


def metric_status(finding: Finding) -> MetricStatus:
    """Return a finding as a status tells it."""
    numbers = finding.numbers
    return MetricStatus(
        name=finding.metric,
        verdict=finding.verdict.value,
        outcome=finding.outcome,
        candidate=finding.candidate,
        stable=finding.stable,
        limit=finding.limit,
        message=finding.message,
        bad=numbers.bad if numbers else None,
        requests=numbers.requests if numbers else None,
        stable_bad=numbers.stable_bad if numbers else None,
        stable_requests=numbers.stable_requests if numbers else None,
        excess=list(numbers.excess or ()) if numbers else [],
        harm=numbers.harm if numbers else None,
        safe=numbers.safe if numbers else None,
        needed=numbers.needed if numbers else None,
    )


def proxies_wait(snapshot: Snapshot, what: str) -> tuple[Reason, str]:
    """Return the reason and sentence for waiting until the sidecars have what was published."""
    mesh = snapshot.mesh
    if mesh.rejections:
        return Reason.REJECTED_BY_PROXY, f"a sidecar refused the configuration: {mesh.rejections[0]}"
    slow = f"; the slowest is {mesh.laggards[0][0]}, {mesh.laggards[0][1]:.0f} s" if mesh.laggards else ""
    if not mesh.settled:
        return Reason.WAITING, "sidecars are coming back after a restart of the operator"
    return Reason.WAITING, f"{mesh.acknowledged} of {mesh.connected} sidecars have {what}{slow}"
