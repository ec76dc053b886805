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


class Line(Strict):
    """A share of bad requests: `ratio` times the stable version's in the same moments, plus `points`."""

    ratio: Annotated[float, Field(ge=1, le=100)] = 1
    """Factor on the stable version's share."""
    points: Annotated[float, Field(ge=0, le=100)] = 0
    """Percentage points on top."""


class Tolerance(Strict):
    """What the candidate must be shown to be below, to be safe.

    That is the greater of `ratio` times the stable version's share of bad requests, and that share plus `points`.
    """

    after: Duration = "0s"
    """From when in a run this tolerance is in force; of those in force the easiest counts."""
    ratio: Annotated[float, Field(ge=1, le=100)] = 1
    """Factor on the stable version's share."""
    points: Annotated[float, Field(gt=0, le=100)]
    """Percentage points on top."""


Tolerances = Annotated[list[Tolerance], Field(min_length=1, max_length=8)]


class SuccessRate(Strict):
    """Limits on the share of requests that succeed: no 5xx, no reset, no time-out, no failed gRPC status."""

    min: Annotated[float, Field(ge=0, le=100)] | None = None
    """Lowest success rate of the candidate, in percent, whatever the stable version's is."""
    max_drop: Annotated[float, Field(ge=0, le=100)] | None = None
    """By how many percentage points the candidate's success rate may be lower than the stable version's in the same
    moments: it is harmful when it is shown to be lower by more, safe when it is shown to be lower by less. Without it
    `promise` and `tolerances` say. `100` means that the two are not compared."""
    promise: Line | None = None
    """Beyond this line the candidate is harmful. Without it the profile says: 1.2 times the stable version's share of
    failed requests and 0.01 points."""
    tolerances: Tolerances | None = None
    """What the candidate must be shown to be below. Without it the profile says."""


class Latency(Strict):
    """Limits on the candidate's latency.

    It is compared with the stable version's in the same moments, by the share of requests that are slower than each of
    five latencies, which are chosen from the stable version's history.
    """

    compare: bool = True
    """Whether the candidate is compared with the stable version. `false`: latency is shown, and only `max` and
    `maxIncrease` are judged."""
    floor: Duration = "25ms"
    """Differences among responses that are faster than this do not matter."""
    promise: Line | None = None
    """Beyond this line the candidate is harmful. Without it the profile says: 1.1 times the stable version's share of
    slow requests and 0.1 points."""
    tolerances: Tolerances | None = None
    """What the candidate must be shown to be below. Without it the profile says."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 99
    """Which percentile `max` and `maxIncrease` are about."""
    max: Duration | None = None
    """Longest latency of the candidate at this percentile."""
    max_increase: Annotated[float, Field(gt=0, le=10000)] | None = None
    """By how many percent the candidate's latency at this percentile may be above the stable version's."""


class ServiceLevel(Strict):
    """A guard on the whole Service, both versions together.

    Below it the release halts where it is. It is not judged by it: what hurts both versions is not the candidate's
    doing, or cannot be told apart.
    """

    success_rate: Annotated[float, Field(ge=0, le=100)]
    """Success rate of the last minute, in percent."""


class Tuning(Strict):
    """The numbers that the tests go by. A profile sets all of them; each can be set here."""

    false_alarm: Annotated[float, Field(ge=0.0001, le=0.2)] | None = None
    """Chance, over a whole run and its watch, that one kind of metric rolls back a release that keeps its promise."""
    wrongly_safe: Annotated[float, Field(ge=0.0001, le=0.5)] | None = None
    """Chance that a release that is at the tolerance is called safe."""
    budget: Annotated[float, Field(ge=0.1, le=1_000_000)] | None = None
    """How many failed requests are risked until a bad release is stopped."""
    reaction: Duration | None = None
    """How long it takes to stop a bad release; with `budget` it says how fast the weight may rise."""
    growth: Annotated[float, Field(gt=1, le=100)] | None = None
    """By which factor the weight rises at most at once."""
    dwell: Duration | None = None
    """How long a weight is held at least before it rises."""
    last: Duration | None = None
    """How long the greatest weight is held at least before the candidate has passed."""
    shortest: Duration | None = None
    """How long a run is judged at least."""
    suspicion: Annotated[float, Field(gt=1, le=1000)] | None = None
    """Evidence for harm, as a factor, at which the weight does not rise."""
    block: Duration | None = None
    """Length of a block of requests that is tested as one."""
    cap: Annotated[float, Field(gt=0, le=100)] | None = None
    """Most evidence for harm of one block, as a natural logarithm. At 2.5 it takes three bad blocks."""
    memory: Duration | None = None
    """How long the stable version's shares are remembered."""


