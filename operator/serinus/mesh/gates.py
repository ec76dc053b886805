"""Gates: which faults happen in which sidecars, and to what share of the requests.

Routes only hold faults ready (``serinus.mesh.routes``). They happen where the sidecar's runtime layer says so, which is
made for each sidecar, and which Envoy drops by itself when it is not renewed: if the operator dies or hangs, so does
every fault. An empty layer ends all at once, and drains nothing.
Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol (TTL), and configuration/operations/runtime.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from serinus.mesh import schema
from serinus.mesh.ads_wire import Request, response
from serinus.mesh.sidecar import GATES

RTDS = schema.type_url(schema.RUNTIME)
_RESOURCE = "envoy.service.discovery.v3.Resource"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose sidecar it is: what the API server said of its token."""

    namespace: str
    account: str
    uid: str


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate that is open.

    ``name`` is the runtime key that routes ask for. It is open to ``percentage`` of the requests of the accounts
    ``accounts`` (namespace and name), or of everybody (None), and of ``pods`` by UID only, where that is not None.
    """

    name: str
    percentage: float
    accounts: frozenset[tuple[str, str]] | None = None
    pods: frozenset[str] | None = None

    def admits(self, caller: Caller) -> bool:
        """Whether it is open in this caller's sidecar."""
        if self.pods is not None and caller.uid not in self.pods:
            return False
        return self.accounts is None or (caller.namespace, caller.account) in self.accounts


@dataclass(frozen=True, slots=True)
class Gates:
    """All open gates, until when that holds, by the clock that ``Layer.send`` is given, and a number of the telling."""

    gates: tuple[Gate, ...] = ()
    valid_until: float = 0.0
    serial: int = 0

    def of(self, caller: Caller, now: float) -> tuple[Gate, ...]:
        """Return the gates that are open in one sidecar."""
        if now >= self.valid_until:
            return ()
        return tuple(gate for gate in self.gates if gate.admits(caller))


class Layer:
    """What one sidecar was told of the gates. No I/O and no clock of its own."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._wanted = False
        self._told: tuple[tuple[Gate, ...], int] | None = None
        self._nonce = 0
        self._unanswered: dict[str, tuple[str, ...]] = {}
        self.acknowledged: tuple[str, ...] = ()
        """Names of the gates that the sidecar has said to have, by its last answer."""

    def receive(self, request: Request) -> str:
        """Take in what the proxy said; return its words where it refused what it was told."""
        if request.type_url != RTDS:
            return ""
        self._wanted = self._wanted or GATES in request.subscribe
        told = self._unanswered.pop(request.nonce, None)
        if told is not None and not request.error:
            self.acknowledged = told
        return request.error

    def send(self, gates: Gates, now: float) -> bytes | None:
        """Return what the sidecar is to be told now, or None.

        It is told what changed, and all of it again each time when the gates are renewed: so it does not matter
        whether Envoy has dropped them meanwhile.
        """
        if not self._wanted:
            return None
        open_ = gates.of(self.caller, now)
        telling = (open_, gates.serial if open_ else 0)
        if self._told == telling:
            return None
        self._told = telling
        body = _layer(open_)
        version = sha256(body).hexdigest()[:16]
        self._nonce += 1
        nonce = f"gates-{self._nonce}"
        self._unanswered[nonce] = tuple(gate.name for gate in open_)
        return response(RTDS, nonce, [_part(version, body, gates.valid_until - now if open_ else None)])


@lru_cache(maxsize=256)
def _layer(gates: tuple[Gate, ...]) -> bytes:
    """Return the runtime layer in which these gates are open."""
    values = {
        gate.name: {"numerator": round(gate.percentage * 10_000), "denominator": "MILLION"}
        for gate in sorted(gates, key=lambda gate: gate.name)
    }
    return schema.to_bytes(schema.RUNTIME, {"name": GATES, "layer": values})


def _part(version: str, body: bytes, ttl_s: float | None) -> bytes:
    """Return the field ``resources`` of a response that holds the layer, with the time that it lives."""
    resource: Any = schema.message(_RESOURCE)(name=GATES, version=version)
    resource.resource.type_url = RTDS
    resource.resource.value = body
    if ttl_s is not None:
        resource.ttl.FromMilliseconds(max(1, round(ttl_s * 1000)))
    whole: Any = schema.message("envoy.service.discovery.v3.DeltaDiscoveryResponse")(resources=[resource])
    return bytes(whole.SerializeToString())
