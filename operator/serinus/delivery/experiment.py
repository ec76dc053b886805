"""An experiment of the fault gate, from its two groups of pods to its verdict.

Stage by stage: what must hold before is waited for (``JUDGE``), the pods start (``ARMS``), get their share of the
requests (``WARM``), meet the fault (``INJECT``), and are looked at when it is over (``RECOVER``). A stage that is
interrupted, by a restart of ours for one, is begun again: counts that somebody else took are not added up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serinus.analysis.gatemodel import Ending, GateJudgement, GateStage
from serinus.analysis.model import Evidence, Judgement, Verdict
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec
from serinus.api.fault import Experiment, Injection
from serinus.api.release import CanaryStatus, ExperimentStatus, Phase, RunStatus
from serinus.api.status import Reason
from serinus.delivery import evidence, moves, plan
from serinus.delivery.arms import arm_hashes, arm_size
from serinus.delivery.faulting import effect_words
from serinus.delivery.gauging import Gauge
from serinus.delivery.model import Event, Snapshot, since, stamp
from serinus.delivery.moves import TICK_S, Move

NEEDED = 500
"""So many requests to the candidate are seen before anything is broken on purpose."""
WARM_S = 10.0
"""New pods get requests for so long before the fault: what only a start costs is no answer to it."""
OPENED_WITHIN_S = 20.0
"""Sidecars have so long to say that they inject."""
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at an experiment: all that a stage needs."""

    snapshot: Snapshot
    status: CanaryStatus
    spec: CanarySpec
    run: RunStatus
    judgement: Judgement
    now: datetime
    experiment: Experiment
    injection: Injection

    @property
    def title(self) -> str:
        return f"{self.experiment.name} ({what(self.experiment, self.injection)})"

    @property
    def gauge(self) -> Gauge:
        """What both groups did."""
        return Gauge(self.snapshot, self.status, self.experiment, self.now)

    @property
    def pods(self) -> int:
        """How many pods each of the two groups has."""
        return arm_size(self.snapshot)

    def waits(self, message: str, reason: Reason = Reason.WAITING) -> Move:
        """Stay, and say why."""
        waiting = self.status.model_copy(update={"phase": Phase.WAITING})
        return Move(waiting, reason, f"experiment {self.title}: {message}", (), TICK_S)

    def goes_on(self, message: str, **changes: Any) -> Move:
        """Stay, and say what is seen."""
        status = moves.with_run(self.status, **changes) if changes else self.status
        analysing = status.model_copy(update={"phase": Phase.ANALYSING})
        return Move(analysing, Reason.ANALYSING, f"experiment {self.title}: {message}", (), TICK_S)

    def enters(self, stage: str, message: str, *events: Event, **changes: Any) -> Move:
        """Begin another stage."""
        changed = moves.enter(self.status, Phase.ANALYSING, stage, self.now, **changes)
        return Move(changed, Reason.ANALYSING, f"experiment {self.title}: {message}", events, 0)


def look(
    snapshot: Snapshot, status: CanaryStatus, spec: CanarySpec, run: RunStatus, judgement: Judgement, now: datetime
) -> Move:
    """Carry the experiment of the present leg on."""
    found = plan.experiment_at(spec, run.step)
    assert found is not None  # noqa: S101 - the caller has looked at the leg
    at = _Look(snapshot, status, spec, run, judgement, now, *found)
    if run.paused:
        if run.stage in plan.EXPERIMENT:
            return at.enters(plan.JUDGE, "it is broken off, since a person has paused the run")
        return at.waits("paused by a person", Reason.PAUSED)
    return _STAGES.get(run.stage, _before)(at)


def what(experiment: Experiment, injection: Injection) -> str:
    """Return in words what goes wrong."""
    if experiment.dry_run:
        return f"nothing, as a test, in calls to {experiment.to}"
    return f"{effect_words(injection)} in {injection.percentage:g} % of the calls to {experiment.to}"


def broken_off(status: CanaryStatus, now: datetime) -> CanaryStatus:
    """Return the status without an experiment under way: nobody looks after it now, so its fault must end."""
    if status.run is None or status.run.stage not in plan.EXPERIMENT:
        return status
    return moves.with_run(status, stage=plan.JUDGE, stage_since=stamp(now), experiment={})


