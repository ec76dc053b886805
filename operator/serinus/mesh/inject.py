"""The sidecar's injection: a pod in, a JSON patch (RFC 6902) out. Pure.

The patch only adds, at the front of the init containers and at the end of the volumes, and replaces TCP probes, because
behind capture every port accepts a connection. HTTP and gRPC probes pass through the capture and reach the app as ever.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from serinus.api import names
from serinus.mesh import sidecar
from serinus.mesh.bootstrap import BootstrapSettings, TcpProbe, bootstrap
from serinus.mesh.model import Protocol
from serinus.mesh.ports import resolve
from serinus.mesh.templating import render, render_text

INIT_CONTAINER = "serinus-init"
PROXY_CONTAINER = "serinus-proxy"

_PROBES = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}
_STATE_VOLUME = "serinus-state"
_TOKEN_VOLUME = "serinus-token"  # noqa: S105 - a volume's name
_DRAIN = (
    "import socket; admin = socket.socket(socket.AF_UNIX); "
    f"admin.connect({sidecar.ADMIN_SOCKET!r}); "
    r"admin.sendall(b'POST /healthcheck/fail HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n'); admin.recv(1)"
)
"""Python that lets Envoy close every kept connection with its next answer; runs in the sidecar when its pod is to end.

Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/operations/draining
"""
_PRE_STOP_S = 5
_GRACE_S = 30
"""Kubernetes' default of ``terminationGracePeriodSeconds``."""

Patch = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class InjectionSettings:
    """What the installation decides about sidecars.

    ``image`` has ``envoy``, ``sh``, ``python3`` and ``iptables-restore`` on its path. ``xds_address`` is ``host:port``
    of the ADS server and ``ca_pem`` the certificate that its own is signed by. ``concurrency`` is the number of Envoy's
    worker threads. Amounts are Kubernetes quantities.
    """

    image: str
    xds_address: str
    ca_pem: str
    concurrency: int = 1
    cpu_request: str = "10m"
    memory_request: str = "48Mi"
    memory_limit: str = "256Mi"
    pull_policy: str = "IfNotPresent"
    log_level: str = "warning"


def why_not(pod: Mapping[str, Any]) -> str | None:
    """Return why ``pod`` gets no sidecar, in a few words, or None if it gets one."""
    spec, metadata = pod.get("spec") or {}, pod.get("metadata") or {}
    if (metadata.get("labels") or {}).get(names.LABEL_INJECT) == "disabled":
        return f"the label {names.LABEL_INJECT}=disabled is set"
    if spec.get("hostNetwork"):
        return "it uses the host's network"
    if (spec.get("os") or {}).get("name") == "windows":
        return "it runs on Windows"
    if any(container["name"] == PROXY_CONTAINER for container in spec.get("initContainers") or []):
        return "it has a sidecar already"
    return None


def inject(pod: Mapping[str, Any], settings: InjectionSettings, http_ports: Mapping[int, Protocol]) -> Patch:
    """Return the JSON patch that gives ``pod`` a sidecar; empty for a pod that gets none (see ``why_not``).

    ``http_ports`` are the pod's ports that speak HTTP (see ``serinus.mesh.ports.http_ports``); replies that no app gave
    are marked on these alone.

    Raises:
        serinus.mesh.schema.SchemaError: the settings make a bootstrap that Envoy would refuse.
    """
    if why_not(pod):
        return []
    probes, probe_patch = _rewritten_probes(pod)
    boot = bootstrap(BootstrapSettings(settings.xds_address, settings.ca_pem, tuple(http_ports), tuple(probes)))
    init, proxy = _init(settings), _proxy(settings, boot)
    volumes = render(
        "inject/volumes.json.j2",
        state_volume=_STATE_VOLUME,
        token_volume=_TOKEN_VOLUME,
        audience=names.TOKEN_AUDIENCE,
    )
    spec = pod["spec"]
    version = sha256(json.dumps([init, proxy, volumes], sort_keys=True).encode()).hexdigest()[:12]
    return [
        *_annotate(pod, version),
        *_first("/spec/initContainers", spec.get("initContainers"), [init, proxy]),
        *_last("/spec/volumes", spec.get("volumes"), volumes),
        *probe_patch,
        *_pre_stop(spec),
    ]