class PrometheusSource(Strict):
    """A Prometheus server."""

    address: Annotated[str, Field(pattern=r"^https?://", max_length=1024)]
    """Its URL, for example `http://prometheus.monitoring:9090`."""


class CountQueries(Strict):
    """Two PromQL counters of one revision, for metrics that are shares of something, such as failed orders of all.

    They are compared between candidate and stable version by the same test as failed requests.
    """

    bad: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """A PromQL query that gives how many were bad since the pods started. Write `{{ revision }}` where the revision
    stands: it is asked once for each version."""
    good: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """The same, for how many were good. Exactly one of `bad` and `good` is set."""
    total: Annotated[str, Field(min_length=1, max_length=8192)]
    """A PromQL query that gives how many there were in all."""
    promise: Line | None = None
    """Beyond this line the candidate is harmful. Without it: 1.2 times stable's share of bad ones and 0.1 points."""
    tolerance: Line | None = None
    """The candidate is safe when its share of bad ones is shown to be below the greater of `ratio` times stable's, and
    stable's plus `points`. Without it: 1.5 times, and 1 point."""


class GaugeQuery(Strict):
    """A PromQL query that gives a number of one revision, such as memory for each pod.

    It is compared between candidate and stable version by rank, slowly: how often the candidate's is the greater one.
    """

    query: Annotated[str, Field(min_length=1, max_length=8192)]
    """A PromQL query that gives one number. Write `{{ revision }}` where the revision stands."""
    max_increase: Annotated[float, Field(ge=0, le=10000)] = 20
    """By how many percent the candidate's number may be above the stable version's."""


class UserMetric(Strict):
    """A metric of the user's, in PromQL. Exactly one of `query`, `counts` and `gauge` is set.

    In the queries, `{{ namespace }}`, `{{ target }}`, `{{ service }}`, `{{ revision }}`, `{{ stableRevision }}` and
    `{{ interval }}` are filled in.
    """

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """A name for this metric, unique in the Canary."""
    query: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """A PromQL query that gives one number, with limits."""
    min: float | None = None
    """Lowest value of `query` that is good."""
    max: float | None = None
    """Highest value of `query` that is good."""
    failure_limit: Annotated[int, Field(ge=1, le=100)] = 1
    """How many readings of `query` beyond the limits make the candidate harmful."""
    counts: CountQueries | None = None
    """Counters, for a comparison by the same test as failed requests."""
    gauge: GaugeQuery | None = None
    """A number of each version, for a comparison by rank."""


class Analysis(Strict):
    """What the candidate is judged by. All of it has defaults."""

    profile: Literal["Standard", "Fast", "Strict"] = "Standard"
    """How careful: `Standard` ships a good release in about ten minutes at a hundred requests a second; `Fast` in four,
    at wider tolerances; `Strict` at narrower ones."""
    warm_up: Duration | None = None
    """So long after its first requests only what is far beyond the promise counts against the candidate, an adaptive
    weight does not rise, and nothing counts for it. Without it the profile says: 3 minutes, in `Fast` one."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """So many requests to the candidate are needed at a step before it ends; in an adaptive run 20 at each weight."""
    success_rate: SuccessRate = SuccessRate()
    """Limits on the success rate."""
    latency: Latency = Latency()
    """Limits on the latency."""
    service_level: ServiceLevel | None = None
    """A guard on the whole Service, below which the release halts."""
    tuning: Tuning = Tuning()
    """The numbers that the tests go by."""
    interval: Duration = "10s"
    """How often the queries in `metrics` are asked, and the value of `{{ interval }}`."""
    prometheus: PrometheusSource | None = None
    """The Prometheus server that answers the queries in `metrics`."""
    metrics: Annotated[list[UserMetric], Field(max_length=16)] = []
    """Metrics of the user's."""


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
    WATCHING = "Watching"
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
    bad: int | None = None
    """How many of the candidate's requests in this run were bad by this metric."""
    requests: int | None = None
    """How many requests the candidate answered in this run."""
    stable_bad: int | None = None
    """How many of the stable version's requests were bad."""
    stable_requests: int | None = None
    """How many requests the stable version answered."""
    excess: list[float] = []
    """By how many percentage points the candidate's share of bad requests is above the stable version's: the estimate,
    and the bounds that hold at all times at once with 95 %."""
    harm: float | None = None
    """Evidence for harm, in percent of what it takes to roll back; 0 and less is none."""
    safe: float | None = None
    """Evidence for safety, in percent of what it takes to pass."""
    needed: int | None = None
    """About how many more requests to the candidate it takes to pass, if it is as good as the stable version."""
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
