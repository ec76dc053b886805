import os
import subprocess
import sys
from dataclasses import replace

import pytest

from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.mesh import render, schema
from serinus.mesh.model import Endpoint, PortState, Protocol, ServiceState
from serinus.mesh.render import render_service

STABLE, CANDIDATE = "shop|cart|80|stable", "shop|cart|80|candidate"
UNSEEN = "connect-failure,refused-stream,reset-before-request,retriable-headers"


def pods(*addresses):
    return tuple(Endpoint(address, 8080) for address in addresses)


def service(weight_pct=0, stable=("10.0.0.1", "10.0.0.2"), candidate=("10.0.1.1",), **fields):
    port = PortState(80, fields.pop("protocol", Protocol.HTTP), pods(*stable), pods(*candidate))
    base = ServiceState("shop", "cart", ("10.96.0.1",), (port,), canary=True, weight_pct=weight_pct)
    return replace(base, **fields)


def policy(**spec):
    return TrafficPolicySpec.model_validate({"targetRef": {"name": "cart"}, **spec})


def only(state, type_name):
    return [each for each in render_service(state) if each.type_url == schema.type_url(type_name)]


def routes_of(state):
    (resource,) = only(state, schema.ROUTES)
    return schema.to_dict(resource.body, schema.ROUTES)


def tries(state):
    """Return what each try may reach, with weights; one entry for a plain cluster."""
    config = routes_of(state)
    routes = [each["route"] for each in config["virtual_hosts"][0]["routes"]]
    if "cluster_specifier_plugins" not in config:
        assert not any("cluster_specifier_plugin" in route for route in routes)
        assert {route["cluster"] for route in routes} == {STABLE}
        return [{STABLE: "all"}]
    (plugin,) = config["cluster_specifier_plugins"]
    assert {route["cluster_specifier_plugin"] for route in routes} == {plugin["extension"]["name"]}
    assert all(route["retry_policy"]["refresh_cluster_on_retry"] for route in routes if "retry_policy" in route)
    groups = plugin["extension"]["typed_config"]["priority_groups"]
    return [{each["cluster_name"]: each["weight"] for each in group["clusters"]} for group in groups]


RESCUED = [{STABLE: 1}, {STABLE: 1}]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(service(0), [{STABLE: "all"}], id="weight 0: stable alone"),
        pytest.param(service(10), [{CANDIDATE: 10, STABLE: 90}, *RESCUED], id="weight 10: the pair, then only stable"),
        pytest.param(service(100), [{CANDIDATE: 100}, *RESCUED], id="weight 100: the candidate, then only stable"),
        pytest.param(service(50, candidate=()), [{STABLE: "all"}], id="a candidate without endpoints gets nothing"),
        pytest.param(service(100, candidate=()), [{STABLE: "all"}], id="not even at weight 100"),
        pytest.param(service(100, stable=()), [{CANDIDATE: 100}], id="weight 100, no stable endpoints: no rescue"),
        pytest.param(
            service(10, stable=()),
            [{CANDIDATE: 10, STABLE: 90}],
            id="no stable endpoints: the candidate keeps its share",
        ),
        pytest.param(service(50, canary=False), [{STABLE: "all"}], id="without a Canary a weight means nothing"),
        pytest.param(
            service(10, policy=policy(retries={"attempts": 4})),
            [{CANDIDATE: 10, STABLE: 90}, *([{STABLE: 1}] * 4)],
            id="as many tries on stable as a policy allows, so that the count never comes round to the candidate",
        ),
        pytest.param(
            service(10, policy=policy(retries={"attempts": 0})),
            [{CANDIDATE: 10, STABLE: 90}, *RESCUED[:1]],
            id="a policy without retries still rescues the candidate's once",
        ),
    ],
)
def test_who_gets_a_request(state, expected):
    assert tries(state) == expected


def rules_of(state):
    """Return ``(name, timeout, retry_on, attempts, marks)`` of each route in order."""
    for route in routes_of(state)["virtual_hosts"][0]["routes"]:
        retry = route["route"].get("retry_policy", {})
        marks = [mark["name"] for mark in retry.get("retriable_headers", [])]
        yield route["name"], route["route"]["timeout"], retry.get("retry_on"), retry.get("num_retries"), marks


