"""Gather the state of the world around one Canary, fresh from the API server, into a ``Snapshot``."""

import asyncio
from dataclasses import dataclass
from typing import Any

from serinus.analysis.checks import check_queries
from serinus.api import check_canary, parse_live
from serinus.api.canary import CanarySpec
from serinus.api.names import ANNOTATION_BREAK_GLASS, LABEL_CANARY, LABEL_HASH, LABEL_OWNER
from serinus.api.release import CanaryStatus
from serinus.controller.feed import Feed, unusable
from serinus.controller.pods import PodEntry
from serinus.delivery.model import Autoscaler, Meta, ReplicaSet, Service, Snapshot, Target
from serinus.delivery.plan import ACTIVE, effective_phase
from serinus.delivery.revision import revision_of
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import NotFound
from serinus.kube.requests import Object


@dataclass(frozen=True, slots=True)
class Gathered:
    """A snapshot, and the Canary that it was made from, with the ``resourceVersion`` that guards the next write."""

    snapshot: Snapshot
    canary: Object

    @property
    def service_key(self) -> str:
        """``namespace/name`` of the Service that the Canary is about; empty when the spec cannot be read."""
        spec = self.snapshot.spec
        return f"{self.snapshot.meta.namespace}/{spec.service or spec.target_ref.name}" if spec else ""


def read_spec(canary: Object) -> tuple[CanarySpec | None, tuple[str, ...]]:
    """Return a Canary's spec and what is wrong with it, in sentences. What cannot be read at all is None."""
    try:
        spec = parse_live(CanarySpec, canary.get("spec") or {})
    except ValueError as problem:
        return None, (str(problem),)
    return spec, tuple(check_canary(spec) + check_queries(spec))


def read_status(canary: Object) -> CanaryStatus:
    """Return a Canary's status; an empty one when there is none."""
    return parse_live(CanaryStatus, canary.get("status") or {})


def read_meta(canary: Object) -> Meta:
    """Return what a decision needs of a Canary's metadata."""
    meta = canary["metadata"]
    return Meta(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=meta.get("generation", 1),
        annotations=meta.get("annotations") or {},
        deleted_at=meta.get("deletionTimestamp") or "",
    )


def read_target(deployment: Object, canary: str) -> Target:
    """Return what a decision needs of the target."""
    meta, spec, status = deployment["metadata"], deployment["spec"], deployment.get("status") or {}
    replicas = spec.get("replicas", 1)
    counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    seen = status.get("observedGeneration", 0) >= meta.get("generation", 1)
    return Target(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        template=spec["template"],
        revision=revision_of(spec["template"]),
        replicas=replicas,
        selector=spec["selector"].get("matchLabels") or {},
        paused=spec.get("paused", False),
        labelled=(meta.get("labels") or {}).get(LABEL_CANARY) == canary,
        break_glass=ANNOTATION_BREAK_GLASS in (meta.get("annotations") or {}),
        settled=seen and all(count == replicas for count in counts),
    )


