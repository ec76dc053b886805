"""Faults on purpose: what callers are made to see of a Service, how long, and which of their requests."""

from typing import Annotated, Literal

from pydantic import Field

from serinus.api.analysis import Line
from serinus.api.base import Duration, Lenient, Strict
from serinus.api.matching import HeaderMatch, Method


class Abort(Strict):
    """An answer in the Service's place. Exactly one of `httpStatus` and `grpcStatus` is set."""

    http_status: Annotated[int, Field(ge=400, le=599)] | None = None
    """Status of the answer, for example 503."""
    grpc_status: Annotated[int, Field(ge=1, le=16)] | None = None
    """gRPC status of the answer, for example 14 (UNAVAILABLE)."""


class Injection(Strict):
    """What goes wrong. At least one of `delay`, `abort` and `reset` is set; `abort` and `reset` exclude each other."""

    delay: Duration | None = None
    """The request waits so long before it goes on, or before it is aborted."""
    abort: Abort | None = None
    """The request gets this answer and never reaches the Service."""
    reset: bool = False
    """The connection breaks before there is an answer: the caller's sidecar answers 503 in its place."""
    percentage: Annotated[float, Field(gt=0, le=100)]
    """Share of the requests that this happens to, in percent, each drawn by itself."""


class FaultMatch(Strict):
    """Conditions on the requests that a fault may happen to; all that are given must hold."""

    methods: Annotated[list[Method], Field(min_length=1, max_length=7)] | None = None
    """The request's method is one of these. Without it: GET, HEAD and OPTIONS, and all where `allowUnsafe` is set."""
    headers: Annotated[list[HeaderMatch], Field(min_length=1, max_length=16)] | None = None
    """Conditions on headers; all must hold."""


class Fault(Injection):
    """What callers are made to see of the Service, on purpose and for a time.

    It is injected by the callers' sidecars, before any retry of theirs. The namespace must allow it by the annotation
    `serinus.dev/faults: allowed`.
    """

    ttl: Duration
    """How long, from when it is first in force. After that it ends by itself; a change of the fault begins anew."""
    routes: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=63)]], Field(min_length=1, max_length=64)] | None
    ) = None
    """Only requests that one of these routes of the policy takes, by name."""
    match: FaultMatch = FaultMatch()
    """Which requests."""
    from_: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=317, pattern=r"^[a-z0-9]([-a-z0-9./]*[a-z0-9])?$")]] | None,
        Field(alias="from", min_length=1, max_length=16),
    ] = None
    """Only callers that run as one of these service accounts: a name in the policy's namespace, or `namespace/name`."""
    allow_unsafe: bool = False
    """Whether requests of methods that change something may be hit, POST for example, and so all of gRPC."""


class FaultStatus(Lenient):
    """How a policy's fault stands."""

    state: Literal["Active", "Ended", "Refused"] = "Refused"
    """Whether it is injected now, has ended by its `ttl`, or is not injected."""
    print: str = ""
    """Tells apart this fault and a changed one."""
    since: str = ""
    """From when it was in force, RFC 3339."""
    until: str = ""
    """When it ends by itself, or has ended, RFC 3339."""
    proxies: int = 0
    """Sidecars that inject it."""
    message: str = ""
    """One sentence: what is injected, or why not."""


Suite = Literal["errors", "timeouts"]


class Experiment(Strict):
    """One experiment of the fault gate: calls of the target to a Service fail, for two small groups of pods alike.

    One group is of the candidate, one of the stable version. The candidate passes if it copes no worse.
    What goes wrong is a `suite`, or at least one of `delay`, `abort` and `reset`.
    """

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """A name for this experiment, unique in the Canary."""
    to: Annotated[str, Field(min_length=1, max_length=127, pattern=r"^[a-z0-9]([-a-z0-9/]*[a-z0-9])?$")]
    """The Service that the target calls: a name in the Canary's namespace, or `namespace/name`."""
    suite: Suite | None = None
    """Several experiments in one line. `errors`: answers of 503, then broken connections. `timeouts`: calls that take
    one second longer, then ten."""
    delay: Duration | None = None
    """A call waits so long before it goes on, or before it is aborted."""
    abort: Abort | None = None
    """A call gets this answer and never reaches the Service."""
    reset: bool = False
    """The connection breaks before there is an answer."""
    percentage: Annotated[float, Field(gt=0, le=100)] = 50
    """Share of the calls that this happens to, in percent, each drawn by itself."""
    at: Literal["Dependency", "Caller"] = "Dependency"
    """`Dependency`: as if the Service did it, so retries of the mesh try to make it good. `Caller`: calls of these pods
    are not retried by the mesh, so what the application itself does about it is seen."""
    allow_unsafe: bool = False
    """Whether calls of methods that change something may be hit, POST for example, and so all of gRPC."""
    duration: Duration = "5m"
    """How long it may take at most to see which version copes worse."""
    recovery: Duration = "1m"
    """How long both groups are compared after the fault has ended. `0s`: not at all."""
    share: Annotated[int, Field(ge=1, le=10)] = 5
    """Share of the requests that each of the two groups gets, in percent."""
    budget: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """How many failed requests of both groups together are risked; then the experiment ends without a verdict. As many
    as fail anyway, by the versions' shares before the fault, do not count."""
    promise: Line | None = None
    """Beyond this line the candidate copes worse. Without it: 1.2 times stable's share of failed requests and 1 point,
    both under the fault."""
    tolerance: Line | None = None
    """The candidate copes no worse when its share of failed requests is shown to be below `ratio` times stable's plus
    `points`. Without it: 1.5 times and 3 points."""
    max_calls: Annotated[float, Field(ge=1, le=100)] = 1.25
    """How many times as many calls as the stable version's the candidate may make for each request."""
    on_inconclusive: Literal["Hold", "Promote", "Rollback"] = "Hold"
    """What follows when the experiment ends without a verdict: wait for a person, go on, or roll back."""
    dry_run: bool = False
    """Whether the two groups are compared without any fault: a test of the gate itself."""
