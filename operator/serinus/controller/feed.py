"""From objects to sidecars: for each managed Service, the state that its Canary, its policy and its pods imply.

A Service is managed when a Canary or a TrafficPolicy names it, or once a pod with a sidecar stands behind it: callers
keep connections for hours, and one that was opened before its Service was managed never follows a weight.
Its stable endpoints are the ready pods that it selects, less the candidate's; the candidate's are those whose
containers are ready. Pods tell sooner than EndpointSlices do, and nothing is debounced: what is not ready leaves
at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.controller.pods import PodEntry
from serinus.delivery.model import Mesh
from serinus.delivery.project import Route
from serinus.mesh.model import Acks, Endpoint, Fault, PortState, Resource, ServiceState, Stage
from serinus.mesh.model import Protocol as PortProtocol
from serinus.mesh.ports import http_ports, protocol
from serinus.mesh.schema import SchemaError

log = structlog.get_logger()


class Sidecars(Protocol):
    """What the feed needs of the ADS server."""

    def publish(self, key: str, resources: tuple[Resource, ...]) -> None:
        """Send these resources for the key, whole."""

    def withdraw(self, key: str) -> None:
        """Take the key's resources back."""

    def acks(self, key: str) -> Acks:
        """Tell how far the key's resources have come."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A TrafficPolicy on a Service. Of several, the oldest counts, then the first by name."""

    created: str
    name: str
    spec: TrafficPolicySpec


def protocol_of(port: dict[str, Any]) -> PortProtocol | None:
    """Return how a Service port is spoken to; None when it is passed through."""
    if port.get("protocol", "TCP") != "TCP":
        return None
    return protocol(port.get("name"), port.get("appProtocol"))


def unusable(service: dict[str, Any]) -> str:
    """Return why a Service cannot carry a canary, in a sentence that says what to write; empty when it can."""
    name, spec = service["metadata"]["name"], service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return f"Service {name} is an ExternalName, which has no pods; name one that selects the target's pods"
    if not spec.get("selector"):
        return f"Service {name} has no selector; give it the labels of the target's pods"
    if spec.get("clusterIP") in (None, "", "None"):
        return f"Service {name} is headless: its callers choose pods themselves; name one with a cluster IP"
    if not any(protocol_of(port) for port in spec.get("ports") or []):
        return (
            f"Service {name} has no port that speaks HTTP; set appProtocol on one: http, kubernetes.io/h2c or grpc, "
            "or begin its name with http, http2 or grpc"
        )
    if spec.get("publishNotReadyAddresses"):
        return f"Service {name} publishes not-ready addresses, so it would serve the candidate; drop that field"
    return ""


