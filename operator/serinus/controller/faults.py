"""Faults in force: which gates are open, told to the sidecars again and again, so that they close without us."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from serinus.api.fault import Fault as FaultSpec
from serinus.api.fault import Injection
from serinus.controller.feed import Feed, unusable
from serinus.delivery import faulting
from serinus.delivery.arms import Trial
from serinus.delivery.faulting import Allowance
from serinus.delivery.model import Dependency
from serinus.kube.requests import Object
from serinus.mesh.gates import Gate
from serinus.mesh.model import Fault, Stage

RENEW_S = 2.0
VALID_S = 8.0
"""A sidecar that is told nothing for so long closes all gates."""
LEASE_S = 10.0
"""An experiment that its Canary has not asked for again for so long ends: nobody looks after it."""
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
    """One fault in force: its gates, and what stands ready for them in the routes of the Service ``key``.

    The last gate is that of the fault itself. An experiment has a stage, and is the only one with that Service.
    """

    key: str
    gates: tuple[Gate, ...]
    until: datetime
    fault: Fault | None = None
    stage: Stage | None = None


class Faults:
    """Opens and closes faults. Belongs to one event loop; ``run`` renews what is open.

    An owner is ``policy:namespace/name`` or ``canary:namespace/name``; it has one fault at most.
    """

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
            for owner in [owner for owner in self._opened if _namespace(owner) == name]:
                self.close(owner)
        return self.allowance(name) != before

    def allowance(self, namespace: str) -> Allowance:
        """Return what a namespace allows: nothing, if it says nothing."""
        return self._namespaces.get(namespace, Allowance(namespace))

    def open(self, owner: str, service_key: str, spec: FaultSpec, until: datetime) -> None:
        """Let the fault of a policy happen until then.

        Args:
            owner: the policy.
            service_key: the Service, ``namespace/name``.
            spec: what happens.
            until: when it ends.
        """
        if self._refusal(owner, spec):  # since it was decided
            self.close(owner)
            return
        name = f"{owner}|{faulting.fingerprint(spec)}"
        gate = Gate(name, spec.percentage, faulting.accounts(spec, _namespace(owner)))
        self._open(owner, Opened(service_key, (gate,), until, fault=Fault(name, owner.partition(":")[2], spec)))

    def experiment(self, owner: str, trial: Trial | None) -> None:
        """Let an experiment be as far as ``trial`` says, for a while; None ends it, and so does another one's.

        Args:
            owner: the Canary.
            trial: what its status implies.
        """
        if trial is None or self._rival(owner, trial.to):
            self.close(owner)
            return
        pods = frozenset(
            pod.uid for pod in self._feed.pods_of(_namespace(owner), lambda pod: pod.pod_hash in trial.arms)
        )
        mark = faulting.fingerprint(trial.spec)
        way, fault = f"{owner}|way", f"{owner}|{mark}"
        stage = Stage(f"{owner}|{mark}", way, fault, trial.name, trial.spec, trial.retries, trial.allow_unsafe)
        gates = [Gate(way, 100, pods=pods)] if trial.through else []
        injected = trial.injected and not self._refusal(owner, trial.spec)  # it may have been stopped since
        gates += [Gate(fault, trial.spec.percentage, pods=pods)] if injected else []
        self._open(owner, Opened(trial.to, tuple(gates), self._now() + timedelta(seconds=LEASE_S), stage=stage))

    def close(self, owner: str) -> None:
        """End an owner's fault, if it has one in force."""
        opened = self._opened.pop(owner, None)
        if opened is not None:
            self._tell()
            self._stand_ready(opened.key)
            self._changed.set()

    @property
    def active(self) -> int:
        """How many faults are in force, experiments without one at the moment among them."""
        return len(self._opened)

    def injecting(self, owner: str) -> int:
        """Return how many sidecars inject an owner's fault."""
        opened = self._opened.get(owner)
        return self._keeper.injecting(opened.gates[-1].name) if opened and opened.gates else 0

    def dependency(self, owner: str, to: str, injection: Injection, *, dry_run: bool) -> Dependency:
        """Return what an experiment has to know of the Service that it lets fail.

        Args:
            owner: the Canary.
            to: the Service, ``namespace/name``.
            injection: what goes wrong.
            dry_run: whether nothing will.
        """
        opened = self._opened.get(owner)
        gates = {gate.name: gate for gate in opened.gates} if opened else {}
        way = f"{owner}|way"
        others = [name for name in gates if name != way]
        return Dependency(
            refusal=self._missing(to) or ("" if dry_run else self._refusal(owner, injection)),
            busy=self._rival(owner, to).partition(":")[2],
            through=self._keeper.injecting(way) if way in gates else 0,
            injecting=self._keeper.injecting(others[0]) if others else 0,
        )

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

    def _open(self, owner: str, opened: Opened) -> None:
        before = self._opened.get(owner)
        self._opened[owner] = opened
        if before is not None and before.key != opened.key:
            self._stand_ready(before.key)
        self._stand_ready(opened.key)
        if before is None or before.gates != opened.gates:
            self._tell()
            self._changed.set()

    def _rival(self, owner: str, to: str) -> str:
        """Return who else makes an experiment with a Service; empty when nobody does."""
        taken = (other for other, opened in self._opened.items() if opened.stage and opened.key == to)
        return next((other for other in taken if other != owner), "")

    def _missing(self, to: str) -> str:
        service = self._feed.services.get(to)
        namespace, name = to.split("/")
        if service is None:
            return f"there is no Service {name} in namespace {namespace}; create it, or name another in faults[].to"
        return unusable(service)

    def _refusal(self, owner: str, injection: Injection) -> str:
        return self.allowance(_namespace(owner)).refusal(injection, self._now())

    def _left_s(self) -> float:
        """Return the seconds until the first fault ends."""
        return min((opened.until - self._now()).total_seconds() for opened in self._opened.values())

    def _tell(self) -> None:
        gates = tuple(gate for opened in self._opened.values() for gate in opened.gates)
        self._keeper.set_gates(gates, min(VALID_S, max(0.0, self._left_s()) + _GRACE_S) if self._opened else VALID_S)

    def _stand_ready(self, key: str) -> None:
        there = [opened for opened in self._opened.values() if opened.key == key]
        faults = [opened.fault for opened in there if opened.fault]
        self._feed.set_faults(key, tuple(sorted(faults, key=lambda fault: fault.gate)))
        self._feed.set_stages(key, tuple(opened.stage for opened in there if opened.stage))


def _namespace(owner: str) -> str:
    return owner.partition(":")[2].split("/")[0]
