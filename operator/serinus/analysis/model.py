"""Evidence and verdicts: what every judge takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

LATENCY_EDGES_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0)
"""Upper edges of the latency buckets, in milliseconds; the sidecars count by the same ones. A last bucket is open."""


class Verdict(StrEnum):
    """What evidence says. No data is no evidence: it is ``UNDECIDED``, never a failure and never a pass."""

    HARM = "Harm"
    SAFE = "Safe"
    UNDECIDED = "Undecided"


@dataclass(frozen=True, slots=True)
class Counts:
    """Tries of one version that came to an end, counted by the callers' sidecars.

    ``requests``, ``failures`` and ``abandoned`` are tries, retried ones included. ``buckets`` are the tries per latency
    bucket (not cumulative), one more than ``LATENCY_EDGES_MS``; a try that timed out counts in the last. A try is
    ``abandoned`` when its caller went away before the answer began: that is no failure, and has no latency.
    """

    requests: int = 0
    failures: int = 0
    buckets: tuple[int, ...] = (0,) * (len(LATENCY_EDGES_MS) + 1)
    abandoned: int = 0

    @classmethod
    def of_row(cls, row: Sequence[int]) -> "Counts":
        """Return what ``row`` wrote; a row of before there were abandoned tries has none."""
        end = 2 + len(LATENCY_EDGES_MS) + 1
        return cls(row[0], row[1], tuple(row[2:end]), row[end] if len(row) > end else 0)

    def row(self) -> list[int]:
        """Return the counts as plain JSON."""
        return [self.requests, self.failures, *self.buckets, self.abandoned]

    @property
    def unserved(self) -> int:
        """Tries that did not give the caller what it came for: failed ones and abandoned ones."""
        return self.failures + self.abandoned

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.requests + other.requests,
            self.failures + other.failures,
            tuple(a + b for a, b in zip(self.buckets, other.buckets, strict=True)),
            self.abandoned + other.abandoned,
        )

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(
            self.requests - other.requests,
            self.failures - other.failures,
            tuple(a - b for a, b in zip(self.buckets, other.buckets, strict=True)),
            self.abandoned - other.abandoned,
        )

    def risen(self, now: "Counts") -> "Counts":
        """Return the larger of each number: what was inferred of requests under way may be taken back again."""
        requests = max(self.requests, now.requests)
        buckets = tuple(map(max, zip(self.buckets, now.buckets, strict=True)))
        failures, abandoned = max(self.failures, now.failures), max(self.abandoned, now.abandoned)
        return Counts(requests, min(requests, failures), buckets, min(requests, abandoned))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What both versions did in the same window, as the same callers saw it."""

    candidate: Counts = Counts()
    stable: Counts = Counts()

    def __sub__(self, other: "Evidence") -> "Evidence":
        return Evidence(self.candidate - other.candidate, self.stable - other.stable)


class Outcome(StrEnum):
    """What a query gave. Only ``VALUE`` is evidence."""

    VALUE = "Value"
    EMPTY = "Empty"
    NAN = "NaN"
    MANY_SERIES = "ManySeries"
    QUERY_ERROR = "QueryError"
    TIMEOUT = "Timeout"
    UNREACHABLE = "Unreachable"


class Series(NamedTuple):
    """One series of an answer to a query: its labels, and its value now."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer to a user's query. ``sequence`` grows by one with every answer, so that none counts twice.

    ``series`` are there where many were asked for.
    """

    metric: str
    outcome: Outcome
    value: float | None = None
    detail: str = ""
    sequence: int = 0
    series: tuple[Series, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """What stands behind a finding that came from counts of this run.

    ``excess`` is by how many percentage points the candidate's share of bad requests is above stable's: estimate and
    bounds. ``harm`` and ``safe`` are evidence in percent of what decides. ``needed`` is about how many more requests to
    the candidate it takes to pass.
    """

    bad: int
    requests: int
    stable_bad: int
    stable_requests: int
    excess: tuple[float, float, float] | None = None
    harm: float | None = None
    safe: float | None = None
    needed: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one metric says: the two numbers, the limit in words, and a sentence for people."""

    metric: str
    verdict: Verdict
    candidate: float | None = None
    stable: float | None = None
    limit: str = ""
    outcome: str = ""
    message: str = ""
    numbers: Numbers | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What a judge looks at, all of the present run.

    ``total`` is what was counted since it began, ``window`` since the present weight is in force. ``halves`` are
    requests and failures of the two halves of stable's pods; ``before`` is what stable did before the run.
    ``at_weight_s`` is how long the weight is in force, ``now_s`` how long the run goes on, and ``age_s`` how long ago
    the sidecars were read.
    """

    total: Evidence = Evidence()
    window: Evidence = Evidence()
    halves: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    before: Counts = Counts()
    candidates: int = 1
    stables: int = 1
    weight_pct: int = 0
    at_weight_s: float = 0.0
    now_s: float = 0.0
    readings: tuple[Reading, ...] = ()
    age_s: float = 0.0

    @property
    def counted_s(self) -> float:
        """The second of the run at which the sidecars were read, or the operator last tried to."""
        return self.now_s - self.age_s


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a candidate. ``state`` goes into the Canary's status and comes back next time.

    ``hold`` says why the weight must not rise now; empty when it may. ``starved``: the candidate had no request at this
    weight. In an adaptive run ``weight_pct`` is the weight
    that follows, and ``done`` whether the candidate has passed.
    """

    verdict: Verdict
    message: str
    findings: tuple[Finding, ...] = ()
    state: dict[str, object] = field(default_factory=dict)
    hold: str = ""
    starved: bool = False
    weight_pct: int = 0
    done: bool = False