class Feed:
    """Keeps the sidecars' state of every managed Service current. Not thread-safe: one event loop.

    ``render`` turns a state into resources. Where it refuses a policy (``SchemaError``), weights and endpoints go on
    with the policy that was in force before, else without one; ``refusal`` says why.
    """

    def __init__(self, sidecars: Sidecars, render: Callable[[ServiceState], tuple[Resource, ...]]):
        self._sidecars = sidecars
        self._render = render
        self.pods: dict[tuple[str, str], PodEntry] = {}
        self._by_namespace: dict[str, dict[str, PodEntry]] = defaultdict(dict)
        self.services: dict[str, dict[str, Any]] = {}
        self._routes: dict[str, tuple[str, Route]] = {}
        self._policies: dict[str, list[Policy]] = {}
        self._faults: dict[str, tuple[Fault, ...]] = {}
        self._stages: dict[str, tuple[Stage, ...]] = {}
        self._meshed: set[str] = set()
        """Services that a pod with a sidecar stands, or stood, behind."""
        self._published: dict[str, tuple[ServiceState, Route]] = {}
        self._refusals: dict[str, str] = {}
        self._filling = False
        self.settled = False
        """Whether sidecars have had time to come back since the ADS server started."""

    def fill(self) -> None:
        """Take note of what is set from now on without publishing it, until ``publish_all``."""
        self._filling = True

    async def publish_all(self) -> None:
        """Publish every Service as it is known now. Other tasks, the Lease's above all, run between two of them."""
        self._filling = False
        for key in list(self.services):
            self._note_meshed(key, self._by_namespace.get(key.split("/")[0], {}).values())
            self.refresh(key)
            await asyncio.sleep(0)

    def set_pod(self, pod: PodEntry) -> None:
        """Take note of a pod; Services that select it are published anew when it matters to them."""
        before = self.pods.get((pod.namespace, pod.name))
        if before == pod:
            return
        self.pods[pod.namespace, pod.name] = pod
        self._by_namespace[pod.namespace][pod.name] = pod
        self._touched(pod.namespace, [pod] if before is None else [before, pod])

    def drop_pod(self, namespace: str, name: str, uid: str = "") -> None:
        """Forget a pod that is gone; with ``uid``, unless another one has its name by now."""
        present = self.pods.get((namespace, name))
        if present is None or (uid and present.uid != uid):
            return
        pod = self.pods.pop((namespace, name))
        self._by_namespace[namespace].pop(name, None)
        if not self._by_namespace[namespace]:
            del self._by_namespace[namespace]
        self._touched(namespace, [pod])

    def set_service(self, service: dict[str, Any]) -> None:
        """Take note of a Service."""
        key = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        spec = service.get("spec") or {}
        kept = ("type", "selector", "clusterIP", "clusterIPs", "ports", "publishNotReadyAddresses", "sessionAffinity")
        trimmed = {
            "metadata": {"namespace": service["metadata"]["namespace"], "name": service["metadata"]["name"]},
            "spec": {k: spec[k] for k in kept if k in spec},
        }
        if self.services.get(key) != trimmed:
            self.services[key] = trimmed
            self._note_meshed(key, self._by_namespace.get(service["metadata"]["namespace"], {}).values())
            self.refresh(key)

    def drop_service(self, key: str) -> None:
        """Forget a Service that is gone."""
        if self.services.pop(key, None):
            self._meshed.discard(key)
            self.refresh(key)

    def set_route(self, key: str, owner: str, route: Route | None) -> None:
        """Set, or take back, the route of a Canary (``owner``) for a Service. Another owner's route is left alone."""
        held = self._routes.get(key)
        if held and held[0] != owner:
            return
        if route is None:
            self._routes.pop(key, None)
        else:
            self._routes[key] = (owner, route)
        self.refresh(key)

    def drop_routes(self, owner: str, keep: str = "") -> None:
        """Take back every route of a Canary but the one for the Service ``keep``."""
        for key in [key for key, (holder, _) in self._routes.items() if holder == owner and key != keep]:
            self.set_route(key, owner, None)

    def set_policies(self, key: str, policies: Iterable[Policy]) -> None:
        """Set all TrafficPolicies for a Service."""
        self._policies[key] = sorted(policies, key=lambda policy: (policy.created, policy.name))
        if not self._policies[key]:
            del self._policies[key]
        self.refresh(key)

    def set_faults(self, key: str, faults: tuple[Fault, ...]) -> None:
        """Set the faults that stand ready in a Service's routes."""
        if self._faults.get(key, ()) == faults:
            return
        if faults:
            self._faults[key] = faults
        else:
            del self._faults[key]
        self.refresh(key)

    def set_stages(self, key: str, stages: tuple[Stage, ...]) -> None:
        """Set the stages that stand before a Service; it is managed as long as there is one."""
        if self._stages.get(key, ()) == stages:
            return
        if stages:
            self._stages[key] = stages
        else:
            del self._stages[key]
        self.refresh(key)

    def policy(self, key: str) -> Policy | None:
        """Return the policy that counts for a Service."""
        return next(iter(self._policies.get(key, [])), None)

    def owner(self, key: str) -> str:
        """Return the Canary that routes a Service; empty when none does."""
        return self._routes[key][0] if key in self._routes else ""

    def refresh(self, key: str) -> None:
        """Publish what the Service's state is now, if it is another than before."""
        if self._filling:
            return
        state = self.state(key)
        if state is None:
            self._refusals.pop(key, None)
            if self._published.pop(key, None):
                self._sidecars.withdraw(key)
            return
        before = self._published[key][0] if key in self._published else None
        refusals = []
        for possible in _fallbacks(state, before):
            if possible != before:
                try:
                    self._sidecars.publish(key, self._render(possible))
                except SchemaError as problem:
                    refusals.append(str(problem))
                    continue
            self._published[key] = (possible, self._routes[key][1] if key in self._routes else Route())
            break
        if refusals and self._refusals.get(key) != refusals[0]:
            log.warning("a state is not sent", service=key, error=refusals[0], without_policy=len(refusals) > 1)
        self._refusals[key] = refusals[0] if refusals else ""

    def refusal(self, key: str) -> str:
        """Return why the Service's state, its policy above all, is not in force; empty when it is."""
        return self._refusals.get(key, "")

    def state(self, key: str) -> ServiceState | None:
        """Return what the sidecars are to have for a Service; None when it is not managed or cannot be."""
        service = self.services.get(key)
        if service is None or not self._managed(key) or unusable(service):
            return None
        route = self._routes[key][1] if key in self._routes else Route()
        namespace, name = key.split("/")
        spec = service["spec"]
        pods = self._by_namespace.get(namespace, {}).values()
        alive = [pod for pod in pods if pod.address and not pod.terminating]
        stable = [
            pod
            for pod in alive
            if pod.ready and pod.matches(spec["selector"]) and (not route.excluded or pod.pod_hash != route.excluded)
        ]
        pools = [
            [pod for pod in alive if pod_hash and pod.containers_ready and pod.pod_hash == pod_hash]
            for pod_hash in (route.pod_hash, *route.arms)
        ]
        policy = self.policy(key)
        return ServiceState(
            namespace=namespace,
            name=name,
            addresses=tuple(spec.get("clusterIPs") or [spec["clusterIP"]]),
            ports=tuple(
                PortState(port["port"], spoken, _endpoints(stable, port), *(_endpoints(pool, port) for pool in pools))
                for port in spec.get("ports") or []
                if (spoken := protocol_of(port))
            ),
            canary=key in self._routes,
            weight_pct=route.weight,
            policy=policy.spec if policy else None,
            faults=self._faults.get(key, ()),
            stages=self._stages.get(key, ()),
            arms=all(route.arms),
            arms_pct=route.arms_pct,
        )

    def facts(self, key: str) -> Mesh:
        """Return how far the sidecars are with a Service."""
        published = self._published.get(key)
        if published is None:
            return Mesh(settled=self.settled)
        state, route = published
        acks = self._sidecars.acks(key)
        return Mesh(
            weight=state.weight_pct,
            candidates=min((len(port.candidate) for port in state.ports), default=0),
            shifted=route.shifted,
            arms=min((min(len(port.candidate_fault), len(port.stable_fault)) for port in state.ports), default=0),
            arms_pct=state.arms_pct if state.arms else 0,
            connected=acks.connected,
            acknowledged=acks.acknowledged,
            laggards=acks.laggards,
            rejections=tuple(f"{r.proxy}: {r.message}" for r in acks.rejections),
            settled=self.settled,
        )

    def pods_of(self, namespace: str, wanted: Callable[[PodEntry], bool]) -> list[PodEntry]:
        """Return a namespace's pods for which ``wanted`` holds."""
        return [pod for pod in self._by_namespace.get(namespace, {}).values() if wanted(pod)]

    def address_of(self, namespace: str, name: str, uid: str) -> str:
        """Return a pod's address; empty while it has none."""
        pod = self._by_namespace.get(namespace, {}).get(name)
        return pod.address if pod and pod.uid == uid else ""

    def http_ports(self, pod: dict[str, Any]) -> dict[int, PortProtocol]:
        """Return which ports of a new pod are spoken to by HTTP, by the Services that select it."""
        prefix = f"{pod['metadata']['namespace']}/"
        return http_ports(pod, (service for key, service in self.services.items() if key.startswith(prefix)))

    def _managed(self, key: str) -> bool:
        if key in self._routes or key in self._policies or key in self._stages:
            return True
        return key in self._meshed and self.services[key]["spec"].get("sessionAffinity") != "ClientIP"

    def _note_meshed(self, key: str, pods: Iterable[PodEntry]) -> None:
        selector = self.services[key]["spec"].get("selector")
        if selector and any(pod.meshed and pod.matches(selector) for pod in pods):
            self._meshed.add(key)

    def _touched(self, namespace: str, pods: list[PodEntry]) -> None:
        if self._filling:
            return
        for key in [key for key in self.services if key.startswith(f"{namespace}/")]:
            self._note_meshed(key, pods)
            if not self._managed(key):
                continue
            selector = self.services[key]["spec"].get("selector") or {}
            route = self._routes[key][1] if key in self._routes else Route()
            hashes = {route.pod_hash, *route.arms} - {""}
            if any(pod.matches(selector) or pod.pod_hash in hashes for pod in pods):
                self.refresh(key)


def _fallbacks(state: ServiceState, before: ServiceState | None) -> Iterator[ServiceState]:
    yield state
    if state.faults or state.stages:
        state = replace(state, faults=(), stages=())
        yield state
    if state.policy is not None and before is not None and before.policy not in (None, state.policy):
        yield replace(state, policy=before.policy)
    if state.policy is not None:
        yield replace(state, policy=None)


def _target(port: dict[str, Any], named: dict[str, int]) -> int | None:
    target = port.get("targetPort", port["port"])
    return target if isinstance(target, int) else named.get(target)


def _endpoints(pods: list[PodEntry], port: dict[str, Any]) -> tuple[Endpoint, ...]:
    found = [
        Endpoint(pod.address, number, f"{pod.namespace}/{pod.name}")
        for pod in pods
        if (number := _target(port, dict(pod.ports)))
    ]
    return tuple(sorted(found, key=lambda endpoint: (endpoint.address, endpoint.port)))
