"""The bytes of Delta xDS: requests are parsed, responses are put together from parts that were serialised once.

A resource's part of a response is the same for every proxy, so it is made when the resource is published and then
only copied. What is left per response is the type, the removed names and the nonce.
Source: ``envoy/service/discovery/v3/discovery.proto``; https://protobuf.dev/programming-guides/encoding/.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from serinus.mesh.model import Resource
from serinus.mesh.schema import CLUSTER, ENDPOINTS, LISTENER, ROUTES, message, type_url

CDS = type_url(CLUSTER)
EDS = type_url(ENDPOINTS)
LDS = type_url(LISTENER)
RDS = type_url(ROUTES)
TYPES = (CDS, EDS, LDS, RDS)
"""In the order in which a stream sends them."""
WILDCARD_TYPES = frozenset({CDS, LDS})
"""Every proxy has all resources of these; the others are asked for by name."""

_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
_MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """What a proxy said: an acknowledgement (``nonce``), a rejection (``error`` too), a subscription, or several."""

    type_url: str
    node_id: str = ""
    nonce: str = ""
    error: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: dict[str, str] = field(default_factory=dict)


def read_request(data: bytes) -> Request:
    """Return the request in ``data``. Envoy's error text, which quotes the whole resource, is cut to 300 characters.

    Names and versions are interned: with a thousand proxies, all have the same ones.

    Raises:
        google.protobuf.message.DecodeError: it is no DeltaDiscoveryRequest.
    """
    parsed: Any = message(_REQUEST).FromString(data)
    error = ""
    if parsed.HasField("error_detail"):
        error = parsed.error_detail.message[:_MAX_ERROR_CHARS] or f"code {parsed.error_detail.code}, no reason given"
    return Request(
        type_url=parsed.type_url,
        node_id=parsed.node.id,
        nonce=parsed.response_nonce,
        error=error,
        subscribe=tuple(map(intern, parsed.resource_names_subscribe)),
        unsubscribe=tuple(parsed.resource_names_unsubscribe),
        initial_versions={intern(name): intern(version) for name, version in parsed.initial_resource_versions.items()},
    )


def resource_part(resource: Resource) -> bytes:
    """Return the field ``resources`` of a DeltaDiscoveryResponse that holds this one resource."""
    body = _field(1, resource.type_url.encode()) + _field(2, resource.body)
    wrapped = _field(1, resource.version.encode()) + _field(2, body) + _field(3, resource.name.encode())
    return _field(2, wrapped)


def response(type_name: str, nonce: str, parts: Iterable[bytes], removed: Iterable[str] = ()) -> bytes:
    """Return a whole DeltaDiscoveryResponse."""
    return b"".join(
        (
            *parts,
            _field(4, type_name.encode()),
            _field(5, nonce.encode()),
            *(_field(6, name.encode()) for name in removed),
        )
    )


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
