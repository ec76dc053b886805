"""Render a Service to what its callers' sidecars get: clusters, endpoints, listeners, routes. Pure.

Templates hold the shape, ``serinus.mesh.routes`` the decisions, ``serinus.mesh.schema`` the last word: what Envoy
would refuse is an error here. A weight is in the routes only, so a step of the weight changes one resource per port;
the other three kinds are remembered by what they are made of.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any

from serinus.api.matching import SAFE_METHODS
from serinus.mesh import routes, schema
from serinus.mesh.model import Endpoint, PortState, Protocol, Resource, ServiceState, Stage, cluster_name
from serinus.mesh.sidecar import HEADER_CUT, HEADER_FAULT, HEADER_UNSERVED, MARKS, RESET_CLUSTER, UNLIMITED
from serinus.mesh.templating import render

CLUSTER_URL = schema.type_url(schema.CLUSTER)
ENDPOINTS_URL = schema.type_url(schema.ENDPOINTS)
LISTENER_URL = schema.type_url(schema.LISTENER)
ROUTES_URL = schema.type_url(schema.ROUTES)

_REMEMBERED = 8192


def listener_name(namespace: str, service: str, port: int) -> str:
    """Return the name that the listener and the routes of one Service port share."""
    return f"{namespace}|{service}|{port}"


def render_service(state: ServiceState) -> tuple[Resource, ...]:
    """Return all resources of one Service: per port its clusters, then endpoints, listener and routes.

    The stable cluster is always there, the candidate's as long as there is a Canary. So long, sidecars count for each
    stable endpoint too, which shows how the stable version's own pods differ. A Service without an address of its own
    (headless) has nothing: its traffic passes through. Equal states give equal bytes, whatever the order of endpoints.

    Raises:
        serinus.mesh.schema.SchemaError: Envoy would refuse it; a sentence that names the place.
    """
    if not state.addresses:
        return ()
    resources: list[Resource] = []
    for port in state.ports:
        for variant in state.variants:
            name = cluster_name(state.namespace, state.name, port.port, variant)
            per_endpoint = variant == "stable" and state.canary
            resources.append(_cluster(name, port.protocol is not Protocol.HTTP, per_endpoint))
            resources.append(_endpoints(name, frozenset((each.address, each.port) for each in port.pool(variant))))
        for stage in state.stages:
            resources += _stage(state, port, stage)
        name = listener_name(state.namespace, state.name, port.port)
        resources.append(_listener(name, state.addresses, port.port))
        resources.append(_routes(name, state, port))
    return tuple(resources)


def _resource(type_name: str, name: str, data: dict[str, Any], *, empties: bool = False) -> Resource:
    body = schema.to_bytes(type_name, data)
    return Resource(schema.type_url(type_name), name, sha256(body).hexdigest()[:16], body, empties)


@lru_cache(maxsize=_REMEMBERED)
def _cluster(name: str, http2: bool, per_endpoint: bool) -> Resource:
    data = render("envoy/cluster.json.j2", name=name, http2=http2, per_endpoint=per_endpoint, unlimited=UNLIMITED)
    return _resource(schema.CLUSTER, name, data)


@lru_cache(maxsize=_REMEMBERED)
def _endpoints(name: str, pool: frozenset[tuple[str, int]]) -> Resource:
    endpoints = [Endpoint(address, port) for address, port in sorted(pool)]
    data = render("envoy/endpoints.json.j2", name=name, endpoints=endpoints)
    return _resource(schema.ENDPOINTS, name, data, empties=not pool)


@lru_cache(maxsize=_REMEMBERED)
def _listener(name: str, addresses: tuple[str, ...], port: int) -> Resource:
    data = render("envoy/listener.json.j2", name=name, addresses=addresses, port=port)
    return _resource(schema.LISTENER, name, data)


def _stage_name(stage: Stage, port: PortState) -> str:
    return f"{stage.name}|{port.port}|stage"


def _stage(state: ServiceState, port: PortState, stage: Stage) -> list[Resource]:
    """Return what a stage consists of, for one port: the way to it, the listener inside of the sidecar, its routes."""
    name = _stage_name(stage, port)
    safe = [] if stage.allow_unsafe else [{"name": ":method", "string_match": routes.one_of(SAFE_METHODS)}]
    hit = {"prefix": "/", "headers": safe, "runtime_fraction": routes.gated(stage.fault_gate)}
    inside = render(
        "envoy/stage-routes.json.j2",
        name=name,
        hit=hit,
        fault=routes.effect(stage.spec),
        reset=RESET_CLUSTER if stage.spec.reset else "",
        fault_header=HEADER_FAULT,
        label=stage.label,
        clusters=routes.weighted(state, port),
    )
    http2 = port.protocol is not Protocol.HTTP
    return [
        _resource(
            schema.CLUSTER, name, render("envoy/stage-cluster.json.j2", name=name, http2=http2, unlimited=UNLIMITED)
        ),
        _resource(schema.LISTENER, name, render("envoy/stage-listener.json.j2", name=name, marks=MARKS)),
        _resource(schema.ROUTES, name, inside),
    ]


def _routes(name: str, state: ServiceState, port: PortState) -> Resource:
    stable = cluster_name(state.namespace, state.name, port.port, "stable")
    first = routes.weighted(state, port)
    stages = tuple((stage, _stage_name(stage, port)) for stage in state.stages)
    entries = routes.entries(state.policy, rescue=first != ((stable, 100),), faults=state.faults, stages=stages)
    data = render(
        "envoy/routes.json.j2",
        name=name,
        marks=[HEADER_UNSERVED, HEADER_CUT],
        fault_header=HEADER_FAULT,
        cluster=stable,
        groups=routes.groups(first, stable, port, entries),
        routes=entries,
    )
    return _resource(schema.ROUTES, name, data)
