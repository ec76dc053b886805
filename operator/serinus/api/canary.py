"""The Canary's spec: what is released, through which Service, in which steps, judged by what."""

from typing import Annotated, Literal

from pydantic import Field

from serinus.api.analysis import Analysis
from serinus.api.base import Duration, Name, Strict
from serinus.api.fault import Experiment


class TargetRef(Strict):
    """The workload that is released, in the Canary's own namespace."""

    api_version: Literal["apps/v1"] = "apps/v1"
    """API version of the workload."""
    kind: Literal["Deployment"] = "Deployment"
    """Kind of the workload."""
    name: Name
    """Name of the workload."""


class Candidate(Strict):
    """How the candidate's pods differ from the pods of the template."""

    without_labels: Annotated[list[Annotated[str, Field(min_length=1, max_length=317)]], Field(max_length=16)] = []
    """Labels of the template that the candidate's pods do not carry while they are judged, so that
    PodDisruptionBudgets and autoscalers that select by them do not count these pods. Network policies that select by
    them do not hold for these pods either."""


class Step(Strict):
    """One step of the plan. Exactly one of `weight`, `approval` and `fault` is set."""

    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the requests that the candidate gets, in percent. Never lower than in the step before."""
    for_: Annotated[Duration | None, Field(alias="for")] = None
    """How long this weight is held, at least. Without it the step ends as soon as every sidecar has the weight and
    there is enough evidence."""
    approval: Annotated[str, Field(max_length=256)] | None = None
    """Wait until a person approves, by `serinus approve`; the text says what the person should look at."""
    fault: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    """Name of the experiment in `faults` that is made at the weight of the step before."""


class Adaptive(Strict):
    """Evidence decides weight and pace: the weight rises as fast as the budget of failed requests allows."""

    max_weight: Annotated[int, Field(ge=1, le=100)] = 50
    """Greatest share of the requests, in percent, before the candidate has passed. Evidence comes fastest at 50."""


class Watch(Strict):
    """How the candidate is watched after it has passed and before it becomes the stable version.

    Until then the stable version stands by at full size, and going back takes a moment.
    """

    for_: Annotated[Duration | None, Field(alias="for")] = None
    """How long. Without it the profile says: 30 minutes in `Standard`, 10 in `Fast`, 60 in `Strict`. `0s`: not at
    all."""
    hold_back: Annotated[int, Field(ge=1, le=50)] | None = None
    """Share of the requests that the stable version keeps meanwhile, in percent, to compare with. Without it the
    profile says: 5, in `Strict` 20."""


class Strategy(Strict):
    """How the candidate takes over the traffic. Without `steps`, evidence decides weight and pace."""

    adaptive: Adaptive | None = None
    """Evidence decides weight and pace."""
    steps: Annotated[list[Step], Field(min_length=1, max_length=50)] | None = None
    """An explicit list of steps. After the last one the candidate takes all traffic and becomes the stable version."""
    watch: Watch | None = None
    """How the candidate is watched before it becomes the stable version. An adaptive run is watched without it, too."""


class CanarySpec(Strict):
    """What is released, through which Service, in which steps, judged by what."""

    target_ref: TargetRef
    """The Deployment that is released. It stays yours: Serinus adds one label to it and nothing else. It cannot be
    changed; make a new Canary instead."""
    service: Name | None = None
    """The Service through which callers reach the target. Without it, the Service that has the target's name."""
    candidate: Candidate = Candidate()
    """How the candidate's pods differ from the pods of the template."""
    strategy: Strategy = Strategy()
    """How the candidate takes over the traffic."""
    analysis: Analysis = Analysis()
    """What the candidate is judged by."""
    faults: Annotated[list[Experiment], Field(max_length=16)] = []
    """What the candidate must survive no worse than the stable version. Where evidence decides, these experiments are
    made after the candidate has passed and before it is watched; where steps do, at the steps that name them. The
    namespace must allow faults by the annotation `serinus.dev/faults: allowed`."""
    progress_deadline: Duration = "10m"
    """Longest time for the candidate's pods to become ready; then the run is rolled back."""
    deadline: Duration = "24h"
    """Longest time for a whole run; then `onInconclusive` says what happens."""
    on_inconclusive: Literal["Hold", "Promote", "Rollback"] = "Hold"
    """What happens at the deadline when the candidate is neither harmful nor safe."""
    rollback_window: Duration = "24h"
    """Going back to a template that was promoted within this time needs no run."""
    suspend: bool = False
    """Stop moving: weights stay as they are, nothing is judged and nothing is started, until it is false again."""
