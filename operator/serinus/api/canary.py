"""The Canary: what is released, through which Service, in which steps, judged by what; and how the release stands."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from serinus.api.base import Duration, Lenient, Name, Strict
from serinus.api.status import Condition


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
    """One step of the plan. Exactly one of `weight` and `approval` is set."""

    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the requests that the candidate gets, in percent. Never lower than in the step before."""
    for_: Annotated[Duration | None, Field(alias="for")] = None
    """How long this weight is held, at least. Without it the step ends as soon as every sidecar has the weight and
    there is enough evidence."""
    approval: Annotated[str, Field(max_length=256)] | None = None
    """Wait until a person approves, by `serinus approve`; the text says what the person should look at."""


class Strategy(Strict):
    """How the candidate takes over the traffic."""

    steps: Annotated[list[Step], Field(min_length=1, max_length=50)]
    """An explicit list of steps. After the last one the candidate takes all traffic and becomes the stable version."""


class SuccessRate(Strict):
    """Limits on the share of requests that succeed: no 5xx, no reset, no time-out, no failed gRPC status."""

    min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Lowest success rate of the candidate, in percent."""
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = 1
    """By how many percentage points the candidate's success rate may be lower than the stable version's in the same
    window. `100` means that the two are not compared."""


class Latency(Strict):
    """Limits on the candidate's latency at one percentile."""

    percentile: Annotated[float, Field(gt=0, lt=100)] = 99
    """Which percentile is looked at."""
    max: Duration | None = None
    """Longest latency of the candidate at this percentile."""
    max_increase: Annotated[float, Field(gt=0, le=10000)] | None = None
    """By how many percent the candidate's latency may be above the stable version's in the same window."""


class PrometheusSource(Strict):
    """A Prometheus server."""

    address: Annotated[str, Field(pattern=r"^https?://", max_length=1024)]
    """Its URL, for example `http://prometheus.monitoring:9090`."""


class UserMetric(Strict):
    """A PromQL query of the user's, with limits.

    In the query, `{{ namespace }}`, `{{ target }}`, `{{ service }}`, `{{ revision }}`, `{{ stableRevision }}` and
    `{{ interval }}` are filled in.
    """

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """A name for this metric, unique in the Canary."""
    query: Annotated[str, Field(min_length=1, max_length=8192)]
    """A PromQL query that gives one number."""
    min: float | None = None
    """Lowest value that is good."""
    max: float | None = None
    """Highest value that is good."""
    failure_limit: Annotated[int, Field(ge=1, le=100)] = 1
    """How many readings beyond the limits make the candidate harmful."""


class Analysis(Strict):
    """What the candidate is judged by. All of it has defaults."""

    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """So many requests to the candidate are needed at a step before it counts as safe."""
    success_rate: SuccessRate = SuccessRate()
    """Limits on the success rate."""
    latency: Latency | None = None
    """Limits on the latency. Without this block latency is shown and not judged."""
    interval: Duration = "10s"
    """How often the queries in `metrics` are asked, and the value of `{{ interval }}`."""
    prometheus: PrometheusSource | None = None
    """The Prometheus server that answers the queries in `metrics`."""
    metrics: Annotated[list[UserMetric], Field(max_length=16)] = []
    """PromQL queries with limits."""


class CanarySpec(Strict):
    """What is released, through which Service, in which steps, judged by what."""

    target_ref: TargetRef
    """The Deployment that is released. It stays yours: Serinus adds one label to it and nothing else. It cannot be
    changed; make a new Canary instead."""
    service: Name | None = None
    """The Service through which callers reach the target. Without it, the Service that has the target's name."""
    candidate: Candidate = Candidate()
    """How the candidate's pods differ from the pods of the template."""
    strategy: Strategy
    """How the candidate takes over the traffic."""
    analysis: Analysis = Analysis()
    """What the candidate is judged by."""
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


