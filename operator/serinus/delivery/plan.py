"""The plan: which weight a step has, how many pods it needs, and which phase, stage and reason go together."""

import math
from dataclasses import dataclass

from serinus.analysis.rows import settings_of
from serinus.analysis.settings import PROFILES
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec, Step
from serinus.api.fault import Abort, Experiment, Injection
from serinus.api.release import CanaryStatus, Phase, RunStatus
from serinus.api.status import Reason

# Stages. Within a phase they follow one another in this order; each waits for what the one before has ordered.
SCALE = "Scale"  # the candidate gets the pods that the next weight needs
SHIFT = "Shift"  # every sidecar gets the weight
JUDGE = "Judge"  # the candidate is judged at this weight
OPEN = "Open"  # the readiness gates of the candidate's pods are opened
ADOPT = "Adopt"  # the target takes the candidate's ReplicaSet for its own
RELEASE = "Release"  # the target is un-paused and its controller agrees
NATIVE = "Native"  # the target rolls out by itself, traffic stays on the twin
SETTLE = "Settle"  # every sidecar learns that the promoted pods are the stable ones
CLEAN = "Clean"  # helpers go
DRAIN = "Drain"  # the twin goes
ARMS = "Arms"  # the two groups of pods for an experiment of the fault gate start
WARM = "Warm"  # they get their share of the requests, without a fault
INJECT = "Inject"  # calls of theirs fail, and they are compared
RECOVER = "Recover"  # calls do not fail any more, and they are compared
HELD = "Held"  # the experiment ended without a verdict, and a person decides

EXPERIMENT = (ARMS, WARM, INJECT, RECOVER)
"""Stages of an experiment in which its two groups of pods exist."""

FINAL = (ADOPT, RELEASE, NATIVE)
"""Stages of a promotion in which the target takes over."""
IN_RUN = (Phase.PREPARING, Phase.ANALYSING, Phase.WAITING, Phase.WATCHING)
ACTIVE = (*IN_RUN, Phase.PROMOTING, Phase.RESTORING, Phase.ROLLING_BACK)


def effective_phase(status: CanaryStatus) -> Phase | None:
    """Return the phase that objects and routes follow: while suspended, the one that was interrupted."""
    return status.suspended_phase if status.phase is Phase.SUSPENDED else status.phase


@dataclass(frozen=True, slots=True)
class Leg:
    """One part of the way to promotion.

    In one of kind ``STEP`` the ``weight`` is fixed and held for ``hold_s`` seconds at least; in one of kind
    ``ADAPTIVE`` evidence decides, up to ``weight``; ``APPROVAL`` waits for a person, with ``text``; ``FAULT`` makes the
    experiment of the name ``text``, of which it is the part with the index ``part``, at whatever weight there is;
    ``WATCH`` holds a candidate that has passed.
    """

    kind: str
    weight: int | None = None
    hold_s: float = 0.0
    text: str = ""
    part: int = 0


STEP, ADAPTIVE, APPROVAL, FAULT, WATCH = "Step", "Adaptive", "Approval", "Fault", "Watch"


def legs(spec: CanarySpec) -> tuple[Leg, ...]:
    """Return the way to promotion, leg by leg."""
    strategy = spec.strategy
    if strategy.steps:
        way = [leg for step in strategy.steps for leg in _of_step(spec, step)]
        if not strategy.watch:
            return tuple(way)
    else:
        way = [Leg(ADAPTIVE, settings_of(spec).most_pct)]
        way += [leg for experiment in spec.faults for leg in _of_experiment(experiment)]
    profile, watch = PROFILES[spec.analysis.profile], strategy.watch
    hold_s = seconds(watch.for_) if watch and watch.for_ is not None else profile.watch_s
    back = watch.hold_back if watch and watch.hold_back is not None else profile.hold_back_pct
    return (*way, Leg(WATCH, 100 - back, hold_s)) if hold_s else tuple(way)


def _of_step(spec: CanarySpec, step: Step) -> list[Leg]:
    if step.weight is not None:
        return [Leg(STEP, step.weight, seconds(step.for_) if step.for_ else 0.0)]
    if step.approval is not None:
        return [Leg(APPROVAL, text=step.approval)]
    return [leg for each in spec.faults if each.name == step.fault for leg in _of_experiment(each)]


def _of_experiment(experiment: Experiment) -> list[Leg]:
    return [Leg(FAULT, text=experiment.name, part=part) for part in range(len(injections(experiment)))]


