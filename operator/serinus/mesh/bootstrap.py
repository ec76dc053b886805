"""The bootstrap of a sidecar: what Envoy knows before anything is sent to it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.mesh import schema, sidecar
from serinus.mesh.templating import render

STATS = (
    # The clusters of managed Services, by which variants are judged; ``retry.`` holds tries that were made good.
    (
        r"cluster\.[^.]+\|(stable|candidate)(-fault)?\.("
        r"upstream_rq_(completed|total|active|time|timeout|per_try_timeout|[rt]x_reset|[1-5]xx|[1-5]\d\d"
        r"|retry|retry_success|retry_limit_exceeded|pending_(overflow|failure_eject))"
        r"|retry\.upstream_rq_(completed|[1-5]xx)"
        r"|upstream_cx_(connect_fail|none_healthy|active|http2_total|destroy(_remote|_local)?_with_active_rq)"
        r"|membership_(healthy|total)"
        r"|grpc\.(\d+|success|failure|total))"
    ),
    # The pod as a whole, and requests that found no route or cluster: defects of ours.
    (
        r"http\.(inbound|outbound|stage)\.(downstream_rq_(total|completed|active|[1-5]xx|time)|downstream_cx_(active|total)"
        r"|no_route|no_cluster|fault\.(aborts_injected|delays_injected|active_faults))"
    ),
    # Read by the sidecar itself, to answer probes that it took over.
    r"cluster\.probe-\d+\.membership_(healthy|total|degraded)",
    # Whether it lives, and is up to date.
    r"server\.(live|state|uptime|memory_allocated|initialization_time_ms)",
    r"control_plane\.connected_state",
    r"cluster_manager\.(cds\.update_(success|rejected)|active_clusters|warming_clusters)",
    r"listener_manager\.(lds\.update_(success|rejected)|total_listeners_(active|warming|draining))",
)
"""Statistics that are kept, about 40 series per cluster; Envoy's all are 220, and each costs memory and time.

Those of endpoints are shown whatever is in this list, for the clusters that have them switched on.
"""

PROMETHEUS_PAGE = "^([^c]|c[^l]|cluster[^.]|cluster[.][^.]+[.][^e])"
"""What Prometheus is shown: all that is kept. Endpoints would add ten series each to every caller's page."""


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A probe that asked for a TCP connection, answered by the sidecar on ``path``.

    Behind capture every port accepts a connection. So the sidecar itself tries the app's port, every second until it
    answers and every ``period_s / 2`` seconds from then on, and gives 200 or 503 by the last try.
    """

    path: str
    port: int
    period_s: int = 10


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """What one pod's bootstrap depends on.

    ``xds_address`` is ``host:port`` of the ADS server, whose certificate ``ca_pem`` signed for that host.
    ``http_ports`` are the pod's own; all its other ports pass through as TCP. The kubelet expands ``pod_address``.
    """

    xds_address: str
    ca_pem: str
    http_ports: tuple[int, ...] = ()
    probes: tuple[TcpProbe, ...] = ()
    pod_address: str = "$(POD_IP)"


def bootstrap(settings: BootstrapSettings) -> dict[str, Any]:
    """Return the bootstrap for Envoy's ``--config-yaml``, in the JSON form of protobuf.

    Raises:
        serinus.mesh.schema.SchemaError: Envoy would refuse it; a sentence that names the place.
    """
    host, _, port = settings.xds_address.rpartition(":")
    if not host or not port.isdigit():
        raise schema.SchemaError(f'the ADS server\'s address "{settings.xds_address}" is not "host:port"')
    data: dict[str, Any] = render(
        "envoy/bootstrap.json.j2",
        admin_socket=sidecar.ADMIN_SOCKET,
        token_secret=sidecar.TOKEN_SECRET,
        local_source=sidecar.LOCAL_SOURCE,
        unlimited=sidecar.UNLIMITED,
        ports={
            "outbound": sidecar.OUTBOUND_PORT,
            "inbound": sidecar.INBOUND_PORT,
            "health": sidecar.HEALTH_PORT,
            "stats": sidecar.STATS_PORT,
        },
        marks=sidecar.MARKS,
        gates=sidecar.GATES,
        reset=sidecar.RESET_CLUSTER,
        stats=STATS,
        prometheus_page=quote(PROMETHEUS_PAGE, safe=""),
        latency_edges_ms=LATENCY_EDGES_MS,
        xds_host=host,
        xds_port=int(port),
        xds_san_type=_san_type(host),
        ca_pem=settings.ca_pem,
        http_ports=sorted(set(settings.http_ports)),
        probes=settings.probes,
        checks=_checks(settings.probes),
        pod_address=settings.pod_address,
    )
    schema.parse(schema.BOOTSTRAP, data)
    return data


def _san_type(host: str) -> str:
    """Return by which kind of alternative name the certificate of the ADS server names ``host``."""
    try:
        ip_address(host)
    except ValueError:
        return "DNS"
    return "IP_ADDRESS"


def _checks(probes: Iterable[TcpProbe]) -> list[dict[str, Any]]:
    """Return each probed port once, with the shortest interval that a probe of it asks for."""
    intervals: dict[int, float] = {}
    for probe in probes:
        intervals[probe.port] = min(intervals.get(probe.port, float("inf")), max(1.0, probe.period_s / 2))
    return [{"port": port, "interval": f"{interval:g}s"} for port, interval in sorted(intervals.items())]
