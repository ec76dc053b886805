"""The TrafficPolicy: how callers' sidecars treat requests to one Service."""

from typing import Annotated, Literal

from pydantic import Field

from serinus.api.base import Duration, Lenient, Name, Strict
from serinus.api.fault import Fault, FaultStatus
from serinus.api.matching import Match
from serinus.api.status import Condition

RetryOn = Literal["connect-failure", "refused-stream", "reset-before-request", "gateway-error", "5xx", "unavailable"]


class ServiceRef(Strict):
    """The Service that a policy is about, in the policy's own namespace."""

    name: Name
    """Name of the Service."""


class Retries(Strict):
    """Retries by the caller's sidecar. Without this block two retries are made when no connection came about."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a failed request is tried again."""
    per_try_timeout: Duration | None = None
    """Longest time for one try. Without it, only the request's own timeout counts."""
    on: Annotated[list[RetryOn], Field(min_length=1, max_length=6, alias="retryOn")] = [
        "connect-failure",
        "refused-stream",
        "reset-before-request",
    ]
    """Which failures are tried again. `5xx` and `gateway-error` also retry answers that the app gave."""


class Route(Strict):
    """What happens to requests that match. The first route that matches counts; others follow the Service's own."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    """A name for this route, unique in the policy."""
    match: Match = Match()
    """Which requests."""
    timeout: Duration | None = None
    """Longest time for such a request, retries included; in place of the policy's own. `0s` is no limit."""
    retries: Retries | None = None
    """Retries for such requests; in place of the policy's own."""


class TrafficPolicySpec(Strict):
    """How the sidecars of all callers treat requests to one Service."""

    target_ref: ServiceRef
    """The Service. Where two policies name the same one, the older counts."""
    timeout: Duration | None = None
    """Longest time for a request, retries included. Without it there is no limit. `0s` is no limit."""
    retries: Retries | None = None
    """Retries by the caller's sidecar."""
    routes: Annotated[list[Route], Field(max_length=64)] = []
    """Requests that are treated apart, in order; the first that matches counts."""
    fault: Fault | None = None
    """What callers are made to see of the Service, on purpose and for a time."""


class TrafficPolicyStatus(Lenient):
    """What became of a policy."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    proxies: int = 0
    """Sidecars that were sent the policy."""
    acknowledged: int = 0
    """Sidecars that have it in force."""
    message: str = ""
    """One sentence on how things stand."""
    fault: FaultStatus | None = None
    """How the policy's fault stands; what `ttl` counts from is kept here."""
    conditions: list[Condition] = []
    """`Ready`, and `Reconciling` or `Stalled` while they hold, as kstatus reads them."""
