"""The reconcile: gather → decide → persist → project → apply. It is the same five lines for every Canary, every time.

``persist`` is one write of the status, guarded by ``resourceVersion``; when it conflicts nothing else happens and the
key is looked at again. Whatever is applied follows from what was persisted.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

import structlog

from serinus.analysis.model import Reading
from serinus.api.names import FINALIZER
from serinus.api.release import CanaryStatus
from serinus.controller.apply import Applied, Applier
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed
from serinus.controller.gather import Gathered, Gatherer
from serinus.controller.records import RETRY_S
from serinus.controller.workqueue import Result
from serinus.delivery import plan
from serinus.delivery.arms import dependency_key
from serinus.delivery.decide import decide
from serinus.delivery.model import ArmTotals, Decision, Dependency, Snapshot, Totals
from serinus.delivery.project import project
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import NotFound
from serinus.kube.requests import Object

log = structlog.get_logger()

SOON_S = 0.25
"""After something was written, its effect is looked for this soon, should no event tell."""


class Evidences(Protocol):
    """Where the counts of the callers' sidecars and the answers to users' queries come from."""

    def follow(self, owner: str, snapshot: Snapshot, service_key: str) -> None:
        """Begin, or go on, to collect for the snapshot's run; stop when it has none that is judged."""

    def totals(self, owner: str) -> Totals | None:
        """Return what the reader has counted, and how many callers were read and missed."""

    def readings(self, owner: str) -> tuple[Reading, ...]:
        """Return the last answer to every query."""

    def arms(self, owner: str) -> ArmTotals | None:
        """Return what was counted of an experiment's two groups; None without one."""

    def stop(self, owner: str) -> None:
        """Stop collecting."""


class Reconciler:
    """Reconciles one Canary at a time. ``rival`` names an older Canary with the same target or Service."""

    def __init__(
        self,
        kube: Kube,
        feed: Feed,
        faults: Faults,
        evidences: Evidences,
        *,
        rival: Callable[[str, str], str],
        post: Callable[[Object, Decision], None],
        seen: Callable[[str, str, CanaryStatus | None, str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ):
        self._kube = kube
        self._feed = feed
        self._evidences = evidences
        self._gatherer = Gatherer(kube, feed)
        self._faults = faults
        self._applier = Applier(kube, feed, faults)
        self._rival = rival
        self._post = post
        self._seen = seen
        self._now = now

    async def reconcile(self, namespace: str, name: str) -> Result:
        """Look at one Canary and do what follows.

        Raises:
            KubeError: the API server did not answer or refused; the caller tries again.
        """
        owner = f"{namespace}/{name}"
        try:
            canary = await self._kube.get(kinds.CANARY, name, namespace)
        except NotFound:
            self._gone(owner)
            return Result()
        if FINALIZER not in (canary["metadata"].get("finalizers") or []):
            if canary["metadata"].get("deletionTimestamp"):
                self._gone(owner)
                return Result()
            canary = await self._finalizer(canary, add=True)
        gathered = await self._gather(canary, owner)
        decision = decide(gathered.snapshot, self._now())
        written = await self._persist(gathered, decision)
        self._seen(namespace, name, decision.status, written)
        applied = await self._apply(gathered, decision, owner, written)
        if applied.version:
            self._seen(namespace, name, decision.status, applied.version)
        if decision.finished:
            await self._finalizer(canary, add=False)
            self._gone(owner)
            return Result()
        after_s = decision.after_s
        if applied.wrote or (written and after_s is None):  # our own write is no news: until one look changes nothing
            after_s = SOON_S if after_s is None else min(after_s, SOON_S)
        if self._applier.behind(owner):
            after_s = RETRY_S if after_s is None else min(after_s, RETRY_S)
        return Result(after_s)

    async def _gather(self, canary: Object, owner: str) -> Gathered:
        rival = self._rival(canary["metadata"]["namespace"], canary["metadata"]["name"])
        gathered = await self._gatherer.gather(canary, rival)
        snapshot = replace(
            gathered.snapshot,
            totals=self._evidences.totals(owner),
            readings=self._evidences.readings(owner),
            arms=self._evidences.arms(owner),
            dependency=self._dependency(gathered.snapshot, owner),
        )
        return replace(gathered, snapshot=snapshot)

    def _dependency(self, snapshot: Snapshot, owner: str) -> Dependency | None:
        """Return what there is to know of the Service that the present step's experiment lets fail."""
        spec, run = snapshot.spec, snapshot.status.run
        found = plan.experiment_at(spec, run.step) if spec and run and snapshot.status.phase in plan.IN_RUN else None
        if found is None:
            return None
        experiment, injection = found
        to = dependency_key(snapshot.meta.namespace, experiment)
        return self._faults.dependency(f"canary:{owner}", to, injection, dry_run=experiment.dry_run)

    async def _persist(self, gathered: Gathered, decision: Decision) -> str:
        """Write the status where it is another one; return the Canary's new ``resourceVersion``, else nothing."""
        meta = gathered.snapshot.meta
        status = dump(decision.status)
        written = ""
        if status != (gathered.canary.get("status") or {}):
            version = gathered.canary["metadata"]["resourceVersion"]
            after = await self._kube.replace_status(
                kinds.CANARY, meta.name, meta.namespace, status, resource_version=version
            )
            written = after["metadata"]["resourceVersion"]
            was, now = gathered.snapshot.status.phase, decision.status.phase
            if was is not now:
                log.info("phase", before=was, after=now, message=decision.status.message)
        if decision.events:
            self._post(gathered.canary, decision)
        return written

    async def _apply(self, gathered: Gathered, decision: Decision, owner: str, written: str) -> Applied:
        snapshot = replace(gathered.snapshot, status=decision.status)
        self._evidences.follow(owner, snapshot, gathered.service_key)
        version = written or gathered.canary["metadata"]["resourceVersion"]
        return await self._applier.apply(snapshot, project(snapshot), gathered.service_key, version)

    async def _finalizer(self, canary: Object, *, add: bool) -> Object:
        meta = canary["metadata"]
        others = [entry for entry in meta.get("finalizers") or [] if entry != FINALIZER]
        change: Object = {"metadata": {"finalizers": [*others, FINALIZER] if add else others}}
        if add:
            change["metadata"]["resourceVersion"] = meta["resourceVersion"]
        try:
            return await self._kube.patch(kinds.CANARY, meta["name"], meta["namespace"], change)
        except NotFound:
            return canary

    def _gone(self, owner: str) -> None:
        self._feed.drop_routes(owner)
        self._evidences.stop(owner)
        self._applier.forget(owner)
        namespace, name = owner.split("/")
        self._seen(namespace, name, None, "")


def dump(status: CanaryStatus) -> Object:
    """Return a status as it stands in the cluster."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
