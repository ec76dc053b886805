"""The plan: which weight a step has, how many pods it needs, and which phase, stage and reason go together."""

import math

from serinus.api.base import seconds
from serinus.api.canary import CanarySpec, CanaryStatus, Phase, RunStatus, Step

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

FINAL = (ADOPT, RELEASE, NATIVE)
"""Stages of a promotion in which the target takes over."""
IN_RUN = (Phase.PREPARING, Phase.ANALYSING, Phase.WAITING)
ACTIVE = (*IN_RUN, Phase.PROMOTING, Phase.RESTORING, Phase.ROLLING_BACK)


def effective_phase(status: CanaryStatus) -> Phase | None:
    """Return the phase that objects and routes follow: while suspended, the one that was interrupted."""
    return status.suspended_phase if status.phase is Phase.SUSPENDED else status.phase


def weight_of(spec: CanarySpec, index: int) -> int:
    """Return the weight in percent at a step: its own, or the last one before it; 100 beyond the last step."""
    if index >= len(spec.strategy.steps):
        return 100
    return next((step.weight for step in reversed(spec.strategy.steps[: index + 1]) if step.weight is not None), 0)


def step_at(spec: CanarySpec, index: int) -> Step | None:
    """Return the step, or None beyond the last one."""
    return spec.strategy.steps[index] if 0 <= index < len(spec.strategy.steps) else None


def next_step(spec: CanarySpec, run: RunStatus) -> int:
    """Return the index of the step after the present one, never with a lower weight than the present one.

    An edited plan may have dropped the present step: then the first step with a higher weight follows.
    """
    steps = spec.strategy.steps
    if run.stage == JUDGE and weight_of(spec, run.step) != run.weight:
        return next((i for i, step in enumerate(steps) if (step.weight or 0) > run.weight), len(steps))
    index = run.step + 1
    while index < len(steps) and weight_of(spec, index) < run.weight:
        index += 1
    return min(index, len(steps))


def hold_s(step: Step) -> float:
    """Return how long a step's weight is held at least, in seconds."""
    return seconds(step.for_) if step.for_ else 0.0


def twin_size(weight_pct: int, desired: int) -> int:
    """Return how many pods the candidate needs for a weight: its share of the desired ones, 2 at least where it can."""
    return max(min(2, desired), math.ceil(weight_pct * desired / 100))
