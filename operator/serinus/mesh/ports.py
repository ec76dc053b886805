"""How a port is spoken to, as Services and pods declare it. Pure.

``appProtocol`` counts before the port's name; a name counts up to its first dash (``grpc``, ``http-web``). Nothing is
guessed from traffic: waiting for a client's first bytes would stall protocols in which the server speaks first.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from serinus.mesh.model import Protocol

_BY_APP_PROTOCOL = {
    "http": Protocol.HTTP,
    "kubernetes.io/ws": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "h2c": Protocol.HTTP2,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.HTTP,
}
_BY_NAME = {"http": Protocol.HTTP, "http2": Protocol.HTTP2, "h2c": Protocol.HTTP2, "grpc": Protocol.GRPC}


def protocol(name: str | None, app_protocol: str | None) -> Protocol | None:
    """Return how a port with this name and ``appProtocol`` is spoken to; None is passed through as TCP."""
    if app_protocol:
        return _BY_APP_PROTOCOL.get(app_protocol.lower())
    lowered = (name or "").lower()
    if lowered == "grpc-web" or lowered.startswith("grpc-web-"):
        return Protocol.HTTP  # gRPC-Web is spoken over HTTP/1.1
    return _BY_NAME.get(lowered.partition("-")[0])


def http_ports(pod: Mapping[str, Any], services: Iterable[Mapping[str, Any]] = ()) -> dict[int, Protocol]:
    """Return the pod's ports that speak HTTP: by the Services that select it, else by the names of its own ports.

    ``pod`` and ``services`` are objects of the Kubernetes API; ``services`` are those of the pod's namespace. A Service
    that says nothing about a port's protocol makes it no HTTP port, whatever the container calls it.
    """
    found = {
        int(port["containerPort"]): spoken
        for port in _container_ports(pod)
        if (spoken := protocol(port.get("name"), None)) is not None
    }
    labels = pod.get("metadata", {}).get("labels") or {}
    for service in services:
        spec = service.get("spec") or {}
        selector = spec.get("selector") or {}
        if not selector or any(labels.get(key) != value for key, value in selector.items()):
            continue
        for port in spec.get("ports") or []:
            target = _target(pod, port)
            if target is None or port.get("protocol", "TCP") != "TCP":
                continue
            if (spoken := protocol(port.get("name"), port.get("appProtocol"))) is not None:
                found[target] = spoken
    return found


def resolve(pod: Mapping[str, Any], port: int | str, container: Mapping[str, Any] | None = None) -> int | None:
    """Return a port's number, given that or its name in ``container`` (or in any); None if nobody has the name."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    candidates = (container.get("ports") or []) if container is not None else _container_ports(pod)
    return next((int(each["containerPort"]) for each in candidates if each.get("name") == port), None)


def _target(pod: Mapping[str, Any], port: Mapping[str, Any]) -> int | None:
    return resolve(pod, port.get("targetPort", port["port"]))


def _container_ports(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    spec = pod.get("spec") or {}
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        for port in container.get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                yield port