def _init(settings: InjectionSettings) -> dict[str, Any]:
    rules = render_text(
        "inject/capture.rules.j2",
        health_port=sidecar.HEALTH_PORT,
        stats_port=sidecar.STATS_PORT,
        inbound_port=sidecar.INBOUND_PORT,
        outbound_port=sidecar.OUTBOUND_PORT,
        local_source=sidecar.LOCAL_SOURCE,
        user=sidecar.USER,
    )
    script = render_text(
        "inject/init.sh.j2",
        rules=rules,
        token_secret=sidecar.TOKEN_SECRET,
        token_secret_content=json.dumps(render("inject/token-secret.json.j2", token_file=sidecar.TOKEN_FILE)),
    )
    container: dict[str, Any] = render(
        "inject/init.json.j2",
        name=INIT_CONTAINER,
        image=settings.image,
        pull_policy=settings.pull_policy,
        script=script,
        state_volume=_STATE_VOLUME,
        state_dir=sidecar.STATE_DIR,
    )
    return container


def _proxy(settings: InjectionSettings, boot: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = render(
        "inject/proxy.json.j2",
        name=PROXY_CONTAINER,
        image=settings.image,
        pull_policy=settings.pull_policy,
        concurrency=settings.concurrency,
        log_level=settings.log_level,
        bootstrap=json.dumps(boot, separators=(",", ":")),
        cpu_request=settings.cpu_request,
        memory_request=settings.memory_request,
        memory_limit=settings.memory_limit,
        user=sidecar.USER,
        health_port=sidecar.HEALTH_PORT,
        stats_port=sidecar.STATS_PORT,
        state_volume=_STATE_VOLUME,
        state_dir=sidecar.STATE_DIR,
        token_volume=_TOKEN_VOLUME,
        token_dir=sidecar.TOKEN_DIR,
        drain=_DRAIN,
    )
    return container


def _annotate(pod: Mapping[str, Any], version: str) -> Iterator[dict[str, Any]]:
    if (pod.get("metadata") or {}).get("annotations") is None:
        yield _add("/metadata/annotations", {names.ANNOTATION_INJECTED: version})
    else:
        yield _add(f"/metadata/annotations/{_escaped(names.ANNOTATION_INJECTED)}", version)


def _first(path: str, present: list[Any] | None, new: list[Any]) -> Iterator[dict[str, Any]]:
    if present:
        yield from (_add(f"{path}/{index}", item) for index, item in enumerate(new))
    else:
        yield _add(path, new)


def _last(path: str, present: list[Any] | None, new: list[Any]) -> Iterator[dict[str, Any]]:
    if present:
        yield from (_add(f"{path}/-", item) for item in new)
    else:
        yield _add(path, new)


def _rewritten_probes(pod: Mapping[str, Any]) -> tuple[list[TcpProbe], Patch]:
    """Return the TCP probes that the sidecar takes over, and the patch that points the kubelet at it.

    A probe of another host, or of a port whose name nobody defines, stays as it is. The user's own sidecars count too.
    """
    probes: list[TcpProbe] = []
    patch: Patch = []
    for path, container in _containers(pod):
        for field, kind in _PROBES.items():
            probe = container.get(field) or {}
            socket = probe.get("tcpSocket")
            if not socket or socket.get("host") or (port := resolve(pod, socket["port"], container)) is None:
                continue
            ours = TcpProbe(f"/probe/{container['name']}/{kind}", port, probe.get("periodSeconds", 10))
            kept = {key: value for key, value in probe.items() if key != "tcpSocket"}
            get = {"path": ours.path, "port": sidecar.HEALTH_PORT, "scheme": "HTTP"}
            probes.append(ours)
            patch.append({"op": "replace", "path": f"{path}/{field}", "value": {**kept, "httpGet": get}})
    return probes, patch


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield ``(path, container)`` of all that can have probes; init containers stand two further back by then."""
    for index, container in enumerate(pod["spec"].get("containers") or []):
        yield f"/spec/containers/{index}", container
    for index, container in enumerate(pod["spec"].get("initContainers") or []):
        yield f"/spec/initContainers/{index + 2}", container


def _pre_stop(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Let containers without a preStop serve on while the callers' sidecars learn that the pod goes.

    The sleep counts against the grace period; at least one second of it is left to the app.
    """
    grace_s = spec.get("terminationGracePeriodSeconds")
    sleep_s = min(_PRE_STOP_S, (_GRACE_S if grace_s is None else grace_s) - 1)
    if sleep_s < 1:
        return
    pre_stop = {"sleep": {"seconds": sleep_s}}
    for index, container in enumerate(spec.get("containers") or []):
        lifecycle = container.get("lifecycle")
        if lifecycle is None:
            yield _add(f"/spec/containers/{index}/lifecycle", {"preStop": pre_stop})
        elif not lifecycle.get("preStop"):
            yield _add(f"/spec/containers/{index}/lifecycle/preStop", pre_stop)


def _add(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