def read_replicaset(raw: Object) -> ReplicaSet:
    """Return what a decision needs of a ReplicaSet."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    owner: Object = next((ref for ref in meta.get("ownerReferences") or [] if ref.get("controller")), {})
    failures = [
        c.get("message", "")
        for c in status.get("conditions") or []
        if c["type"] == "ReplicaFailure" and c["status"] == "True"
    ]
    return ReplicaSet(
        name=meta["name"],
        uid=meta["uid"],
        pod_hash=(spec["template"]["metadata"].get("labels") or {}).get(LABEL_HASH, ""),
        revision=revision_of(spec["template"]),
        owner_uid=owner.get("uid", ""),
        replicas=spec.get("replicas", 1),
        pods=status.get("replicas", 0),
        manifest=raw,
        failure=failures[0] if failures else "",
    )


class Gatherer:
    """Gathers snapshots. What sidecars and pods say comes from the feed, everything else from the API server."""

    def __init__(self, kube: Kube, feed: Feed):
        self._kube = kube
        self._feed = feed

    async def gather(self, canary: Object, rival: str) -> Gathered:
        """Return the snapshot of a Canary that was read just now.

        Raises:
            KubeError: the API server did not answer; nothing was changed.
        """
        meta = read_meta(canary)
        spec, problems = read_spec(canary)
        status = read_status(canary)
        if spec is None:  # the target is known by its label alone, so that a deletion can take that off
            held = await self._kube.list(kinds.DEPLOYMENT, meta.namespace, labels=f"{LABEL_CANARY}={meta.name}")
            target = read_target(held[0], meta.name) if held else None
            return Gathered(Snapshot(meta, status, problems=problems, target=target), canary)
        namespace, name = meta.namespace, spec.target_ref.name
        deployment, own, scalers = await asyncio.gather(
            self._found(kinds.DEPLOYMENT, name, namespace),
            self._kube.list(kinds.REPLICA_SET, namespace, labels=f"{LABEL_OWNER}={meta.name}"),
            self._kube.list(kinds.HORIZONTAL_POD_AUTOSCALER, namespace),
        )
        target = read_target(deployment, meta.name) if deployment else None
        sets = {raw["metadata"]["uid"]: read_replicaset(raw) for raw in own}
        if target and (status.stable is None or effective_phase(status) in ACTIVE or target.paused):
            labels = ",".join(f"{key}={value}" for key, value in sorted(target.selector.items()))
            for raw in await self._kube.list(kinds.REPLICA_SET, namespace, labels=labels):
                sets[raw["metadata"]["uid"]] = read_replicaset(raw)
        known = {meta.uid, target.uid if target else ""}
        replicasets = tuple(rs for rs in sets.values() if rs.owner_uid in known)
        service_key = f"{namespace}/{spec.service or name}"
        raw_service = self._feed.services.get(service_key)
        snapshot = Snapshot(
            meta=meta,
            status=status,
            spec=spec,
            problems=problems,
            target=target,
            service=Service(spec.service or name, unusable(raw_service), raw_service) if raw_service else None,
            replicasets=replicasets,
            pods=tuple(pod.fact() for pod in self._pods(namespace, target, replicasets, status)),
            autoscaler=_autoscaler(scalers, name, meta),
            rival=rival,
            obstacles=tuple(self._obstacles(namespace, target, service_key)),
            mesh=self._feed.facts(service_key),
        )
        return Gathered(snapshot, canary)

    async def _found(self, kind: kinds.Kind, name: str, namespace: str) -> Object | None:
        try:
            return await self._kube.get(kind, name, namespace)
        except NotFound:
            return None

    def _pods(
        self, namespace: str, target: Target | None, replicasets: tuple[ReplicaSet, ...], status: CanaryStatus
    ) -> list[PodEntry]:
        hashes = {rs.pod_hash for rs in replicasets} | ({status.run.pod_hash} if status.run else set())

        def wanted(pod: PodEntry) -> bool:
            return pod.pod_hash in hashes or bool(target and target.selector and pod.matches(target.selector))

        return self._feed.pods_of(namespace, wanted)

    def _obstacles(self, namespace: str, target: Target | None, service_key: str) -> list[str]:
        labels = ((target.template.get("metadata") or {}).get("labels") or {}) if target else {}
        found = []
        for key, service in self._feed.services.items():
            spec = service["spec"]
            selector = spec.get("selector")
            if not key.startswith(f"{namespace}/") or key == service_key or not spec.get("publishNotReadyAddresses"):
                continue
            if selector and selector.items() <= labels.items():
                name = service["metadata"]["name"]
                found.append(
                    f"Service {name} selects the target's pods and publishes not-ready addresses, so it would serve "
                    "the candidate; drop publishNotReadyAddresses from it, or narrow its selector"
                )
        return found


def _autoscaler(scalers: list[dict[str, Any]], target: str, meta: Meta) -> Autoscaler | None:
    for scaler in scalers:
        ref = scaler["spec"]["scaleTargetRef"]
        if ref.get("kind") != "Deployment" or ref.get("name") != target:
            continue
        frozen = any(
            entry.get("manager") == "serinus" and "f:selectPolicy" in str(entry.get("fieldsV1"))
            for entry in scaler["metadata"].get("managedFields") or []
        )
        return Autoscaler(scaler["metadata"]["name"], frozen)
    return None
