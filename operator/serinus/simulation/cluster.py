"""The cluster of a simulated release: as much of Kubernetes and of the mesh as ``decide`` looks at, and nothing broken.

It does what ``project`` says: pods of the candidate start, sidecars take weights, the target adopts the candidate.
Times are seconds since the begin of the run.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Any

from serinus.api.canary import CanarySpec
from serinus.api.names import LABEL_HASH
from serinus.api.release import CanaryStatus
from serinus.delivery.finishing import REVISION_NUMBER
from serinus.delivery.model import ArmTotals, Mesh, Meta, Pod, ReplicaSet, Service, Snapshot, Target, Totals
from serinus.delivery.project import Desired, Route
from serinus.delivery.revision import adopted_template, revision_of
from serinus.simulation.groups import GroupPods

_CANARY_UID, _TARGET_UID = "canary", "deployment"
_ALL = 100.0


@dataclass(frozen=True, slots=True)
class Delays:
    """How long the cluster takes, in seconds: until a new pod is ready, until every sidecar has what is published."""

    pod_s: float = 5.0
    sidecar_s: float = 0.1


@dataclass(slots=True)
class _CandidatePod:
    name: str
    ready_s: float
    gate_open: bool = False
    tracked: bool = True


class Cluster:
    """A Deployment that serves one revision and holds another, its Service, and sidecars that are all alike."""

    stable_revision: str
    """The revision that serves before the run."""

    def __init__(self, spec: CanarySpec, replicas: int, name: str, delays: Delays) -> None:
        """Make the cluster as it is when a run is about to begin.

        Args:
            spec: names target and Service.
            replicas: pods of the Deployment.
            name: of the Canary.
            delays: how long things take.
        """
        self._spec = spec
        self._delays = delays
        self._meta = Meta("default", name, _CANARY_UID)
        self._service = Service(spec.service or spec.target_ref.name, manifest={"spec": {"ports": [{"port": 80}]}})
        self._stable = _replicaset(spec.target_ref.name, _template(spec, "stable"), replicas)
        held = _template(spec, "candidate")
        self._target = Target(
            name=spec.target_ref.name,
            uid=_TARGET_UID,
            resource_version="1",
            template=held,
            revision=revision_of(held),
            replicas=replicas,
            selector=dict(held["metadata"]["labels"]),
            paused=True,
            labelled=True,
        )
        self.stable_revision = self._stable.revision
        self._twin: ReplicaSet | None = None
        self._pods: list[_CandidatePod] = []
        self._started = 0
        self.groups = GroupPods()
        self._published = self._held = Route()
        self._taken_s = inf
        self._settled_s = inf

    @property
    def share_pct(self) -> float:
        """Which share of the requests the candidate's revision gets, in percent, as the sidecars have it now."""
        if self._held.shifted or not self._target.paused:
            return _ALL
        return float(self._held.weight) if self._held.pod_hash else 0.0

    @property
    def arms_pct(self) -> float:
        """Which share of the requests each of an experiment's two groups gets, in percent."""
        return float(self._held.arms_pct) if all(self._held.arms) else 0.0

    def ready(self, now_s: float) -> int:
        """Return how many of the candidate's pods are ready."""
        return sum(pod.ready_s <= now_s for pod in self._pods)

    def next_change_s(self, now_s: float) -> float:
        """Return when something changes by itself; infinity when nothing does."""
        coming = [self._taken_s, self._settled_s, *(pod.ready_s for pod in self._pods), *self.groups.ready_s.values()]
        return min((at for at in coming if at > now_s), default=inf)

    def advance(self, now_s: float) -> None:
        """Let the time pass until ``now_s``, which is no later than the next change."""
        if self._taken_s <= now_s:
            self._held, self._taken_s = self._published, inf

    def snapshot(self, status: CanaryStatus, totals: Totals, arms: ArmTotals, now_s: float) -> Snapshot:
        """Return what the operator sees.

        Args:
            status: as it was written last.
            totals: what was counted of both versions.
            arms: what was counted of an experiment's two groups.
            now_s: when it looks.
        """
        native = self._settled_s <= now_s
        return Snapshot(
            meta=self._meta,
            status=status,
            spec=self._spec,
            target=replace(self._target, settled=True) if native else self._target,
            service=self._service,
            replicasets=(self._stable, *((self._twin,) if self._twin else ()), *self.groups.sets.values()),
            pods=(*_serving(self._stable), *self._candidates(now_s), *self.groups.pods(now_s)),
            mesh=Mesh(
                weight=self._published.weight,
                candidates=self.ready(now_s),
                shifted=self._published.shifted,
                arms=self.groups.ready(now_s) if all(self._published.arms) else 0,
                arms_pct=self._published.arms_pct,
                connected=1,
                acknowledged=int(self._held == self._published),
            ),
            totals=totals,
            arms=arms,
            dependency=self.groups.dependency,
        )

    def obey(self, desired: Desired, now_s: float) -> bool:
        """Do what is wanted; return whether that changed anything but routes, which take their time."""
        before = self._state()
        if desired.route is not None and desired.route != self._published:
            self._published, self._taken_s = desired.route, _moment(now_s + self._delays.sidecar_s)
        for body in desired.create:
            if body["kind"] != "ReplicaSet":
                continue
            if desired.trial and body["spec"]["selector"]["matchLabels"][LABEL_HASH] in desired.trial.arms:
                self.groups.create(body, _CANARY_UID, _moment(now_s + self._delays.pod_s))
            elif self._twin is None:
                self._twin = _twin(body)
        self.groups.trial = desired.trial
        for replicaset, size in desired.scale:
            self._twin = replace(replicaset, replicas=size, pods=size)
        for pod in self._pods:
            pod.gate_open = pod.gate_open or pod.name in desired.open_gates
            pod.tracked = pod.tracked and pod.name not in desired.untrack
        if desired.adopt:
            self._adopt(desired.adopt)
        if desired.release:
            self._release(now_s)
        for replicaset in desired.delete:
            self.groups.delete(replicaset.pod_hash)
            self._twin = None if self._twin and self._twin.pod_hash == replicaset.pod_hash else self._twin
        self._resize(now_s)
        return before != self._state()

    def _state(self) -> tuple[object, ...]:
        """Return what tells whether anything was changed."""
        gates = [(pod.gate_open, pod.tracked) for pod in self._pods]
        return self._twin, self._target, gates, tuple(self.groups.sets), self.groups.trial

    def _adopt(self, manifest: dict[str, Any]) -> None:
        """Let the Deployment take the candidate's ReplicaSet for its newest; the older pods leave."""
        assert self._twin is not None  # noqa: S101 - it is what is adopted
        annotations = {**manifest["metadata"].get("annotations", {}), REVISION_NUMBER: "2"}
        numbered = {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}
        self._twin = replace(self._twin, owner_uid=_TARGET_UID, manifest=numbered)
        self._stable = replace(self._stable, replicas=0, pods=0)

    def _release(self, now_s: float) -> None:
        """Let the Deployment go on: it has nothing left to do, or it replaces the older pods with pods of its own."""
        adopted = self._twin is not None and self._twin.owner_uid == _TARGET_UID
        self._target = replace(self._target, paused=False, settled=adopted)
        if not adopted:
            self._stable = _replicaset(self._target.name, self._target.template, self._target.replicas)
            self._settled_s = _moment(now_s + self._delays.pod_s)

    def _resize(self, now_s: float) -> None:
        wanted = self._twin.replicas if self._twin else 0
        while len(self._pods) < wanted:
            self._started += 1
            self._pods.append(_CandidatePod(f"candidate-{self._started}", _moment(now_s + self._delays.pod_s)))
        del self._pods[wanted:]

    def _candidates(self, now_s: float) -> tuple[Pod, ...]:
        if self._twin is None:
            return ()
        return tuple(
            Pod(
                name=pod.name,
                pod_hash=self._twin.pod_hash,
                containers_ready=pod.ready_s <= now_s,
                ready=pod.ready_s <= now_s and pod.gate_open,
                gate_open=pod.gate_open,
                tracked=pod.tracked,
            )
            for pod in self._pods
        )


