"""The routes of one Service port, decided: who gets a request by weight, what is tried again, how long it may take."""

from dataclasses import dataclass, replace
from typing import Any

from serinus.api.base import seconds
from serinus.api.fault import Injection
from serinus.api.matching import SAFE_METHODS, HeaderMatch, Match, PathMatch, StringMatch
from serinus.api.trafficpolicy import Retries, Route, TrafficPolicySpec
from serinus.mesh import re2
from serinus.mesh.model import Fault, PortState, ServiceState, Stage, cluster_name
from serinus.mesh.schema import SchemaError
from serinus.mesh.sidecar import HEADER_CUT, HEADER_UNSERVED, RESET_CLUSTER

_UNSEEN = ("connect-failure", "refused-stream", "reset-before-request", "retriable-headers")
"""Failures before any app has seen the request; ``retriable-headers`` are the marks of the server's sidecar."""
_RETRIES = 2

Group = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """One retry policy as Envoy takes it. ``marks`` are the response headers that ask for another try."""

    on: str
    attempts: int
    marks: tuple[str, ...]
    per_try_timeout: str | None = None


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One route as Envoy takes it; ``match`` is Envoy's RouteMatch.

    ``fault`` is what happens to the requests that take it, as Envoy's HTTPFault without its type; ``label`` goes onto
    their answers. ``cluster`` is the one cluster that they go to, in place of those that go by weight.
    """

    name: str
    match: dict[str, Any]
    timeout: str
    retry: Retry | None
    fault: dict[str, Any] | None = None
    label: str = ""
    cluster: str = ""


def weighted(state: ServiceState, port: PortState) -> Group:
    """Return the clusters that a first try may reach, with their weights; a single one gets everything.

    A candidate without endpoints gets nothing. At 100 % the stable one gets nothing. An experiment's two groups get
    their shares first, and both versions divide the rest between them as they would the whole.
    """
    stable = cluster_name(state.namespace, state.name, port.port, "stable")
    candidate = cluster_name(state.namespace, state.name, port.port, "candidate")
    share = min(max(state.weight_pct, 0), 100) if state.canary and port.candidate else 0
    parts: Group = ((candidate, share), (stable, 100 - share))
    if state.arms and state.arms_pct and port.candidate_fault and port.stable_fault:
        rest = 100 - 2 * state.arms_pct
        arms = (cluster_name(state.namespace, state.name, port.port, variant) for variant in state.variants[2:])
        parts = (*((name, part * rest) for name, part in parts), *((name, 100 * state.arms_pct) for name in arms))
    return tuple((name, part) for name, part in parts if part)


def groups(first: Group, stable: str, port: PortState, entries: list[RouteEntry]) -> tuple[Group, ...]:
    """Return the clusters of the first try and of each further one, which is always for stable, unless it is empty.

    Nothing is returned when only the stable cluster is in play.
    """
    if first == ((stable, 100),):
        return ()
    further = max((entry.retry.attempts for entry in entries if entry.retry), default=0) if port.stable else 0
    return (first, *(((stable, 1),) for _ in range(further)))


def entries(
    policy: TrafficPolicySpec | None,
    *,
    rescue: bool,
    faults: tuple[Fault, ...] = (),
    stages: tuple[tuple[Stage, str], ...] = (),
) -> list[RouteEntry]:
    """Return the routes in order: the policy's, then the one for all other requests; each once per kind of method.

    Before each come its stages, by their clusters, and its faults: the same route again, taken by the share of the
    requests that its gate says.
    ``rescue`` tells that a candidate is in play, whose failures stable makes good whatever the policy says.

    Raises:
        SchemaError: Envoy would refuse a regular expression.
    """
    rules = list(policy.routes) if policy else []
    result: list[RouteEntry] = []
    for rule in [*rules, Route(name="default")]:
        timeout = rule.timeout or (policy.timeout if policy else None) or "0s"
        retries = rule.retries or (policy.retries if policy else None)
        for safe, methods in _by_kind(rule.match):
            name = f"{rule.name}|{'safe' if safe else 'other'}"
            retry = _retry(retries, safe=safe, rescue=rescue)
            entry = RouteEntry(name, _match(rule.name, rule.match, methods), _duration(timeout), retry)
            result += [_staged(entry, stage, cluster) for stage, cluster in stages]
            result += [_faulty(entry, fault) for fault in faults if _hits(fault, rule.name, safe=safe)]
            result.append(entry)
    return result


def _hits(fault: Fault, rule: str, *, safe: bool) -> bool:
    """Whether requests that take this route may be hit by the fault."""
    return (fault.spec.routes is None or rule in fault.spec.routes) and (safe or fault.spec.allow_unsafe)


def _faulty(entry: RouteEntry, fault: Fault) -> RouteEntry:
    """Return the same route with the fault, for the requests that the fault is about and its gate lets in."""
    spec = fault.spec
    conditions = [*entry.match["headers"], *(_header(fault.label, header) for header in spec.match.headers or [])]
    if spec.match.methods:
        conditions.append({"name": ":method", "string_match": one_of(tuple(spec.match.methods))})
    return replace(
        entry,
        name=f"{entry.name}|{fault.gate}",
        match={**entry.match, "headers": conditions, "runtime_fraction": gated(fault.gate)},
        retry=None if spec.reset else entry.retry,
        fault=effect(spec),
        label=fault.label,
        cluster=RESET_CLUSTER if spec.reset else "",
    )


def _staged(entry: RouteEntry, stage: Stage, cluster: str) -> RouteEntry:
    """Return the same route by way of a stage."""
    return replace(
        entry,
        name=f"{entry.name}|{stage.gate}",
        match={**entry.match, "runtime_fraction": gated(stage.gate)},
        retry=entry.retry if stage.retries else None,
        cluster=cluster,
    )


def gated(gate: str) -> dict[str, Any]:
    """Return the condition that lets in the share of the requests that a gate says; none, where nothing is said."""
    return {"default_value": {"numerator": 0, "denominator": "HUNDRED"}, "runtime_key": gate}


def effect(spec: Injection) -> dict[str, Any] | None:
    """Return what happens to a request that is hit, as Envoy's HTTPFault without its type; None for a mere reset."""
    always = {"numerator": 100, "denominator": "HUNDRED"}
    what: dict[str, Any] = {}
    if spec.delay:
        what["delay"] = {"fixed_delay": _duration(spec.delay), "percentage": always}
    if spec.abort and spec.abort.http_status:
        what["abort"] = {"http_status": spec.abort.http_status, "percentage": always}
    elif spec.abort:
        what["abort"] = {"grpc_status": spec.abort.grpc_status, "percentage": always}
    return what or None