def _before(at: _Look) -> Move:
    """Wait for what must hold before anything is broken on purpose."""
    snapshot, run = at.snapshot, at.run
    if run.stage == plan.HELD:
        last = run.experiments[-1]
        name = snapshot.meta.name
        return at.waits(
            f"no verdict: {last.message}; serinus promote {name} goes on without one, serinus abort {name} rolls back",
            Reason.FAULT_GATE,
        )
    dependency = snapshot.dependency
    if dependency is None:
        return at.waits(f"{at.experiment.to} is looked up")
    if dependency.refusal:
        return at.waits(dependency.refusal, Reason.FAULT_REFUSED)
    if dependency.busy:
        return at.waits(f"Canary {dependency.busy} makes an experiment with {at.experiment.to}; one at a time")
    if at.judgement.hold:
        return at.waits(at.judgement.hold)
    seen = evidence.load(at.status.run.evidence).total.candidate.requests if at.status.run else 0
    if seen < NEEDED:
        return at.waits(f"{seen:,} of {NEEDED} requests that the candidate must have answered before")
    begun = ExperimentStatus(
        name=at.experiment.name,
        what=what(at.experiment, at.injection),
        to=at.experiment.to,
        dry_run=at.experiment.dry_run,
        budget=at.experiment.budget,
    )
    others = run.experiments
    if others and not others[-1].verdict and (others[-1].name, others[-1].what) == (begun.name, begun.what):
        begun = begun.model_copy(update={"attempt": others[-1].attempt + 1})  # it was broken off
        others = others[:-1]
    experiments = [*others, begun]
    if begun.attempt > ATTEMPTS:
        again = moves.with_run(at.status, experiments=experiments)
        return _ended(_with(at, again), "Interrupted", f"it was interrupted {ATTEMPTS} times")
    message = f"{at.pods} pods of each version start for it"
    return at.enters(plan.ARMS, message, experiments=experiments, experiment={"before": at.gauge.clean})


def _arms(at: _Look) -> Move:
    snapshot, dependency = at.snapshot, at.snapshot.dependency
    if dependency is None or dependency.refusal or dependency.busy:
        return at.enters(plan.JUDGE, "it waits")
    ready = _ready(at)
    if min(ready) < at.pods or snapshot.mesh.arms < at.pods:
        if since(at.run.stage_since, at.now) > seconds(at.spec.progress_deadline):
            failures = [each.failure for each in snapshot.twins if each.failure]
            why = f"; {failures[0]}" if failures else ""
            words = f"its pods did not become ready within {at.spec.progress_deadline}{why}"
            return _ended(at, "Pods", words)
        return at.goes_on(f"{ready[0]} and {ready[1]} of {at.pods} pods are ready")
    if not snapshot.mesh.complete:
        return at.goes_on(moves.proxies_wait(snapshot, "its pods")[1])
    return at.enters(plan.WARM, f"its pods get {at.experiment.share} % of the requests each")


def _warm(at: _Look) -> Move:
    snapshot, mesh, dependency = at.snapshot, at.snapshot.mesh, at.snapshot.dependency
    if dependency is None or dependency.refusal or min(_ready(at)) == 0:
        return at.enters(plan.JUDGE, "it is broken off")
    waited_s = since(at.run.stage_since, at.now)
    if mesh.arms_pct != at.experiment.share or not mesh.complete:
        return at.goes_on(moves.proxies_wait(snapshot, f"{at.experiment.share} % for its pods")[1])
    seen = _counted(at)
    if seen is not None and min(seen.candidate.requests, seen.stable.requests) > 0 and waited_s >= WARM_S:
        if dependency.through >= 2 * at.pods:
            return at.enters(plan.INJECT, "the fault begins")
        if waited_s < WARM_S + OPENED_WITHIN_S:
            return at.goes_on(f"{dependency.through} of {2 * at.pods} sidecars of its pods stand ready")
        return _ended(at, "NotInjected", f"only {dependency.through} of {2 * at.pods} sidecars stood ready")
    if waited_s > WARM_S + seconds(at.experiment.duration):
        return _ended(at, "NoTraffic", "its pods got no requests")
    return at.goes_on("its pods get requests, without a fault yet")


