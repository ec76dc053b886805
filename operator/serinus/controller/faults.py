"""Faults in force: which gates are open, told to the sidecars again and again, so that they close without us."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from serinus.api.fault import Fault as FaultSpec
from serinus.controller.feed import Feed
from serinus.delivery import faulting
from serinus.delivery.faulting import Allowance
from serinus.kube.requests import Object
from serinus.mesh.gates import Gate
from serinus.mesh.model import Fault

RENEW_S = 2.0
VALID_S = 8.0
"""A sidecar that is told nothing for so long closes all gates."""
_GRACE_S = 0.5
"""Beyond the end of a fault, so that the telling of that end comes first."""


class GateKeeper(Protocol):
    """What is needed of the ADS server."""

    def set_gates(self, gates: tuple[Gate, ...], valid_s: float) -> None:
        """Open these gates and no others, for so long."""

    def injecting(self, gate: str) -> int:
        """Return in how many sidecars a gate is open."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One fault in force."""

    gate: Gate
    fault: Fault
    until: datetime


class Faults:
    """Opens and closes faults. Belongs to one event loop; ``run`` renews what is open."""

    def __init__(self, keeper: GateKeeper, feed: Feed, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._keeper = keeper
        self._feed = feed
        self._now = now
        self._opened: dict[str, Opened] = {}
        self._namespaces: dict[str, Allowance] = {}
        self._changed = asyncio.Event()

    def see_namespace(self, body: Object, *, deleted: bool = False) -> bool:
        """Take note of a namespace; return whether what it allows is another than before. A stop takes effect here."""
        name = body["metadata"]["name"]
        before = self.allowance(name)
        self._namespaces.pop(name, None)
        if not deleted:
            after = faulting.allowance(name, body["metadata"].get("annotations") or {})
            if after != Allowance(name):
                self._namespaces[name] = after
        if self.allowance(name).faults != faulting.ALLOWED:
            for owner in [owner for owner in self._opened if owner.startswith(f"{name}/")]:
                self.close(owner)
        return self.allowance(name) != before

    def allowance(self, namespace: str) -> Allowance:
        """Return what a namespace allows: nothing, if it says nothing."""
        return self._namespaces.get(namespace, Allowance(namespace))

    def open(self, owner: str, service_key: str, spec: FaultSpec, until: datetime) -> None:
        """Let a fault happen until then.

        Args:
            owner: the policy, ``namespace/name``.
            service_key: the Service, ``namespace/name``.
            spec: what happens.
            until: when it ends.
        """
        name = f"{owner}|{faulting.fingerprint(spec)}"
        gate = Gate(name, service_key, spec.percentage, faulting.accounts(spec, owner.split("/")[0]))
        opened = Opened(gate, Fault(name, owner, spec), until)
        before = self._opened.get(owner)
        if before == opened:
            return
        if before is not None:
            self.close(owner)
        self._opened[owner] = opened
        self._stand_ready(service_key)
        self._tell()
        self._changed.set()

    def close(self, owner: str) -> None:
        """End a policy's fault, if it has one in force."""
        opened = self._opened.pop(owner, None)
        if opened is not None:
            self._tell()
            self._stand_ready(opened.gate.key)
            self._changed.set()

    @property
    def active(self) -> int:
        """How many faults are in force."""
        return len(self._opened)

    def injecting(self, owner: str) -> int:
        """Return how many sidecars inject a policy's fault."""
        opened = self._opened.get(owner)
        return self._keeper.injecting(opened.gate.name) if opened else 0

    async def run(self) -> None:
        """Renew what is open, and close what has come to its end, until cancelled."""
        while True:
            self._changed.clear()
            now = self._now()
            for owner in [owner for owner, opened in self._opened.items() if opened.until <= now]:
                self.close(owner)
            if self._opened:
                self._tell()
            try:
                async with asyncio.timeout(min(RENEW_S, max(0.05, self._left_s())) if self._opened else None):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _left_s(self) -> float:
        """Return the seconds until the first fault ends."""
        return min((opened.until - self._now()).total_seconds() for opened in self._opened.values())

    def _tell(self) -> None:
        gates = tuple(opened.gate for opened in self._opened.values())
        self._keeper.set_gates(gates, min(VALID_S, max(0.0, self._left_s()) + _GRACE_S) if gates else VALID_S)

    def _stand_ready(self, service_key: str) -> None:
        standing = [opened.fault for opened in self._opened.values() if opened.gate.key == service_key]
        self._feed.set_faults(service_key, tuple(sorted(standing, key=lambda fault: fault.gate)))