class Phase(StrEnum):
    """Where a release stands."""

    READY = "Ready"
    PREPARING = "Preparing"
    ANALYSING = "Analysing"
    WAITING = "Waiting"
    PROMOTING = "Promoting"
    RESTORING = "Restoring"
    ROLLING_BACK = "RollingBack"
    FAILED = "Failed"
    SUSPENDED = "Suspended"


class Promoted(Lenient):
    """A revision that is, or was, the stable one."""

    revision: str
    """Hash of the pod template."""
    at: str = ""
    """When it became stable, RFC 3339."""


class MetricStatus(Lenient):
    """One metric, as last judged."""

    name: str
    """Name of the metric: `success-rate`, `latency`, or the user's."""
    verdict: Literal["Harm", "Safe", "Undecided"] = "Undecided"
    """What this metric says."""
    outcome: str = ""
    """For a query: `Value`, `Empty`, `NaN`, `ManySeries`, `QueryError`, `Timeout` or `Unreachable`."""
    candidate: float | None = None
    """The candidate's number."""
    stable: float | None = None
    """The stable version's number, in the same window."""
    limit: str = ""
    """The limit, in words."""
    message: str = ""
    """A sentence with the numbers."""


class RunStatus(Lenient):
    """A release under way, or the last one."""

    id: str
    """Name of this run."""
    revision: str
    """The candidate: hash of its pod template."""
    pod_hash: str = ""
    """The `pod-template-hash` label of the candidate's pods."""
    started_at: str
    """When the run began, RFC 3339."""
    step: int = 0
    """Index of the present step; the number of steps when all are passed."""
    step_since: str = ""
    """When the present step began, RFC 3339."""
    stage: str = ""
    """How far a step, a promotion or a rollback has come."""
    stage_since: str = ""
    """When the stage began, RFC 3339."""
    weight: int = 0
    """Weight asked for, in percent."""
    acknowledged_at: str = ""
    """When every sidecar had this weight in force, RFC 3339; empty until then."""
    measured_weight: float | None = None
    """Share of the requests at this step that the candidate answered, in percent."""
    replicas: int = 0
    """Pods of the candidate asked for."""
    paused: bool = False
    """Whether a person asked to stay at this step."""
    approved: bool = False
    """Whether a person approved the present step."""
    cause: str = ""
    """Why the run is rolled back: a reason."""
    cause_message: str = ""
    """Why the run is rolled back: a sentence with the numbers."""
    native: bool = False
    """Whether promotion goes by the Deployment's own rolling update, since adoption is not safe."""
    verdict: Literal["Harm", "Safe", "Undecided"] = "Undecided"
    """What the evidence says at this step."""
    metrics: list[MetricStatus] = []
    """Each metric, as last judged."""
    evidence: dict[str, Any] = {}
    """The counts so far; what the verdict is computed from."""


class HandledCommand(Lenient):
    """A person's request that was dealt with."""

    token: str
    """Token of the request."""
    verb: str
    """What was asked for."""
    by: str = ""
    """Who asked."""
    at: str = ""
    """When it was dealt with, RFC 3339."""
    result: str = ""
    """What came of it, in a sentence."""


class CanaryStatus(Lenient):
    """How the release stands. Only Serinus writes here."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    phase: Phase | None = None
    """Where the release stands."""
    message: str = ""
    """What happens, and what is waited for, in a sentence with numbers."""
    weight: int = 0
    """Share of the requests that the candidate gets, in percent."""
    step: str = ""
    """The present step, for people: `2/4`."""
    stable: Promoted | None = None
    """The revision that serves."""
    history: list[Promoted] = []
    """Revisions that were stable before, newest first."""
    run: RunStatus | None = None
    """The run under way, or the last one."""
    released: str = ""
    """The revision that rolls out without a run, since it was promoted before or nothing serves."""
    rejected: str = ""
    """The revision that was rolled back last; it is not tried again by itself."""
    suspended_phase: Phase | None = None
    """The phase to go on with when `suspend` is false again."""
    commands: list[HandledCommand] = []
    """The last requests of people, newest first."""
    conditions: list[Condition] = []
    """`Ready`, and `Reconciling` or `Stalled` while they hold, as kstatus reads them."""
