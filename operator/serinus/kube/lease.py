"""Who leads: leader election on a Lease, by the rules of client-go's ``leaderelection``.

* A candidate takes the Lease when it has no holder, or when its record has not changed for ``DURATION_S`` (or longer,
  if the record says so), by the candidate's own clock since it first saw it so. Clocks need not agree.
* The holder renews every ``RENEW_S``. When it has not succeeded for ``DEADLINE_S``, counted from before the request
  that last did, it has lost, whatever the Lease says. Since ``DEADLINE_S`` < ``DURATION_S``, it knows before anybody
  can take over, and two never hold at the same time, as long as clocks run at the same speed and nobody edits or
  deletes the Lease by hand.
* Every write carries the ``resourceVersion`` that was read, so of two who try at once one gets a ``Conflict``.
* A holder that stops cleanly empties ``holderIdentity``; a successor takes over with its next look, within ``RETRY_S``.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from serinus.api.names import SYSTEM_NAMESPACE
from serinus.kube.client import Kube
from serinus.kube.errors import Conflict, KubeError, NotFound
from serinus.kube.kinds import LEASE
from serinus.kube.requests import Object

DURATION_S = 15.0
RENEW_S = 3.0
DEADLINE_S = 10.0
RETRY_S = 1.0

log = structlog.get_logger()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _utc() -> datetime:
    return datetime.now(UTC)


class Lease:
    """One candidate for one Lease.

    ``identity`` must be unique to this process (a pod's name and UID, not its name alone): whoever finds its own
    identity in the Lease takes it at once. ``clock`` gives seconds by which ``asyncio`` sleeps; ``wall`` is only shown.
    """

    def __init__(
        self,
        kube: Kube,
        identity: str,
        *,
        name: str = "serinus",
        namespace: str = SYSTEM_NAMESPACE,
        clock: Callable[[], float] = _loop_time,
        wall: Callable[[], datetime] = _utc,
    ):
        self._kube = kube
        self.identity = identity
        self._name = name
        self._namespace = namespace
        self._clock = clock
        self._wall = wall
        self._seen: tuple[Any, ...] = ()  # the record as last read, and since when it has been like that
        self._seen_at = 0.0
        self._lease: Object = {}
        self._renewed_at: float | None = None

    @property
    def held(self) -> bool:
        """Whether we lead at this moment, by our own clock."""
        return self._renewed_at is not None and self._clock() < self._renewed_at + DEADLINE_S

    async def acquire(self) -> None:
        """Return as soon as we lead. Errors of the API server are logged and waited out."""
        told = ""
        while not await self._tried():
            holder = (self._lease.get("spec") or {}).get("holderIdentity") or "nobody"
            if holder != told:
                log.info("standing by", lease=self._name, leader=holder)
                told = holder
            await asyncio.sleep(RETRY_S)
        log.info("leading", lease=self._name, identity=self.identity)

    async def hold(self, on_lost: Callable[[], None]) -> None:
        """Renew until the Lease is lost, then call ``on_lost`` and return.

        Cancelling is the clean stop: it releases the Lease. So cancel this last, when everything that only a leader may
        do has ended.
        """
        try:
            while self.held:
                await asyncio.sleep(min(RENEW_S, max(self._left_s(), 0.001)))
                if not await self._tried() and self._other_leads():
                    break
        except asyncio.CancelledError:
            await self.release()
            raise
        self._renewed_at = None
        log.error("lost the lease", lease=self._name, identity=self.identity)
        on_lost()

    async def release(self) -> None:
        """Give the Lease up if we hold it; a failure is logged, and the Lease then runs out by itself."""
        if not self.held:
            return
        self._renewed_at = None
        try:
            async with asyncio.timeout(RENEW_S):
                lease = await self._kube.get(LEASE, self._name, self._namespace)
                record = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._stamp()}
                if lease["spec"].get("holderIdentity") == self.identity:
                    await self._kube.replace(LEASE, {**lease, "spec": record})
            log.info("released the lease", lease=self._name)
        except (KubeError, TimeoutError) as problem:
            log.warning("could not release the lease", lease=self._name, error=str(problem))

    async def _tried(self) -> bool:
        """Try once to take or renew the Lease; the request never outlasts what is left of our term."""
        try:
            async with asyncio.timeout(self._left_s()):
                return await self._attempt()
        except Conflict:
            log.debug("another wrote the lease first", lease=self._name)
        except (KubeError, TimeoutError) as problem:
            log.warning("cannot reach the lease", lease=self._name, error=str(problem) or "no answer in time")
        return False

    async def _attempt(self) -> bool:
        asked_at = self._clock()
        try:
            self._lease = await self._kube.get(LEASE, self._name, self._namespace)
        except NotFound:
            self._lease = await self._kube.create(LEASE, self._fresh(), self._namespace)
            self._renewed_at = asked_at
            return True
        record = self._lease.get("spec") or {}
        self._observe(record)
        if not self._may_take(record):
            return False
        self._lease = await self._kube.replace(LEASE, {**self._lease, "spec": self._next(record)})
        self._renewed_at = asked_at
        return True

    def _observe(self, record: Object) -> None:
        version = (self._lease.get("metadata") or {}).get("uid"), record.get("holderIdentity"), record.get("renewTime")
        if version != self._seen:
            self._seen, self._seen_at = version, self._clock()

    def _may_take(self, record: Object) -> bool:
        holder = record.get("holderIdentity") or ""
        if holder in ("", self.identity):
            return True
        return self._clock() >= self._seen_at + max(float(record.get("leaseDurationSeconds") or 0), DURATION_S)

    def _other_leads(self) -> bool:
        return (self._lease.get("spec") or {}).get("holderIdentity") not in (None, "", self.identity)

    def _left_s(self) -> float:
        if self._renewed_at is None:
            return DEADLINE_S
        return max(self._renewed_at + DEADLINE_S - self._clock(), 0.0)

    def _stamp(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _fresh(self) -> Object:
        now = self._stamp()
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(DURATION_S),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        return {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec}

    def _next(self, record: Object) -> Object:
        fresh: Object = self._fresh()["spec"]
        transitions = int(record.get("leaseTransitions") or 0)
        if record.get("holderIdentity") != self.identity:
            return {**fresh, "leaseTransitions": transitions + 1}
        return {**fresh, "leaseTransitions": transitions, "acquireTime": record.get("acquireTime") or self._stamp()}
