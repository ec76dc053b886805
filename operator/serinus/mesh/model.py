"""What the mesh is told of every managed Service: ports, two pools of endpoints, and the weight between them."""

from dataclasses import dataclass
from enum import StrEnum

from serinus.api.fault import Fault as FaultSpec
from serinus.api.fault import Injection
from serinus.api.trafficpolicy import TrafficPolicySpec


class Protocol(StrEnum):
    """How a port is spoken to. Ports of any other protocol are passed through and not listed."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod that answers on one port."""

    address: str
    port: int
    pod: str = ""


@dataclass(frozen=True, slots=True)
class PortState:
    """One port of a Service. ``port`` is the Service's; the endpoints carry the pods' own."""

    port: int
    protocol: Protocol
    stable: tuple[Endpoint, ...] = ()
    candidate: tuple[Endpoint, ...] = ()
    candidate_fault: tuple[Endpoint, ...] = ()
    stable_fault: tuple[Endpoint, ...] = ()

    def pool(self, variant: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of one variant."""
        pools = {
            "candidate": self.candidate,
            "candidate-fault": self.candidate_fault,
            "stable-fault": self.stable_fault,
        }
        return pools.get(variant, self.stable)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that stands ready in the routes of a Service.

    It happens only in sidecars that were told so, to the share of the requests that they were told, by the name of its
    ``gate`` (``serinus.mesh.gates``). ``label`` is what the answers that it had a hand in carry.
    """

    gate: str
    label: str
    spec: FaultSpec


@dataclass(frozen=True, slots=True)
class Stage:
    """A place behind the retries of a caller's sidecar, and before the Service, where an experiment's fault happens.

    Callers take the way through it while ``gate`` is open in their sidecar; there, ``fault_gate`` says to which share
    of the requests the fault happens. Without ``retries`` a request that takes this way is not tried again.
    """

    name: str
    gate: str
    fault_gate: str
    label: str
    spec: Injection
    retries: bool = True
    allow_unsafe: bool = False


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One managed Service, whole: what sidecars get for it is a pure function of this.

    ``weight_pct`` is the candidate's share. ``canary`` tells whether a Canary exists, so that both clusters do.
    ``arms`` tells whether an experiment has its two groups of pods, each of which gets ``arms_pct`` of the requests.
    """

    namespace: str
    name: str
    addresses: tuple[str, ...]
    ports: tuple[PortState, ...]
    canary: bool = False
    weight_pct: int = 0
    policy: TrafficPolicySpec | None = None
    faults: tuple[Fault, ...] = ()
    stages: tuple[Stage, ...] = ()
    arms: bool = False
    arms_pct: int = 0

    @property
    def variants(self) -> tuple[str, ...]:
        """The kinds of clusters that each port has."""
        if not self.canary:
            return ("stable",)
        return ("stable", "candidate", *(("candidate-fault", "stable-fault") if self.arms else ()))

    @property
    def key(self) -> str:
        """``namespace/name``, by which the ADS server knows it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One xDS resource, ready to send. ``version`` is a hash of ``body``, so equal content has equal version.

    ``empties`` marks an endpoint assignment without endpoints: it is sent only after routes stopped naming it.
    """

    type_url: str
    name: str
    version: str
    body: bytes
    empties: bool = False


@dataclass(frozen=True, slots=True)
class Rejection:
    """A proxy that refused a resource, and Envoy's own words (cut to 300 characters)."""

    proxy: str
    type_url: str
    message: str


@dataclass(frozen=True, slots=True)
class Acks:
    """How far the resources of one key have come. ``laggards`` are proxies by ``namespace/pod``, with seconds."""

    connected: int = 0
    acknowledged: int = 0
    laggards: tuple[tuple[str, float], ...] = ()
    rejections: tuple[Rejection, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every connected proxy has the present resources in force."""
        return self.acknowledged >= self.connected and not self.rejections


def cluster_name(namespace: str, service: str, port: int, variant: str) -> str:
    """Return the cluster's name; ``variant`` is one of ``ServiceState.variants``. No dots: Envoy's tags cut there."""
    return f"{namespace}|{service}|{port}|{variant}"
