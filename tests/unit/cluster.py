"""A small cluster to release in: the Deployment, ReplicaSet and kubelet behaviour that a release depends on, sidecars
that acknowledge one by one, and the reconcile loop as writes that can fail or stop between any two.

The Deployment controller follows the source of Kubernetes 1.37 (``pkg/controller/deployment``: ``sync.go`` for a paused
or scaled Deployment, ``rolling.go`` otherwise), with 25 % surge and unavailability, as is the default. The hold is the
admission policy's: a changed template is paused, and only we or break-glass can end that.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from serinus.analysis.model import Counts, Evidence
from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.api.names import ANNOTATION_COMMAND_PREFIX, LABEL_HASH, LABEL_TRACK
from serinus.api.release import CanaryStatus, Phase
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.arms import Trial
from serinus.delivery.decide import decide
from serinus.delivery.finishing import REVISION_NUMBER
from serinus.delivery.model import (
    ArmTotals,
    Autoscaler,
    Decision,
    Dependency,
    Event,
    Mesh,
    Meta,
    Pod,
    ReplicaSet,
    Service,
    Snapshot,
    Target,
    Totals,
    since,
    stamp,
)
from serinus.delivery.project import Desired, Route, project
from serinus.delivery.revision import adopted_template, revision_of

from .world import NOW, OURS, counts, template

NEVER_READY, FAILING, FRAGILE = "v-never-ready", "v-failing", "v-fragile"
GOOD_VERSIONS = ("v1", "v2", "v3")
VERSIONS = (*GOOD_VERSIONS, NEVER_READY, FAILING, FRAGILE)
TEMPLATES = {version: template(version) for version in VERSIONS}
REVISIONS = {version: revision_of(body) for version, body in TEMPLATES.items()}
VERSION_OF = {revision: version for version, revision in REVISIONS.items()}
DRAIN_S = 5.0


class StaleError(Exception):
    """A write from a stale view."""


@dataclass
class SimDeployment:
    version: str
    uid: str
    replicas: int
    paused: bool = False
    labelled: bool = False
    break_glass: bool = False
    rv: int = 1
    generation: int = 1
    observed: int = 0
    counted: tuple[int, int, int] = (0, 0, 0)
    """Replicas, updated and available ones, as its controller last wrote them."""


@dataclass
class SimSet:
    name: str
    uid: str
    owner: str
    version: str
    pod_hash: str
    replicas: int
    order: int
    gated: bool
    tracked: bool
    rv: int = 1
    numbered: bool = False
    """Whether the Deployment controller has taken it for the newest, which it notes by an annotation."""
    desired: int | None = None
    most: int | None = None
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass
class SimPod:
    name: str
    set_uid: str
    version: str
    pod_hash: str
    gated: bool
    tracked: bool
    containers_ready: bool = False
    gate_open: bool = False
    terminating_at: datetime | None = None

    @property
    def ready(self) -> bool:
        return self.containers_ready and (self.gate_open or not self.gated)

    @property
    def alive(self) -> bool:
        return self.terminating_at is None


@dataclass(frozen=True)
class Published:
    """What sidecars are given: the share, and the names of the pods in both pools."""

    weight: int
    stable: frozenset[str]
    candidate: frozenset[str]
    arms: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    arms_pct: int = 0

    @property
    def arms_serve(self) -> bool:
        """Whether both groups of an experiment get requests."""
        return bool(self.arms_pct and all(self.arms))


class Cluster:
    """Everything outside ``decide`` and ``project``. Methods are single steps, so that any order can be tried."""

    def __init__(self, spec: CanarySpec, replicas: int = 4):
        self.now = NOW
        self.ids = itertools.count(1)
        self.deployment: SimDeployment = SimDeployment("v1", "uid-web-1", replicas)
        self.sets: list[SimSet] = []
        self.pods: list[SimPod] = []
        self.spec = spec
        self.status = CanaryStatus()
        self.canary_rv = 1
        self.generation = 1
        self.annotations: dict[str, str] = {}
        self.deleted_at = ""
        self.gone = False
        self.frozen = False
        self.candidate_service = False
        self.route: Route | None = None
        self.routed = False
        self.started_at: datetime | None = None
        self.reader = 0
        self.totals: dict[str, Evidence] = {}
        self.arms: dict[str, tuple[Evidence, tuple[int, int]]] = {}
        self.trial: Trial | None = None
        """The experiment that the sidecars of its pods know of; it ends by itself where nobody asks for it again."""
        self.sidecars: list[Published | None] = [None, None, None]
        self.connected = [True, True, True]
        self.behind_since: dict[int, datetime] = {}
        self.slow: set[int] = set()
        """Sidecars that take nothing in, until they are not slow any more."""
        self.traffic = True
        self.stopped = False
        """Whether the namespace stops all faults."""
        self.events: list[Event] = []
        self.watchers: list[Callable[[str, Any], None]] = []
        self.calm()

    # --- people ------------------------------------------------------------------------------------

    def set_template(self, version: str) -> None:
        deployment = self.deployment
        if version == deployment.version:
            return
        deployment.version = version
        if deployment.labelled and not deployment.break_glass:
            deployment.paused = True
        if not deployment.paused:
            self._tell("bypass", version)
        self._touch(spec=True)

    def scale(self, replicas: int) -> None:
        self.deployment.replicas = replicas
        self._touch(spec=True)

    def glass(self, broken: bool) -> None:
        self.deployment.break_glass = broken
        self._touch()

    def resume(self) -> None:
        deployment = self.deployment
        if deployment.paused and (not deployment.labelled or deployment.break_glass):
            deployment.paused = False
            self._touch(spec=True)
            self._tell("bypass", deployment.version)

    def recreate(self, version: str) -> None:
        """Delete the Deployment, with all it owns, and create it anew: nothing holds that."""
        for owned in [rs for rs in self.sets if rs.owner == self.deployment.uid]:
            self._remove(owned)
        uid = f"uid-web-{next(self.ids)}"
        self.deployment = SimDeployment(version, uid, self.deployment.replicas, rv=self.deployment.rv + 1)
        self._tell("bypass", version)
        self.sync_deployment()

    def command(self, key: str, value: str) -> None:
        self.annotations[key] = value
        self.canary_rv += 1

    def edit(self, spec: CanarySpec) -> None:
        self.spec = spec
        self.generation += 1
        self.canary_rv += 1

    def delete_canary(self) -> None:
        if not self.deleted_at:
            self.deleted_at = stamp(self.now)
            self.canary_rv += 1

    def crash(self, index: int) -> None:
        alive = [pod for pod in self.pods if pod.alive and pod.containers_ready]
        if alive:
            alive[index % len(alive)].containers_ready = False

    def remove_twin(self) -> None:
        for twin in [rs for rs in self.sets if rs.owner == OURS]:
            self._remove(twin)

    # --- controllers -------------------------------------------------------------------------------

    def pods_of(self, owner: SimSet) -> list[SimPod]:
        return [pod for pod in self.pods if pod.set_uid == owner.uid and pod.alive]

    def own_sets(self) -> list[SimSet]:
        return [rs for rs in self.sets if rs.owner == self.deployment.uid]

    def sync_sets(self) -> bool:
        """The ReplicaSet controller, once for each set. Returns whether it did anything."""
        did = False
        for owned in self.sets:
            running = self.pods_of(owned)
            for _ in range(owned.replicas - len(running)):
                name = f"{owned.name}-{next(self.ids)}"
                pod = SimPod(name, owned.uid, owned.version, owned.pod_hash, owned.gated, owned.tracked)
                self.pods.append(pod)
                did = True
            excess = len(running) - owned.replicas
            if excess > 0:
                for pod in sorted(running, key=lambda pod: pod.ready)[:excess]:
                    pod.terminating_at = self.now
                did = True
            owned.rv += did
        return did

    def sync_deployment(self) -> bool:
        """The Deployment controller, once. Returns whether it did anything."""
        deployment, own = self.deployment, self.own_sets()
        new = next((rs for rs in sorted(own, key=lambda rs: rs.order) if rs.version == deployment.version), None)
        before = self._world()
        if new:
            new.numbered = True
        old = [rs for rs in own if rs is not new]
        scaled = any(rs.replicas and rs.desired not in (None, deployment.replicas) for rs in own)
        if deployment.paused or scaled:
            self._scale_all(new, old)
        else:
            self._roll(new, old)
        new = next((rs for rs in self.own_sets() if rs.version == deployment.version), new)
        counted = (
            sum(len(self.pods_of(rs)) for rs in self.own_sets()),
            len(self.pods_of(new)) if new else 0,
            sum(pod.ready for rs in self.own_sets() for pod in self.pods_of(rs)),
        )
        if (deployment.observed, deployment.counted) != (deployment.generation, counted):
            deployment.observed, deployment.counted = deployment.generation, counted
            self._touch()
        return self._world() != before

    def _world(self) -> Any:
        return [(rs.name, rs.owner, rs.replicas, rs.desired) for rs in self.sets], self.deployment.rv

    def _scale_all(self, new: SimSet | None, old: list[SimSet]) -> None:
        wish = self.deployment.replicas
        active = [rs for rs in (*old, new) if rs and rs.replicas]
        if len(active) <= 1:
            newest = active[0] if active else new or max(old, key=lambda rs: rs.order, default=None)
            if newest:
                self._size(newest, wish)
            return
        if new and new.replicas == wish == new.desired and sum(pod.ready for pod in self.pods_of(new)) >= wish:
            for rs in old:
                self._size(rs, 0)
            return
        allowed = wish + self._surge() if wish else 0
        add = allowed - sum(rs.replicas for rs in active)
        active.sort(key=lambda rs: (-rs.replicas, rs.order if add <= 0 else -rs.order))
        sizes, added = {}, 0
        for rs in active:
            part = 0
            if add:
                most = rs.most or sum(self.deployment.counted[:1]) or rs.replicas
                fraction = -rs.replicas if not wish else round(rs.replicas * allowed / most) - rs.replicas
                part = min(fraction, add - added) if add > 0 else max(fraction, add - added)
            sizes[rs.uid] = rs.replicas + part
            added += part
        for index, rs in enumerate(active):
            leftover = add - added if index == 0 else 0
            self._size(rs, max(0, sizes[rs.uid] + leftover))

    def _roll(self, new: SimSet | None, old: list[SimSet]) -> None:
        deployment = self.deployment
        wish = deployment.replicas
        if new is None:
            new = self._native_set(deployment.version)
            self._tell("native", deployment.version)
        every = [new, *old]
        total = sum(rs.replicas for rs in every)
        room = wish + self._surge() - total
        if new.replicas < wish and room > 0:
            if new.replicas == 0:
                self._tell("native", deployment.version)
            self._size(new, new.replicas + min(room, wish - new.replicas))
            return
        if new.replicas > wish:
            self._size(new, wish)
            return
        least = wish - self._unavailable()
        for rs in sorted(old, key=lambda rs: rs.order):
            total = sum(rs.replicas for rs in every)
            ready = {rs.uid: sum(pod.ready for pod in self.pods_of(rs)) for rs in every}
            spare = total - least - (new.replicas - min(ready[new.uid], new.replicas))
            broken = min(rs.replicas - min(ready[rs.uid], rs.replicas), max(spare, 0))
            if rs.replicas and broken > 0:
                self._size(rs, rs.replicas - broken)
                continue
            surplus = min(rs.replicas, sum(ready.values()) - least)
            if rs.replicas and surplus > 0:
                self._size(rs, rs.replicas - surplus)
                for pod in sorted(self.pods_of(rs), key=lambda pod: pod.ready)[:surplus]:
                    pod.terminating_at = self.now
        self._size(new, new.replicas)

    def _size(self, owned: SimSet, replicas: int) -> None:
        wish = self.deployment.replicas
        if (owned.replicas, owned.desired) != (replicas, wish):
            owned.replicas, owned.desired, owned.most = replicas, wish, wish + self._surge()
            owned.rv += 1

    def _native_set(self, version: str) -> SimSet:
        number = next(self.ids)
        pod_hash = f"native{number}"
        body = adopted_template(TEMPLATES[version], pod_hash)
        name = f"web-{pod_hash}"
        manifest = {"metadata": {"name": name, "namespace": "shop", "uid": f"uid-{number}"}, "spec": {"template": body}}
        owned = SimSet(
            name, f"uid-{number}", self.deployment.uid, version, pod_hash, 0, number, False, False, manifest=manifest
        )
        self.sets.append(owned)
        return owned

    def _surge(self) -> int:
        return math.ceil(self.deployment.replicas / 4)

    def _unavailable(self) -> int:
        return self.deployment.replicas // 4

    def kubelet(self, index: int) -> bool:
        """Carry one pod on: ready, or gone. Returns whether it did anything."""
        waiting = [pod for pod in self.pods if self._may_change(pod)]
        if not waiting:
            return False
        pod = waiting[index % len(waiting)]
        if pod.alive:
            pod.containers_ready = True
        else:
            self.pods.remove(pod)
        for owned in self.sets:
            owned.rv += owned.uid == pod.set_uid
        return True

    def _may_change(self, pod: SimPod) -> bool:
        if pod.terminating_at is not None:
            return (self.now - pod.terminating_at).total_seconds() >= DRAIN_S
        return not pod.containers_ready and pod.version != NEVER_READY

    def _remove(self, owned: SimSet) -> None:
        self.sets.remove(owned)
        for pod in self.pods_of(owned):
            pod.terminating_at = self.now

    def _touch(self, *, spec: bool = False) -> None:
        self.deployment.rv += 1
        self.deployment.generation += spec

    def _tell(self, what: str, about: Any) -> None:
        for watcher in self.watchers:
            watcher(what, about)

    # --- the mesh ----------------------------------------------------------------------------------

    @property
    def published(self) -> Published | None:
        """What the feed holds for the sidecars: current with the pods at every moment; None when it routes nothing."""
        if not self.routed or self.route is None:
            return None
        route = self.route
        alive = [pod for pod in self.pods if pod.alive]
        one, two = (
            frozenset(p.name for p in alive if p.containers_ready and pod_hash and p.pod_hash == pod_hash)
            for pod_hash in route.arms
        )
        return Published(
            route.weight,
            frozenset(p.name for p in alive if p.ready and (not route.excluded or p.pod_hash != route.excluded)),
            frozenset(p.name for p in alive if p.containers_ready and route.pod_hash and p.pod_hash == route.pod_hash),
            (one, two),
            route.arms_pct,
        )

    def acknowledge(self, index: int) -> None:
        """One sidecar connects, if it had not, and takes what is published."""
        if index in self.slow:
            return
        self.connected[index] = True
        if self.published is not None:
            self.sidecars[index] = self.published

    def mesh(self) -> Mesh:
        published = self.published
        settled = self.started_at is None or (self.now - self.started_at).total_seconds() >= 3
        if published is None or self.route is None:
            return Mesh(settled=settled)
        behind = [i for i, held in enumerate(self.sidecars) if self.connected[i] and held != published]
        self.behind_since = {i: self.behind_since.get(i, self.now) for i in behind}
        return Mesh(
            weight=published.weight,
            candidates=len(published.candidate),
            shifted=self.route.shifted,
            arms=min(map(len, published.arms)),
            arms_pct=published.arms_pct,
            connected=sum(self.connected),
            acknowledged=sum(self.connected) - len(behind),
            laggards=tuple(
                (f"shop/caller-{i}", (self.now - began).total_seconds()) for i, began in self.behind_since.items()
            ),
            settled=settled,
        )

    def tick(self, seconds: float) -> None:
        """Time passes; callers send requests, which sidecars share out and count."""
        self.now += timedelta(seconds=seconds)
        run = self.status.run
        if not self.traffic or run is None or self.status.phase not in (*plan.ACTIVE, Phase.SUSPENDED):
            return
        bad = VERSION_OF[run.revision] == FAILING
        candidate, stable = Counts(), Counts()
        for held in self.sidecars:
            each = round(30 * min(seconds, 60))
            if held is not None and held.arms_serve:
                part = round(each * held.arms_pct / 100)
                each -= 2 * part
                self._try(part, fragile=VERSION_OF[run.revision] == FRAGILE)
            if held is None or not held.candidate or not held.weight:
                stable += counts(each)
                continue
            part = round(each * held.weight / 100)
            candidate += counts(part, round(part * 0.6) if bad else 0)
            stable += counts(each - part)
        reader = f"{self.reader}/{run.id}"
        before = self.totals.get(reader, Evidence())
        self.totals = {reader: Evidence(before.candidate + candidate, before.stable + stable)}

    def _try(self, requests: int, *, fragile: bool) -> None:
        """Let both groups of an experiment answer requests."""
        lost = round(requests * 0.6) if fragile and self.trial is not None and self.trial.injected else 0
        evidence, (calls_c, calls_b) = self.arms.get(str(self.reader), (Evidence(), (0, 0)))
        more = Evidence(evidence.candidate + counts(requests, lost), evidence.stable + counts(requests))
        self.arms = {str(self.reader): (more, (calls_c + requests, calls_b + requests))}

    def dependency(self) -> Dependency:
        """What is known of the Service that fails: every ready pod of a group has taken what its sidecar was told."""
        trial = self.trial
        ready = sum(p.alive and p.containers_ready and p.pod_hash in trial.arms for p in self.pods) if trial else 0
        through, injecting = (ready if each else 0 for each in (trial and trial.through, trial and trial.injected))
        return Dependency("faults are stopped" if self.stopped else "", through=through, injecting=injecting)

    # --- the operator ------------------------------------------------------------------------------

    def gather(self) -> Snapshot:
        deployment = self.deployment
        run = self.status.run
        reader = f"{self.reader}/{run.id}" if run else ""
        listed = self.status.stable is None or plan.effective_phase(self.status) in plan.ACTIVE or deployment.paused
        counted = deployment.counted == (deployment.replicas,) * 3
        return Snapshot(
            meta=Meta("shop", "web", OURS, self.generation, dict(self.annotations), self.deleted_at),
            status=self.status,
            spec=self.spec,
            target=Target(
                name="web",
                uid=deployment.uid,
                resource_version=str(deployment.rv),
                template=TEMPLATES[deployment.version],
                revision=REVISIONS[deployment.version],
                replicas=deployment.replicas,
                selector={"app": "web"},
                paused=deployment.paused,
                labelled=deployment.labelled,
                break_glass=deployment.break_glass,
                settled=counted and deployment.observed >= deployment.generation,
            ),
            service=Service("web", manifest={"spec": {"ports": [{"port": 80}]}}),
            replicasets=tuple(
                self._fact(rs) for rs in self.sets if rs.owner == OURS or (listed and rs.owner == deployment.uid)
            ),
            pods=tuple(
                Pod(p.name, p.pod_hash, p.containers_ready, p.ready, p.gate_open, not p.alive, p.tracked)
                for p in self.pods
            ),
            autoscaler=Autoscaler("web", self.frozen),
            mesh=self.mesh(),
            totals=Totals(reader, self.totals[reader]) if reader in self.totals else None,
            arms=ArmTotals(str(self.reader), *self.arms.get(str(self.reader), (Evidence(), (0, 0)))),
            dependency=self.dependency(),
        )

    def _fact(self, owned: SimSet) -> ReplicaSet:
        metadata = {**owned.manifest["metadata"], "resourceVersion": str(owned.rv)}
        if owned.numbered:
            metadata["annotations"] = {**metadata.get("annotations", {}), REVISION_NUMBER: "2"}
        manifest = {**owned.manifest, "metadata": metadata}
        revision = REVISIONS[owned.version]
        pods = len(self.pods_of(owned))
        return ReplicaSet(owned.name, owned.uid, owned.pod_hash, revision, owned.owner, owned.replicas, pods, manifest)

    def reconcile(self, between: dict[int, Callable[[], None]] | None = None, dies_after: int | None = None) -> bool:
        """Look once. ``between`` happens before the write of that number; ``dies_after`` so many writes all ends.

        Returns whether anything was written. A conflict ends the look, as in the controller.
        """
        if self.gone:
            return False
        snapshot, rv = self.gather(), self.canary_rv
        decision = decide(snapshot, self.now)
        wrote = 0
        for number, write in enumerate(self._writes(snapshot, decision, rv)):
            if between and number in between:
                between[number]()
            if dies_after is not None and number >= dies_after:
                self.restart()
                return True
            try:
                wrote += write()
            except StaleError:
                return True
        self.after_s = decision.after_s
        return wrote > 0

    def restart(self) -> None:
        """A new process: counts from nothing, publishes nothing until it has looked, sidecars have to come back."""
        self.reader += 1
        self.totals, self.arms = {}, {}
        self.trial = None
        self.routed = False
        self.route = None
        self.connected = [False, False, False]
        self.behind_since = {}
        self.started_at = self.now

    def _writes(self, snapshot: Snapshot, decision: Decision, rv: int) -> Iterator[Callable[[], bool]]:
        yield lambda: self._persist(decision, rv)
        persisted = replace(snapshot, status=self.status)
        desired = project(persisted)
        yield lambda: self._publish(desired)
        yield lambda: self._label(snapshot, desired)
        for body in desired.create:
            yield lambda body=body: self._create(body)
        for owned, size in desired.scale:
            yield lambda owned=owned, size=size: self._resize(owned, size)
        for name in desired.open_gates:
            yield lambda name=name: self._open(name)
        if desired.adopt:
            yield lambda: self._adopt(desired.adopt)  # type: ignore[arg-type]
        if desired.release:
            yield lambda: self._release(desired.release)  # type: ignore[arg-type]
        for name in desired.untrack:
            yield lambda name=name: self._untrack(name)
        yield lambda: self._freeze(snapshot, desired.freeze)
        for owned in desired.delete:
            yield lambda owned=owned: self._delete(owned)
        if desired.delete_service:
            yield self._delete_service
        if desired.commands_done:
            yield lambda: self._forget(desired.commands_done)
        if decision.finished:
            yield self._finish

    def _persist(self, decision: Decision, rv: int) -> bool:
        if decision.status == self.status:
            self.events += decision.events
            return False
        if rv != self.canary_rv:
            raise StaleError
        before = self.status
        raw = decision.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.status = parse_live(CanaryStatus, raw)
        self.canary_rv += 1
        self.events += decision.events
        self._tell("status", (before, self.status))
        return True

    def _publish(self, desired: Desired) -> bool:
        self.routed, self.route = desired.route is not None, desired.route
        self.trial = desired.trial
        return False

    def _label(self, snapshot: Snapshot, desired: Desired) -> bool:
        assert snapshot.target is not None
        if desired.label == "" or snapshot.target.labelled == (desired.label is not None):
            return False
        self.deployment.labelled = desired.label is not None
        self._touch()
        return True

    def _create(self, body: dict[str, Any]) -> bool:
        if body["kind"] == "Service":
            new, self.candidate_service = not self.candidate_service, True
            return new
        name = body["metadata"]["name"]
        if any(rs.name == name for rs in self.sets):
            return False
        number = next(self.ids)
        made = body["spec"]["template"]
        manifest = {**body, "metadata": {**body["metadata"], "uid": f"uid-{number}"}}
        labels = made["metadata"]["labels"]
        self.sets.append(
            SimSet(
                name=name,
                uid=f"uid-{number}",
                owner=OURS,
                version=made["spec"]["containers"][0]["image"].partition(":")[2],
                pod_hash=labels[LABEL_HASH],
                replicas=body["spec"]["replicas"],
                order=number,
                gated=bool(made["spec"].get("readinessGates")),
                tracked=LABEL_TRACK in labels,
                manifest=manifest,
            )
        )
        return True

    def _found(self, uid: str) -> SimSet:
        for rs in self.sets:
            if rs.uid == uid:
                return rs
        raise StaleError

    def _resize(self, wanted: ReplicaSet, size: int) -> bool:
        owned = self._found(wanted.uid)
        owned.replicas = size
        owned.rv += 1
        return True

    def _open(self, name: str) -> bool:
        for pod in self.pods:
            if pod.name == name:
                pod.gate_open = True
        return True

    def _adopt(self, body: dict[str, Any]) -> bool:
        owned = self._found(body["metadata"]["uid"])
        self._tell("adopt", owned)
        if str(owned.rv) != body["metadata"]["resourceVersion"]:
            raise StaleError
        owned.owner = body["metadata"]["ownerReferences"][0]["uid"]
        made = body["spec"]["template"]
        owned.gated = bool(made["spec"].get("readinessGates"))
        owned.tracked = LABEL_TRACK in made["metadata"]["labels"]
        owned.desired = int(body["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"])
        owned.most = int(body["metadata"]["annotations"]["deployment.kubernetes.io/max-replicas"])
        owned.manifest = body
        owned.rv += 1
        return True

    def _release(self, target: Target) -> bool:
        if target.resource_version != str(self.deployment.rv) or target.uid != self.deployment.uid:
            raise StaleError
        self.deployment.paused = False
        self._touch(spec=True)
        self._tell("release", self.deployment)
        return True

    def _untrack(self, name: str) -> bool:
        for pod in self.pods:
            if pod.name == name:
                pod.tracked = False
        return True

    def _freeze(self, snapshot: Snapshot, wanted: bool) -> bool:
        assert snapshot.autoscaler is not None
        changed, self.frozen = snapshot.autoscaler.frozen != wanted, wanted
        return changed

    def _delete(self, wanted: ReplicaSet) -> bool:
        for owned in [rs for rs in self.sets if rs.uid == wanted.uid]:
            self._tell("delete", owned)
            self._remove(owned)
        return True

    def _delete_service(self) -> bool:
        was, self.candidate_service = self.candidate_service, False
        return was

    def _forget(self, annotations: tuple[str, ...]) -> bool:
        for key in annotations:
            self.annotations.pop(key, None)
        self.canary_rv += 1
        return True

    def _finish(self) -> bool:
        """The finalizer goes; what we own goes with the Canary."""
        self.gone = True
        self._tell("gone", self.deployment)
        self.routed, self.route, self.trial = False, None, None
        self.candidate_service = False
        self.remove_twin()
        return True

    # --- together ----------------------------------------------------------------------------------

    def calm(self) -> None:
        """Let the controllers, kubelets and sidecars do all that they have to do, as time does not pass."""
        for _ in range(200):
            did = self.sync_deployment() | self.sync_sets()
            while self.kubelet(0):
                did = True
            for index in range(len(self.sidecars)):
                self.acknowledge(index)
            if not did:
                return
        raise AssertionError("the controllers do not come to rest")

    def proceed(self, looks: int, each_s: float = 2.0) -> None:
        """Everything works as it should for a while."""
        for _ in range(looks):
            self.calm()
            self.reconcile()
            self.tick(each_s)

    def settle(self, looks: int = 150) -> None:
        """Go on until a look changes nothing and nothing is to come by itself.

        Raises:
            AssertionError: that does not happen.
        """
        for _ in range(looks):
            self.calm()
            before = self.status
            wrote = self.reconcile()
            if self.gone or (self.rests() and (self.waits or not wrote) and self.status.phase == before.phase):
                return
            self.tick(2.0)
        raise AssertionError(f"still {self.status.phase} ({self.reason}) after {looks} looks: {self.status.message}")

    def rests(self) -> bool:
        """Whether the present state lasts until a person does something, and says so."""
        if self.status.phase in (Phase.READY, Phase.FAILED, Phase.SUSPENDED):
            return self.after_s is None or "rolls out" in self.status.message or "break-glass" in self.status.message
        return self.stalled or self.waits

    @property
    def waits(self) -> bool:
        """Whether a person is asked for, or pods. Requests are counted all the same, so the status goes on."""
        if self.deployment.replicas == 0 and self.status.phase is Phase.WAITING:
            return True
        asks = (
            "waits for approval",
            "paused by a person",
            "kubectl rollout resume",
            "own rollout must end",
            "goes on without one",
            "faults are stopped",
        )
        return any(words in self.status.message for words in asks)

    @property
    def reason(self) -> Reason:
        return Reason(next(c.reason for c in self.status.conditions if c.type == "Ready"))

    @property
    def stalled(self) -> bool:
        return any(c.type == "Stalled" for c in self.status.conditions)

    def known(self, revision: str, window_s: float) -> bool:
        """Whether a revision may be released without a run."""
        stable = self.status.stable
        if self.deployment.replicas == 0 or (stable and stable.revision == revision):
            return True
        recent = [old for old in self.status.history if since(old.at, self.now) <= window_s + 1]
        return any(old.revision == revision for old in recent)

    def handled(self) -> set[str]:
        return {command.token for command in self.status.commands}

    def waiting(self) -> set[str]:
        prefix = ANNOTATION_COMMAND_PREFIX
        return {key.removeprefix(prefix) for key in self.annotations if key.startswith(prefix)}
