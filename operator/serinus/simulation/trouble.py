"""What can go wrong in a traffic model: noise, which is nobody's fault, and defects, which are the candidate's."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from serinus.api.base import Duration, Strict
from serinus.simulation.fields import Factor, Percent, Slowing, SomeTime


class Bursts(Strict):
    """Incidents that both versions share, such as a database that is slow."""

    every: SomeTime
    """Mean time from the end of one burst to the next; it is random."""
    lasts: SomeTime
    """Mean length of a burst; it is random."""
    error_points: Percent = 0
    """Percentage points of errors that a burst adds."""
    latency_factor: Slowing = 1
    """What a burst multiplies every latency by."""


class PodNoise(Strict):
    """Each pod has its own luck, which comes and goes: a factor with mean 1, log-normal, first-order autoregressive."""

    errors_cv: Annotated[float, Field(ge=0, le=5)] = 0
    """Coefficient of variation of one pod's error rate. An arm has the mean of its pods."""
    latency_cv: Annotated[float, Field(ge=0, le=5)] = 0
    """Coefficient of variation of one pod's latency. An arm has the mean of its pods."""
    correlation: SomeTime = "60s"
    """After this time a pod's luck resembles the earlier one by 1/e."""


class Glitches(Strict):
    """Now and then one pod of either version fails for a moment."""

    every: SomeTime
    """Mean time from one pod's glitch to the same pod's next; it is random."""
    lasts: SomeTime
    """Length of a glitch."""
    percent: Percent
    """How many percent of that pod's requests fail."""


class WarmUp(Strict):
    """A candidate's pod is worse at first; this dies away exponentially from its first request on."""

    decay: SomeTime
    """After this time 1/e of it is left."""
    errors_factor: Factor = 1
    """What the error rate of a pod that is quite cold is multiplied by."""
    error_points: Percent = 0
    """Percentage points of errors that a pod has in addition when it is quite cold."""
    latency_factor: Slowing = 1
    """What the latency of a pod that is quite cold is multiplied by."""


class MissingScrapes(Strict):
    """Scrapes that fail. What they would have told comes with the next good one."""

    percent: Percent
    """How many percent of the scrapes fail, each on its own."""


class CounterResets(Strict):
    """Restarts of the caller's sidecar. What it counted since the last good scrape is lost, for both versions."""

    every: SomeTime
    """Mean time between two restarts; it is random."""


class LateSeries(Strict):
    """The candidate's series show late, and then all at once."""

    after: SomeTime
    """Time from the candidate's first request until its counts can be seen."""


class Overload(Strict):
    """A pod that gets too many requests answers badly, whichever version it is."""

    per_pod: Annotated[float, Field(gt=0, le=1_000_000)]
    """Requests per second that one pod can bear."""
    error_points: Percent = 0
    """Percentage points of errors at twice as many requests; in proportion between and beyond."""
    latency_factor: Annotated[float, Field(ge=1, le=1000)] = 1
    """What latency is multiplied by at twice as many requests; in proportion between and beyond."""


class Noise(Strict):
    """What makes good releases look bad and bad ones good. Each kind is optional, and they combine."""

    bursts: Bursts | None = None
    """Incidents that both versions share."""
    pods: PodNoise | None = None
    """Each pod's own luck."""
    glitches: Glitches | None = None
    """Short failures of single pods."""
    warm_up: WarmUp | None = None
    """Cold pods of the candidate."""
    missing_scrapes: MissingScrapes | None = None
    """Scrapes that fail."""
    counter_resets: CounterResets | None = None
    """Restarts of the caller's sidecar."""
    late_series: LateSeries | None = None
    """Series of the candidate that show late."""
    overload: Overload | None = None
    """Too many requests for a pod."""


class SlowTail(Strict):
    """Some requests take longer by a fixed time."""

    percent: Percent
    """How many percent of the requests."""
    add: SomeTime
    """How much longer they take."""


_EFFECTS = ("error_ratio", "error_points", "latency_factor", "slow_tail")


class Defect(Strict):
    """Something that the candidate does wrong. It has one effect at least; several defects combine."""

    error_ratio: Factor | None = None
    """What the error rate is multiplied by."""
    error_points: Percent | None = None
    """Percentage points that are added to the error rate."""
    outage: bool = False
    """Every request fails; the same as 100 `errorPoints`."""
    latency_factor: Slowing | None = None
    """What every latency is multiplied by."""
    slow_tail: SlowTail | None = None
    """Some requests take longer."""
    endpoint: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Only this endpoint has the defect: a name out of `endpoints`."""
    one_pod_only: bool = False
    """Only one of the candidate's pods has the defect."""
    unanswered: bool = False
    """What `outage` and `errorPoints` make fail has no latency, as when connections are refused."""
    after: Duration = "0s"
    """Time from the begin of the run until the defect shows."""
    from_weight: Percent = 0
    """The defect shows only while the candidate has this weight at least, in percent."""
    over: Duration = "0s"
    """The defect grows linearly from nothing to its full size over this time, as a leak does."""
    lasts: SomeTime | None = None
    """The defect is gone after it has shown for this time. Without it the defect stays."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.outage and all(getattr(self, effect) is None for effect in _EFFECTS):
            raise ValueError(
                "this defect does nothing; write one of errorRatio, errorPoints, outage, latencyFactor and slowTail"
            )
        return self