def _inject(at: _Look) -> Move:
    dependency, note = at.snapshot.dependency, at.run.experiment
    if dependency is None or dependency.refusal:
        return _ended(at, "Stopped", dependency.refusal if dependency else f"{at.experiment.to} is not there any more")
    if at.judgement.hold and "mark" in note:
        return _ended(at, "Halted", at.judgement.hold)
    opened = at.experiment.dry_run or dependency.injecting >= 2 * at.pods
    if "mark" not in note:
        if not opened:
            if since(at.run.stage_since, at.now) > OPENED_WITHIN_S:
                words = f"only {dependency.injecting} of {2 * at.pods} sidecars injected the fault"
                return _ended(at, "NotInjected", words)
            return at.goes_on(f"{dependency.injecting} of {2 * at.pods} sidecars inject the fault")
        begun = _last(at, began_at=stamp(at.now))
        risk = f"at most {at.experiment.budget:,} failed requests are risked"
        event = Event(Reason.FAULT, f"experiment {at.title} begins in {2 * at.pods} pods; {risk}", warning=True)
        changed = moves.with_run(begun, experiment={**note, **at.gauge.mark()})
        return Move(changed, Reason.ANALYSING, f"experiment {at.title}: the fault is there", (event,), TICK_S)
    if at.gauge.interrupted or not (at.experiment.dry_run or dependency.injecting):
        return at.enters(plan.JUDGE, "it was interrupted and is begun again", experiment={})
    judged, judgement = at.gauge.judged(GateStage.FAULT)
    if judgement.verdict is Verdict.HARM:
        return _failed(_with(at, judged), judgement)
    if judgement.ending is not Ending.NONE:
        return _ended(_with(at, judged), judgement.ending.value, judgement.message)
    if judgement.verdict is Verdict.SAFE:
        if not seconds(at.experiment.recovery):
            return _passed(_with(at, judged), judgement.message)
        after = _with(at, judged)
        fresh = {**after.run.experiment, **after.gauge.mark(), "gate": {}, "spent": judgement.spent}
        message = f"it copes no worse; the fault is over, and recovery is looked at: {judgement.message}"
        event = Event(Reason.FAULT, f"experiment {at.title}: the fault is over; {judgement.message}")
        return after.enters(plan.RECOVER, message, event, experiment=fresh)
    return _with(at, judged).goes_on(judgement.message)


def _recover(at: _Look) -> Move:
    if at.snapshot.dependency is None or at.gauge.interrupted:
        return at.enters(plan.JUDGE, "it was interrupted and is begun again", experiment={})
    judged, judgement = at.gauge.judged(GateStage.RECOVERY)
    if judgement.verdict is Verdict.HARM:
        return _failed(_with(at, judged), judgement)
    if judgement.ending is not Ending.NONE:
        return _ended(_with(at, judged), judgement.ending.value, judgement.message)
    if judgement.verdict is Verdict.SAFE:
        return _passed(_with(at, judged), judgement.message)
    return _with(at, judged).goes_on(judgement.message)


_STAGES: dict[str, Callable[[_Look], Move]] = {
    plan.ARMS: _arms,
    plan.WARM: _warm,
    plan.INJECT: _inject,
    plan.RECOVER: _recover,
}


def _counted(at: _Look) -> Evidence | None:
    return at.snapshot.arms.evidence if at.snapshot.arms else None


def _ready(at: _Look) -> tuple[int, int]:
    """Return how many pods of each group have all their containers ready."""
    one, two = (
        sum(pod.containers_ready and not pod.terminating and pod.pod_hash == pod_hash for pod in at.snapshot.pods)
        for pod_hash in arm_hashes(at.run)
    )
    return one, two


# -- ends


def _with(at: _Look, status: CanaryStatus) -> _Look:
    assert status.run is not None  # noqa: S101 - a phase of a run
    return _Look(at.snapshot, status, at.spec, status.run, at.judgement, at.now, at.experiment, at.injection)


def _last(at: _Look, **changes: Any) -> CanaryStatus:
    """Return the status with changes in the experiment that is under way."""
    *others, last = at.run.experiments
    return moves.with_run(at.status, experiments=[*others, last.model_copy(update=changes)])


def _passed(at: _Look, message: str) -> Move:
    said = f"experiment {at.title} passed; risked {at.experiment.budget:,}, used {at.run.experiments[-1].spent:,}"
    status = moves.with_run(_last(at, verdict="Passed", message=message), experiment={})
    event = Event(Reason.FAULT_GATE, f"{said}: {message}")
    assert status.run is not None  # noqa: S101 - a phase of a run
    return moves.go_to_leg(status, at.spec, plan.next_leg(at.spec, status.run), at.now).also(event)


def _failed(at: _Look, judgement: GateJudgement) -> Move:
    status = moves.with_run(_last(at, verdict="Failed"), experiment={})
    message = f"experiment {at.title}: {judgement.message}"
    return moves.roll_back(status, Reason.FAULT_GATE, message, at.now)


def _ended(at: _Look, reason: str, message: str) -> Move:
    """End the experiment without a verdict, and do what it says about that."""
    status = moves.with_run(
        _last(at, verdict="Inconclusive", reason=reason, message=f"{reason}: {message}"), experiment={}
    )
    said = f"experiment {at.title} ended without a verdict ({reason}): {message}"
    event = Event(Reason.FAULT_GATE, said, warning=True)
    if at.experiment.on_inconclusive == "Rollback":
        return moves.roll_back(status, Reason.FAULT_GATE, said, at.now)
    if at.experiment.on_inconclusive == "Promote":
        assert status.run is not None  # noqa: S101 - a phase of a run
        return moves.go_to_leg(status, at.spec, plan.next_leg(at.spec, status.run), at.now).also(event)
    held = moves.enter(status, Phase.WAITING, plan.HELD, at.now)
    return Move(held, Reason.FAULT_GATE, said, (event,), 0)