BOTH = ["x-mesh-unserved", "x-mesh-cut"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            None,
            [
                ("default|safe", "0s", f"{UNSEEN},reset", 2, BOTH),
                ("default|other", "0s", UNSEEN, 2, BOTH[:1]),
            ],
            id="no policy: no time-out; only safe methods are tried again once an app may have begun",
        ),
        pytest.param(
            policy(timeout="1m30s", retries={"attempts": 5, "on": ["5xx", "connect-failure"]}),
            [
                ("default|safe", "90s", f"{UNSEEN},reset,5xx", 5, BOTH),
                ("default|other", "90s", f"{UNSEEN},5xx", 5, BOTH[:1]),
            ],
            id="a policy's retries come on top of our own, each word once",
        ),
        pytest.param(
            policy(retries={"attempts": 0}),
            [("default|safe", "0s", None, None, []), ("default|other", "0s", None, None, [])],
            id="attempts 0: none, as long as no candidate is in play",
        ),
        pytest.param(
            policy(
                timeout="2s",
                routes=[
                    {"name": "slow", "timeout": "0s", "match": {"path": {"prefix": "/slow"}, "methods": ["POST"]}},
                    {
                        "name": "quick",
                        "timeout": "250ms",
                        "match": {"methods": ["GET", "PUT"]},
                        "retries": {"attempts": 1},
                    },
                ],
            ),
            [
                ("slow|other", "0s", UNSEEN, 2, BOTH[:1]),
                ("quick|safe", "0.250s", f"{UNSEEN},reset", 1, BOTH),
                ("quick|other", "0.250s", UNSEEN, 1, BOTH[:1]),
                ("default|safe", "2s", f"{UNSEEN},reset", 2, BOTH),
                ("default|other", "2s", UNSEEN, 2, BOTH[:1]),
            ],
            id="routes come first and in order, with their own values where given, split by kind of method",
        ),
    ],
)
def test_what_is_tried_again_and_how_long_a_request_may_take(given, expected):
    assert list(rules_of(service(policy=given))) == expected


def test_a_time_for_one_try_is_passed_on():
    config = routes_of(service(policy=policy(retries={"perTryTimeout": "500ms"})))
    first = config["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    assert first["per_try_timeout"] == "0.500s"


def match_of(**match):
    state = service(policy=policy(routes=[{"name": "a", "match": match}]))
    return [each["match"] for each in routes_of(state)["virtual_hosts"][0]["routes"][:-2]]


SAFE = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}


@pytest.mark.parametrize(
    ("match", "path"),
    [
        pytest.param({"path": {"exact": "/a"}}, {"path": "/a"}, id="the whole path"),
        pytest.param({"path": {"prefix": "/a"}}, {"path_separated_prefix": "/a"}, id="a beginning, in whole segments"),
        pytest.param(
            {"path": {"prefix": "/a/"}}, {"path_separated_prefix": "/a"}, id="a slash at its end adds nothing"
        ),
        pytest.param({"path": {"prefix": "/"}}, {"prefix": "/"}, id="the beginning of every path"),
        pytest.param({"path": {"regex": "/v[0-9]+"}}, {"safe_regex": {"regex": "/v[0-9]+"}}, id="an expression"),
        pytest.param({}, {"prefix": "/"}, id="nothing: every path"),
    ],
)
def test_paths(match, path):
    assert match_of(**match) == [{**path, "headers": [SAFE]}, path]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param({"exact": "b"}, {"string_match": {"exact": "b"}}, id="the whole value"),
        pytest.param({"exact": ""}, {"string_match": {"exact": ""}}, id="an empty value"),
        pytest.param({"prefix": "b"}, {"string_match": {"prefix": "b"}}, id="its beginning"),
        pytest.param({"regex": "b.*"}, {"string_match": {"safe_regex": {"regex": "b.*"}}}, id="an expression"),
        pytest.param({"present": True}, {"present_match": True}, id="it is there"),
        pytest.param({"present": False}, {"present_match": False}, id="it is not there"),
    ],
)
def test_headers(header, expected):
    found = match_of(headers=[{"name": "X-Who", **header}], methods=["DELETE"])
    method = {"name": ":method", "string_match": {"exact": "DELETE"}}
    assert found == [{"prefix": "/", "headers": [method, {"name": "X-Who", **expected}]}]


@pytest.mark.parametrize(
    ("regex", "words"),
    [
        pytest.param("/a(", "is not a valid regular expression", id="not an expression at all"),
        pytest.param("/(?=a)", 'has "(?="', id="look-ahead"),
        pytest.param("/(?<!a)b", 'has "(?<!"', id="look-behind"),
        pytest.param(r"/(a)\1", r'has "\1"', id="a back-reference"),
        pytest.param("/a++", 'has "++"', id="a possessive quantifier"),
        pytest.param("/(?>a)", 'has "(?>"', id="an atomic group"),
        pytest.param("/(?#a)b", 'has "(?#a)"', id="a comment"),
        pytest.param("/(?x: a )", 'has "(?x:"', id="a flag of Python's own"),
        pytest.param(r"/\u0041", r'has "\u"', id="an escape of Python's own"),
        pytest.param(r"/[\u0041]", r'has "\u"', id="the same inside a set"),
        pytest.param(r"/\é", r'has "\é"', id="an escaped letter"),
        pytest.param("/a{1001}", "repeats up to 1001 times", id="too many repeats"),
        pytest.param("/((a{20}){1,20}){20}", "repeats up to 8000 times", id="too many repeats, nested"),
    ],
)
def test_an_expression_that_envoy_would_refuse_is_refused_with_the_route_that_has_it(regex, words):
    state = service(policy=policy(routes=[{"name": "mine", "match": {"path": {"regex": regex}}}]))
    with pytest.raises(schema.SchemaError, match="mine") as refused:
        render_service(state)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "regex", [r"/\d+/[a-z]+?", r"/a\\+", r"/(?P<x>a|b)", r"/(?i:a)", r"/[*+]+", r"/[]a]", r"/x{,3}", r"/\x41\.", "/é"]
)
def test_an_expression_of_both_dialects_is_taken(regex):
    assert match_of(path={"regex": regex}, methods=["GET"])[0]["safe_regex"] == {"regex": regex}


