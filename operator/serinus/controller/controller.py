"""The controller: what was seen goes into caches and onto the queue; what is due is reconciled.

Keys on the queue are ``canary:namespace/name`` and ``policy:namespace/name``. Caches are hints: whatever acts on
something gets it from the API server first. They are filled by a list before anything is answered to a sidecar, kept
by Kopf's watches, and swept against a list every ten minutes, since a watch that breaks can miss a deletion.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from serinus.api.names import LABEL_CANARY, LABEL_HASH
from serinus.api.release import CanaryStatus, Phase
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed
from serinus.controller.gather import read_meta, read_replicaset, read_spec, read_status
from serinus.controller.pods import entry
from serinus.controller.policies import Policies
from serinus.controller.reconcile import Reconciler
from serinus.controller.workqueue import Key, Result, WorkQueue
from serinus.delivery.model import Snapshot
from serinus.delivery.plan import ACTIVE, effective_phase
from serinus.delivery.project import project
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import KubeError
from serinus.kube.requests import Object

SWEEP_S = 600.0
WORKERS = 8

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a Canary between looks."""

    created: str
    target: str
    service: str
    active: bool
    pod_hash: str
    written: str = ""
    """The ``resourceVersion`` that our last write gave it: its event tells nothing new."""


class Controller:
    """Joins caches, queue and reconcilers. Belongs to one event loop; other threads use ``call_soon_threadsafe``.

    ``drop`` is told the UID of every pod that is gone, so that its sidecar's stream ends too.
    """

    def __init__(
        self,
        kube: Kube,
        feed: Feed,
        queue: WorkQueue,
        policies: Policies,
        faults: Faults,
        drop: Callable[[str], None] = lambda _: None,
    ):
        self._drop = drop
        self._faults = faults
        self._kube = kube
        self._feed = feed
        self._queue = queue
        self._policies = policies
        self._canaries: dict[str, Known] = {}
        self.reconciler: Reconciler | None = None

    async def prime(self) -> None:
        """Fill the caches, and publish every Service as the persisted statuses say. Nothing is written.

        Raises:
            KubeError: the API server did not answer.
        """
        self._feed.fill()
        # One kind after the other: what is listed at once is memory that a process hardly gives back.
        for namespace in await self._kube.list(kinds.NAMESPACE, slim=True):
            self._faults.see_namespace(namespace)
        for service in await self._kube.list(kinds.SERVICE, slim=True):
            self._feed.set_service(service)
        for pod in await self._kube.list(kinds.POD, slim=True):
            self._feed.set_pod(entry(pod))
        for policy in await self._kube.list(kinds.TRAFFIC_POLICY, slim=True):
            self.saw_policy(policy)
        canaries = await self._kube.list(kinds.CANARY, slim=True)
        for canary in canaries:
            self.saw_canary(canary)
        for canary in sorted(canaries, key=lambda body: body["metadata"].get("creationTimestamp", "")):
            await asyncio.sleep(0)
            try:
                await self._restore(canary)
            except KubeError:
                raise
            except Exception:  # one that cannot be read keeps no other from being served; its reconcile says why
                log.exception("routes not restored", canary=_key(canary))
        await self._feed.publish_all()

    async def run(self) -> None:
        """Reconcile what is due, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._queue.run(self.reconcile, WORKERS), name="reconcile")
            tasks.create_task(self._sweeps(), name="sweep")
            tasks.create_task(self._faults.run(), name="faults")

    async def reconcile(self, key: Key) -> Result:
        """Reconcile one key.

        Raises:
            KubeError: tried again by the queue.
        """
        kind, _, owner = key.partition(":")
        namespace, _, name = owner.partition("/")
        if kind == "policy":
            return await self._policies.reconcile(namespace, name)
        assert self.reconciler is not None  # noqa: S101 - set before the queue runs
        run = self._canaries[owner].pod_hash if owner in self._canaries else ""
        with structlog.contextvars.bound_contextvars(canary=owner, run=run):
            return await self.reconciler.reconcile(namespace, name)

    def rival(self, namespace: str, name: str) -> str:
        """Return the name of an older Canary with the same target or Service; empty without one."""
        own = self._canaries.get(f"{namespace}/{name}")
        if own is None:
            return ""
        older = [
            (other.created, key.split("/")[1])
            for key, other in self._canaries.items()
            if key.startswith(f"{namespace}/")
            and key != f"{namespace}/{name}"
            and (other.target == own.target or other.service == own.service)
        ]
        first = min(older, default=None)
        return first[1] if first and first < (own.created, name) else ""

    def saw_canary(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a Canary."""
        meta, key = body["metadata"], _key(body)
        before = self._canaries.pop(key, None)
        written = before.written if before else ""
        if deleted or meta.get("resourceVersion") != written:
            self._queue.add(f"canary:{key}")
        if not deleted:
            spec, _ = read_spec(body)
            target = spec.target_ref.name if spec else ""
            try:
                status = read_status(body)
            except ValueError:  # its reconcile fails with that, and says so
                status = CanaryStatus()
            self._canaries[key] = Known(
                created=meta.get("creationTimestamp", ""),
                target=target,
                service=(spec.service or target) if spec else "",
                active=effective_phase(status) in ACTIVE or status.phase is None,
                pod_hash=status.run.pod_hash if status.run else "",
                written=written,
            )
        if deleted and before:  # whoever was second may be first now
            for other, known in self._canaries.items():
                rivals = known.target == before.target or known.service == before.service
                if rivals and other.startswith(f"{meta['namespace']}/"):
                    self._queue.add(f"canary:{other}")

    def saw_policy(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a TrafficPolicy."""
        meta = body["metadata"]
        self._policies.see(body, deleted=deleted)
        if not deleted:
            self._queue.add(f"policy:{meta['namespace']}/{meta['name']}")

    def saw_namespace(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a namespace, which may have another mind about faults now."""
        if self._faults.see_namespace(body, deleted=deleted):
            for key in self._policies.of_namespace(body["metadata"]["name"]):
                self._queue.add(f"policy:{key}")

    def saw_deployment(self, body: Object) -> None:
        """Take note of a target, which carries the name of its Canary, or has just lost it."""
        meta = body["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        labelled = (meta.get("labels") or {}).get(LABEL_CANARY)
        if labelled:
            self._queue.add(f"canary:{namespace}/{labelled}")
        for key, known in self._canaries.items():
            if known.target == name and key.startswith(f"{namespace}/"):
                self._queue.add(f"canary:{key}")

    def saw_owned(self, body: Object, owner: str) -> None:
        """Take note of an object that belongs to a Canary."""
        self._queue.add(f"canary:{body['metadata']['namespace']}/{owner}")

    def saw_service(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a Service."""
        meta = body["metadata"]
        key = _key(body)
        if deleted:
            self._feed.drop_service(key)
        else:
            self._feed.set_service(body)
        self.touched(key)
        for owner, known in self._canaries.items():
            ours = (known.service, f"{known.service}-canary")
            if meta["name"] in ours and owner.startswith(f"{meta['namespace']}/"):
                self._queue.add(f"canary:{owner}")

    def saw_pod(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a pod. Only a run that is under way looks at its pods."""
        meta = body["metadata"]
        if deleted:
            self._feed.drop_pod(meta["namespace"], meta["name"], meta["uid"])
            self._drop(meta["uid"])
        else:
            self._feed.set_pod(entry(body))
        labels = meta.get("labels") or {}
        for owner, known in self._canaries.items():
            if known.active and known.pod_hash and owner.startswith(f"{meta['namespace']}/"):
                related = known.pod_hash in labels.values() or known.target in meta["name"]
                if related:
                    self._queue.add(f"canary:{owner}", 0.05)

    def touched(self, service_key: str) -> None:
        """Look again at whoever is about this Service: its acknowledgements changed."""
        owner = self._feed.owner(service_key)
        if owner and owner in self._canaries and self._canaries[owner].active:
            self._queue.add(f"canary:{owner}")
        for policy in self._policies.of_service(service_key):
            self._queue.add(f"policy:{policy}", 0.2)

    def remember(self, namespace: str, name: str, status: CanaryStatus | None, written: str) -> None:
        """Take note of a status, and of the version that it was written as, before the event of that arrives."""
        key = f"{namespace}/{name}"
        known = self._canaries.get(key)
        if known is None or status is None:
            return
        self._canaries[key] = replace(
            known,
            active=effective_phase(status) in ACTIVE,
            pod_hash=status.run.pod_hash if status.run else "",
            written=written or known.written,
        )

    async def _restore(self, canary: Object) -> None:
        """Publish the routes that a Canary's persisted status implies."""
        meta = read_meta(canary)
        spec, problems = read_spec(canary)
        status = read_status(canary)
        if spec is None or status.stable is None or self.rival(meta.namespace, meta.name):
            return
        adopted: list[Object] = []
        if status.run and effective_phase(status) is Phase.ROLLING_BACK:  # what the target has taken serves on
            labels = f"{LABEL_HASH}={status.run.pod_hash}"
            adopted = await self._kube.list(kinds.REPLICA_SET, meta.namespace, labels=labels)
        snapshot = Snapshot(meta, status, spec, problems, replicasets=tuple(map(read_replicaset, adopted)))
        route = project(snapshot).route
        owner = f"{meta.namespace}/{meta.name}"
        self._feed.set_route(f"{meta.namespace}/{spec.service or spec.target_ref.name}", owner, route)

    async def _sweeps(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep()
            except Exception as problem:  # noqa: BLE001 - a sweep that fails is made up for by the next
                log.warning("sweep failed", error=str(problem))

    async def sweep(self) -> None:
        """Drop from the caches what the API server no longer has.

        Raises:
            KubeError: the API server did not answer; nothing was dropped.
        """
        known = {entry.uid: entry for entry in self._feed.pods.values()}
        services, policies, canaries = set(self._feed.services), self._policies.keys(), set(self._canaries)
        # What appears while we list is in none of these, so it is not taken for gone.
        listed = {body["metadata"]["uid"] for body in await self._kube.list(kinds.POD)}
        for uid in known.keys() - listed:
            self._feed.drop_pod(known[uid].namespace, known[uid].name, uid)
            self._drop(uid)
        for key in services - await self._listed(kinds.SERVICE):
            self._feed.drop_service(key)
        for key in policies - await self._listed(kinds.TRAFFIC_POLICY):
            self._policies.drop(key)
        for key in canaries - await self._listed(kinds.CANARY):
            self._queue.add(f"canary:{key}")
            self._canaries.pop(key, None)

    async def _listed(self, kind: kinds.Kind) -> set[str]:
        return {_key(body) for body in await self._kube.list(kind)}


def _key(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