def _by_kind(match: Match) -> list[tuple[bool, tuple[str, ...]]]:
    """Return ``(safe, methods)`` for each route that one rule needs; no methods means all that are left."""
    if match.methods is None:
        return [(True, SAFE_METHODS), (False, ())]
    safe = tuple(method for method in match.methods if method in SAFE_METHODS)
    other = tuple(method for method in match.methods if method not in SAFE_METHODS)
    return [(kind, methods) for kind, methods in ((True, safe), (False, other)) if methods]


def _retry(retries: Retries | None, *, safe: bool, rescue: bool) -> Retry | None:
    """Return what is tried again.

    A user's ``attempts: 0`` means none, except that a candidate in play is rescued once.
    """
    asked = retries if retries and retries.attempts else None
    if retries and not asked and not rescue:
        return None
    attempts = asked.attempts if asked else (1 if retries else _RETRIES)
    on = dict.fromkeys([*_UNSEEN, *(["reset"] if safe else []), *(asked.on if asked else [])])
    marks = (HEADER_UNSERVED, HEADER_CUT) if safe else (HEADER_UNSERVED,)
    per_try = _duration(asked.per_try_timeout) if asked and asked.per_try_timeout else None
    return Retry(",".join(on), attempts, marks, per_try)


def _match(route: str, match: Match, methods: tuple[str, ...]) -> dict[str, Any]:
    conditions = [_header(route, header) for header in match.headers or []]
    if methods:
        conditions.insert(0, {"name": ":method", "string_match": one_of(methods)})
    return {**_path(route, match.path), "headers": conditions}


def one_of(methods: tuple[str, ...]) -> dict[str, Any]:
    """Return the condition that a method is one of these, as Envoy's StringMatcher."""
    return {"exact": methods[0]} if len(methods) == 1 else {"safe_regex": {"regex": "|".join(methods)}}


def _path(route: str, path: PathMatch | None) -> dict[str, Any]:
    if path is not None and path.exact is not None:
        return {"path": path.exact}
    if path is not None and path.regex is not None:
        return {"safe_regex": _regex(route, path.regex)}
    if path is not None and path.prefix is not None and (whole := path.prefix.rstrip("/")):
        return {"path_separated_prefix": whole}
    return {"prefix": "/"}


def _header(route: str, header: HeaderMatch) -> dict[str, Any]:
    if header.present is not None:
        return {"name": header.name, "present_match": header.present}
    return {"name": header.name, "string_match": _string(route, header)}


def _string(route: str, match: StringMatch) -> dict[str, Any]:
    if match.regex is not None:
        return {"safe_regex": _regex(route, match.regex)}
    return {"prefix": match.prefix} if match.prefix is not None else {"exact": match.exact or ""}


def _regex(route: str, regex: str) -> dict[str, str]:
    if (fault := re2.fault(regex)) is not None:
        raise SchemaError(f'route "{route}": the regular expression "{regex}" {fault}')
    return {"regex": regex}


def _duration(text: str) -> str:
    """Return a duration of ours as protobuf's JSON has it."""
    return f"{seconds(text):.9f}".rstrip("0").rstrip(".") + "s"