def _moment(second: float) -> float:
    """Return a time to the millisecond, which is what a status keeps of it."""
    return round(second, 3)


def _template(spec: CanarySpec, version: str) -> dict[str, Any]:
    labels = dict.fromkeys(spec.candidate.without_labels, "true")
    container = {"name": "app", "image": f"app:{version}"}
    return {"metadata": {"labels": {**labels, "app": spec.target_ref.name}}, "spec": {"containers": [container]}}


def _replicaset(target: str, template: dict[str, Any], replicas: int) -> ReplicaSet:
    """Return a ReplicaSet that the Deployment made of a template."""
    revision = revision_of(template)
    name, pod_hash = f"{target}-{revision}", f"native-{revision}"
    manifest = {"metadata": {"name": name}, "spec": {"template": adopted_template(template, pod_hash)}}
    return ReplicaSet(name, name, pod_hash, revision, _TARGET_UID, replicas, replicas, manifest)


def _serving(replicaset: ReplicaSet) -> list[Pod]:
    return [
        Pod(f"{replicaset.name}-{number}", replicaset.pod_hash, containers_ready=True, ready=True)
        for number in range(replicaset.replicas)
    ]


def _twin(body: dict[str, Any]) -> ReplicaSet:
    """Return the candidate's ReplicaSet, as it was asked for."""
    template, name, size = body["spec"]["template"], body["metadata"]["name"], body["spec"]["replicas"]
    pod_hash = template["metadata"]["labels"][LABEL_HASH]
    return ReplicaSet(name, name, pod_hash, revision_of(template), _CANARY_UID, size, size, body)
