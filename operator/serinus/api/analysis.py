"""What a release is judged by: ``spec.analysis`` of a Canary."""

from typing import Annotated, Literal

from pydantic import Field

from serinus.api.base import Duration, Strict


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


class RequestQueries(Strict):
    """PromQL that counts the requests of one revision, in the place of the callers' sidecars.

    Each query gives counters as the pods export them, without `rate()`, one series or more for each pod: keep the label
    `pod` or `instance`. Write `{{ revision }}` where the revision stands: all are asked for both versions at once.
    """

    total: Annotated[str, Field(min_length=1, max_length=8192)]
    """All requests since the pod started, for example
    `http_requests_total{namespace="{{ namespace }}", pod=~"{{ target }}-{{ revision }}-.*"}`."""
    failed: Annotated[str, Field(min_length=1, max_length=8192)]
    """Those of them that failed. No series means that none did."""
    durations: Annotated[str, Field(min_length=1, max_length=8192)] | None = None
    """Buckets of a classic histogram of their durations in seconds, with the label `le`. Without it latency is not
    judged."""


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
    """How often the queries in `metrics` and `requests` are asked, and the value of `{{ interval }}`."""
    prometheus: PrometheusSource | None = None
    """The Prometheus server that answers the queries in `metrics` and `requests`."""
    requests: RequestQueries | None = None
    """Where requests are counted, instead of by the callers' sidecars. Failures and latency are judged by these counts
    then; what an experiment's groups do is still counted by the sidecars."""
    metrics: Annotated[list[UserMetric], Field(max_length=16)] = []
    """Metrics of the user's."""

    @property
    def timed(self) -> bool:
        """Whether anything counts how long requests take."""
        return self.requests is None or self.requests.durations is not None