def injections(experiment: Experiment) -> tuple[Injection, ...]:
    """Return what goes wrong in an experiment, one after the other."""
    if experiment.suite is None:
        fields = experiment.model_dump(include={"delay", "abort", "reset", "percentage"})
        return (Injection.model_validate(fields, by_name=True),)
    share = experiment.percentage
    if experiment.suite == "errors":
        return Injection(abort=Abort(http_status=503), percentage=share), Injection(reset=True, percentage=share)
    return Injection(delay="1s", percentage=share), Injection(delay="10s", percentage=share)


def experiment_at(spec: CanarySpec, index: int) -> tuple[Experiment, Injection] | None:
    """Return the experiment that a leg makes, and what goes wrong in this part of it; None for another leg."""
    leg = leg_at(spec, index)
    if leg is None or leg.kind != FAULT:
        return None
    experiment = next(each for each in spec.faults if each.name == leg.text)
    return experiment, injections(experiment)[leg.part]


def leg_at(spec: CanarySpec, index: int) -> Leg | None:
    """Return the leg, or None beyond the last one."""
    way = legs(spec)
    return way[index] if 0 <= index < len(way) else None


def weight_of(spec: CanarySpec, index: int) -> int:
    """Return the weight in percent that a leg asks for, or the last one before it does; 100 beyond the last.

    An adaptive leg asks for none.
    """
    way = legs(spec)
    if index >= len(way):
        return 100
    return next(
        (leg.weight for leg in reversed(way[: index + 1]) if leg.kind != ADAPTIVE and leg.weight is not None), 0
    )


def room_of(spec: CanarySpec, index: int) -> int:
    """Return the weight in percent that the candidate's pods are to have room for: an adaptive leg's greatest."""
    leg = leg_at(spec, index)
    return leg.weight or 0 if leg is not None and leg.kind == ADAPTIVE else weight_of(spec, index)


def next_leg(spec: CanarySpec, run: RunStatus) -> int:
    """Return the index of the leg after the present one, never with a lower weight than the present one.

    An edited plan may have dropped the present step: then the first one with a higher weight follows.
    """
    way, present = legs(spec), leg_at(spec, run.step)
    adaptive = present is not None and present.kind == ADAPTIVE
    if run.stage == JUDGE and not adaptive and weight_of(spec, run.step) != run.weight:
        return next((i for i, leg in enumerate(way) if (leg.weight or 0) > run.weight), len(way))
    index = run.step + 1
    while index < len(way) and way[index].kind != FAULT and weight_of(spec, index) < run.weight:
        index += 1
    return min(index, len(way))


def is_last(spec: CanarySpec, run: RunStatus) -> bool:
    """Whether nothing but experiments and a watch come between the present leg and the promotion."""
    rest = legs(spec)[next_leg(spec, run) :]
    return all(leg.kind in (FAULT, WATCH) for leg in rest)


def place(spec: CanarySpec, index: int) -> str:
    """Return where in the plan a leg is, for people."""
    way = legs(spec)
    leg = way[min(index, len(way) - 1)]
    if leg.kind == FAULT and not spec.strategy.steps:
        return f"the experiment {leg.text}"
    if leg.kind in (ADAPTIVE, WATCH):
        return "the adaptive run" if leg.kind == ADAPTIVE else "the watch"
    steps = [other for other in way if other.kind in (STEP, APPROVAL, FAULT)]
    return f"step {min(index + 1, len(steps))} of {len(steps)}"


def phase_of(leg: Leg) -> Phase:
    """Return the phase in which a leg goes on by itself."""
    return Phase.WATCHING if leg.kind == WATCH else Phase.ANALYSING


def reason_of(leg: Leg) -> Reason:
    """Return the reason that goes with ``phase_of``."""
    return Reason.WATCHING if leg.kind == WATCH else Reason.ANALYSING


def about(seconds_left: float) -> str:
    """Return a time in words that do not change with every look, so that the status is not written for them alone."""
    if seconds_left > 120:
        return f"{math.ceil(seconds_left / 60)} min"
    return f"{math.ceil(seconds_left / 5) * 5} s" if seconds_left > 10 else f"{math.ceil(seconds_left)} s"


def twin_size(weight_pct: int, desired: int) -> int:
    """Return how many pods the candidate needs for a weight: its share of the desired ones, 2 at least where it can."""
    return max(min(2, desired), math.ceil(weight_pct * desired / 100))
