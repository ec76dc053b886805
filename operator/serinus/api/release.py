"""The Canary's status: how its release stands."""

from enum import StrEnum
from typing import Any, Literal

from serinus.api.base import Lenient
from serinus.api.status import Condition


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


class ExperimentStatus(Lenient):
    """One experiment of the fault gate, under way or done."""

    name: str
    """Name of the experiment in the spec."""
    what: str = ""
    """What goes wrong, in words."""
    to: str = ""
    """The Service that does not answer as usual."""
    verdict: Literal["", "Passed", "Failed", "Inconclusive"] = ""
    """What came of it; empty while it is under way."""
    reason: str = ""
    """Why it ended without a verdict: one word."""
    attempt: int = 1
    """How often it was begun."""
    began_at: str = ""
    """From when the fault was injected, RFC 3339."""
    dry_run: bool = False
    """Whether no fault was injected."""
    budget: int = 0
    """How many failed requests were risked."""
    spent: int = 0
    """How many requests of both groups failed."""
    difference: list[float] = []
    """By how many percentage points more the candidate lost by the fault than the stable version: estimate and
    bounds."""
    metrics: list[MetricStatus] = []
    """What both groups did."""
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
    experiments: list[ExperimentStatus] = []
    """The experiments of the fault gate in this run, in the order in which they were begun."""
    experiment: dict[str, Any] = {}
    """The counts of the experiment that is under way."""


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