def test_marks_never_reach_the_caller():
    assert routes_of(service())["response_headers_to_remove"] == BOTH


def test_a_weight_changes_routes_and_nothing_else():
    before, after = render_service(service(10)), render_service(service(50))
    changed = [new.type_url for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [render.ROUTES_URL]


def test_endpoints_change_their_assignment_and_nothing_else_unless_the_pool_was_empty():
    before, after = render_service(service(10)), render_service(service(10, candidate=("10.0.1.1", "10.0.1.2")))
    changed = [new.name for old, new in zip(before, after, strict=True) if old != new]
    assert changed == [CANDIDATE]


def test_the_order_of_endpoints_makes_no_difference():
    assert render_service(service(10, stable=("10.0.0.2", "10.0.0.1"))) == render_service(service(10))


def test_another_process_renders_the_same_bytes():
    program = (
        "from serinus.mesh.model import *; from serinus.mesh.render import render_service\n"
        "pods = lambda *a: tuple(Endpoint(x, 8080) for x in a)\n"
        "port = PortState(80, Protocol.HTTP, pods('10.0.0.1', '10.0.0.2'), pods('10.0.1.1'))\n"
        "state = ServiceState('shop', 'cart', ('10.96.0.1',), (port,), canary=True, weight_pct=10)\n"
        "print(*(each.version for each in render_service(state)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "4711"}
    other = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert other.stdout.split() == [each.version for each in render_service(service(10))]


def test_the_candidates_cluster_lives_as_long_as_the_canary():
    assert [each.name for each in only(service(0, candidate=()), schema.CLUSTER)] == [STABLE, CANDIDATE]
    assert [each.name for each in only(service(0, canary=False), schema.CLUSTER)] == [STABLE]


def test_only_an_assignment_without_endpoints_says_that_it_empties():
    resources = render_service(service(10, candidate=()))
    assert [each.name for each in resources if each.empties] == [CANDIDATE]
    assert next(each for each in resources if each.empties).type_url == render.ENDPOINTS_URL


def test_a_service_without_addresses_passes_through():
    assert render_service(service(10, addresses=())) == ()


def test_each_port_has_its_own_resources_and_every_name_is_without_dots():
    ports = (PortState(80, Protocol.HTTP, pods("10.0.0.1")), PortState(9090, Protocol.GRPC, pods("10.0.0.1")))
    resources = render_service(service(0, ports=ports, canary=False))
    assert [each.name for each in resources] == [
        *("shop|cart|80|stable",) * 2,
        *("shop|cart|80",) * 2,
        *("shop|cart|9090|stable",) * 2,
        *("shop|cart|9090",) * 2,
    ]
    assert not any("." in each.name for each in resources)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        pytest.param(Protocol.HTTP, "use_downstream_protocol_config", id="http: as the caller speaks"),
        pytest.param(Protocol.HTTP2, "explicit_http_config", id="http2: always HTTP/2"),
        pytest.param(Protocol.GRPC, "explicit_http_config", id="grpc: always HTTP/2"),
    ],
)
def test_how_servers_are_spoken_to(protocol, expected):
    cluster = schema.to_dict(only(service(protocol=protocol), schema.CLUSTER)[0].body, schema.CLUSTER)
    (options,) = cluster["typed_extension_protocol_options"].values()
    assert expected in options


def test_a_listener_stands_at_every_address_of_the_service_and_binds_none():
    (resource,) = only(service(addresses=("10.96.0.1", "10.96.0.2")), schema.LISTENER)
    listener = schema.to_dict(resource.body, schema.LISTENER)
    assert listener["bind_to_port"] is False
    others = [each["address"] for each in listener["additional_addresses"]]
    assert [each["socket_address"] for each in [listener["address"], *others]] == [
        {"address": "10.96.0.1", "port_value": 80},
        {"address": "10.96.0.2", "port_value": 80},
    ]
    (http,) = (each["typed_config"] for each in listener["filter_chains"][0]["filters"])
    assert [each["name"].rpartition(".")[2] for each in http["http_filters"]] == ["fault", "grpc_stats", "router"]
    assert "access_log" not in http


@pytest.mark.parametrize("canary", [True, False])
def test_endpoints_are_counted_one_by_one_only_for_stable_and_only_beside_a_canary(canary):
    clusters = [schema.to_dict(each.body, schema.CLUSTER) for each in only(service(canary=canary), schema.CLUSTER)]
    counting = {each["name"]: each.get("track_cluster_stats") for each in clusters}
    expected = {STABLE: {"per_endpoint_stats": True}, CANDIDATE: None} if canary else {STABLE: None}
    assert counting == expected
