"""Envoy's own schema, exactly of the version that the sidecars run, in a pool that no other package can clash with.

``deploy/envoy_schema.py`` takes it out of the Envoy binary. Loading it costs about 10 ms, once, on first use.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from serinus.mesh import rules

_FILE = "envoy-1.40.binpb.zz"

CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTES = "envoy.config.route.v3.RouteConfiguration"
RUNTIME = "envoy.service.runtime.v3.Runtime"
BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"


class SchemaError(ValueError):
    """Envoy would refuse it. The text is a sentence with the path of the field."""


def type_url(type_name: str) -> str:
    """Return the URL by which Envoy names a message type."""
    return f"type.googleapis.com/{type_name}"


@lru_cache(maxsize=1)
def pool() -> descriptor_pool.DescriptorPool:
    """Return the private pool with the whole schema."""
    loaded = descriptor_pool.DescriptorPool()
    packed = (files("serinus.mesh") / _FILE).read_bytes()
    for file in FileDescriptorSet.FromString(zlib.decompress(packed)).file:
        loaded.AddSerializedFile(file.SerializeToString())
    return loaded


@lru_cache(maxsize=256)
def message(type_name: str) -> type[Message]:
    """Return the class of the message type with this full name, such as ``envoy.config.cluster.v3.Cluster``.

    Raises:
        KeyError: the schema has no such type; add its file to ``ROOTS`` in ``deploy/envoy_schema.py``.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(type_name))


def parse(type_name: str, data: Mapping[str, Any]) -> Message:
    """Return ``data``, in the JSON form of protobuf, as a message that Envoy accepts.

    Unknown fields, wrong types and broken rules are errors, also inside of ``Any``.

    Raises:
        SchemaError: what is wrong, and where.
    """
    parsed = message(type_name)()
    try:
        json_format.ParseDict(dict(data), parsed, descriptor_pool=pool())
    except json_format.ParseError as error:
        # Further lines list all fields that exist.
        raise SchemaError(f"{type_name}: {str(error).splitlines()[0]}") from error
    if broken := rules.violation(parsed, pool()):
        raise SchemaError(f"{type_name}: {broken}")
    return parsed


def to_bytes(type_name: str, data: Mapping[str, Any]) -> bytes:
    """Return ``data`` as Envoy reads it from the wire; equal data gives equal bytes.

    Raises:
        SchemaError: see ``parse``.
    """
    return parse(type_name, data).SerializeToString(deterministic=True)


def to_dict(body: bytes, type_name: str) -> dict[str, Any]:
    """Return the JSON form of a message that ``to_bytes`` wrote, for people and tests."""
    return json_format.MessageToDict(
        message(type_name).FromString(body), preserving_proto_field_name=True, descriptor_pool=pool()
    )
