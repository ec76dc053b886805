"""Make it so: perform what ``project`` wants, in an order in which a crash between any two writes does no harm."""

from dataclasses import dataclass
from typing import Any

from serinus.api.names import LABEL_CANARY, LABEL_TRACK, READINESS_GATE
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed
from serinus.controller.records import Records
from serinus.delivery.model import ReplicaSet, Snapshot, Target
from serinus.delivery.project import Desired
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import Conflict, NotFound, Rejected
from serinus.kube.requests import Object, PatchType

_TRACK_PATH = "/metadata/labels/" + LABEL_TRACK.replace("/", "~1")


@dataclass(frozen=True, slots=True)
class Applied:
    """Whether anything was written, so that it is worth looking again soon, and the new version of the Canary if so."""

    wrote: bool
    version: str = ""


class Applier:
    """Performs a ``Desired``. Writes only what differs; raises ``KubeError`` and leaves the rest for the next look."""

    def __init__(self, kube: Kube, feed: Feed, faults: Faults):
        self._kube = kube
        self._feed = feed
        self._faults = faults
        self._records = Records(kube)
        self._behind: set[str] = set()

    async def apply(self, snapshot: Snapshot, desired: Desired, service_key: str, version: str) -> Applied:
        """Make the world as desired. ``version`` is the Canary's ``resourceVersion`` as it was last read or written."""
        meta = snapshot.meta
        owner = f"{meta.namespace}/{meta.name}"
        self._feed.drop_routes(owner, keep=service_key)
        if service_key and not snapshot.rival:
            self._feed.set_route(service_key, owner, desired.route)
        self._faults.experiment(f"canary:{owner}", desired.trial)
        wrote = [
            await self._label(snapshot, desired.label),
            await self._create(meta.namespace, desired.create),
            await self._scale(meta.namespace, desired.scale),
            await self._gates(meta.namespace, desired.open_gates),
            await self._adopt(desired.adopt),
            await self._release(meta.namespace, desired.release),
            await self._untrack(meta.namespace, desired.untrack),
            await self._freeze(snapshot, desired.freeze),
            await self._delete(meta.namespace, desired.delete),
            await self._delete_service(meta.namespace, desired.delete_service),
        ]
        forgotten = await self._forget_commands(snapshot, desired.commands_done, version)
        kept = await self._records.keep(meta, desired.record)
        (self._behind.discard if kept else self._behind.add)(owner)
        return Applied(any(wrote) or bool(forgotten), forgotten)

    def behind(self, owner: str) -> bool:
        """Whether a part of a run's record could not be written yet."""
        return owner in self._behind

    def forget(self, owner: str) -> None:
        """Forget a Canary that is gone."""
        self._records.forget(owner)
        self._faults.close(f"canary:{owner}")
        self._behind.discard(owner)

    async def _label(self, snapshot: Snapshot, value: str | None) -> bool:
        target = snapshot.target
        if target is None or value == "" or target.labelled == (value is not None):
            return False
        change = {"metadata": {"labels": {LABEL_CANARY: value}}}
        await self._kube.patch(kinds.DEPLOYMENT, target.name, snapshot.meta.namespace, change)
        return True

    async def _create(self, namespace: str, objects: tuple[dict[str, Any], ...]) -> bool:
        wrote = False
        for body in objects:
            kind = kinds.REPLICA_SET if body["kind"] == "ReplicaSet" else kinds.SERVICE
            if kind is kinds.SERVICE and (self._service_is(body) or await self._is_foreign(body)):
                continue
            try:
                await self._kube.apply(kind, body, force=True) if kind is kinds.SERVICE else await self._kube.create(
                    kind, body, namespace
                )
                wrote = True
            except Conflict as problem:
                if not problem.exists:
                    raise
        return wrote

    def _service_is(self, body: dict[str, Any]) -> bool:
        """Whether the candidate's Service is there as wanted."""
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        present = self._feed.services.get(key)
        if present is None:
            return False
        spec = present["spec"]
        return bool(spec.get("selector") == body["spec"]["selector"] and spec.get("publishNotReadyAddresses"))

    async def _is_foreign(self, body: dict[str, Any]) -> bool:
        """Whether somebody else's Service has that name: it is not ours to change, and the candidate has none then."""
        meta = body["metadata"]
        try:
            present = await self._kube.get(kinds.SERVICE, meta["name"], meta["namespace"])
        except NotFound:
            return False
        ours = {owner["uid"] for owner in meta["ownerReferences"]}
        return not any(owner.get("uid") in ours for owner in present["metadata"].get("ownerReferences") or [])

    async def _scale(self, namespace: str, sizes: tuple[tuple[ReplicaSet, int], ...]) -> bool:
        for replicaset, size in sizes:
            change: list[Object] = [
                {"op": "test", "path": "/metadata/uid", "value": replicaset.uid},
                {"op": "replace", "path": "/spec/replicas", "value": size},
            ]
            await self._kube.patch(kinds.REPLICA_SET, replicaset.name, namespace, change)
        return bool(sizes)

    async def _gates(self, namespace: str, pods: tuple[str, ...]) -> bool:
        for pod in pods:
            condition = {"type": READINESS_GATE, "status": "True", "reason": "Promoted"}
            change = {"status": {"conditions": [condition]}}
            try:
                await self._kube.patch(
                    kinds.POD, pod, namespace, change, patch_type=PatchType.STRATEGIC, subresource="status"
                )
            except NotFound:
                continue
        return bool(pods)

    async def _adopt(self, replicaset: dict[str, Any] | None) -> bool:
        if replicaset is None:
            return False
        await self._kube.replace(kinds.REPLICA_SET, replicaset)
        return True

    async def _release(self, namespace: str, target: Target | None) -> bool:
        """Un-pause the target, only if it still is the very version that was looked at."""
        if target is None:
            return False
        change: list[Object] = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": target.resource_version},
            {"op": "replace", "path": "/spec/paused", "value": False},
        ]
        await self._kube.patch(kinds.DEPLOYMENT, target.name, namespace, change)
        return True

    async def _untrack(self, namespace: str, pods: tuple[str, ...]) -> bool:
        for pod in pods:
            try:
                await self._kube.patch(kinds.POD, pod, namespace, [{"op": "remove", "path": _TRACK_PATH}])
            except (NotFound, Rejected):
                continue
        return bool(pods)

    async def _freeze(self, snapshot: Snapshot, wanted: bool) -> bool:
        scaler = snapshot.autoscaler
        if scaler is None or scaler.frozen == wanted:
            return False
        body: dict[str, Any] = {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"namespace": snapshot.meta.namespace, "name": scaler.name},
        }
        if wanted:
            body["spec"] = {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}
        try:
            await self._kube.apply(kinds.HORIZONTAL_POD_AUTOSCALER, body, force=False)
        except Conflict:
            return False  # the user's own manager has that very field: it is left alone
        return True

    async def _delete(self, namespace: str, twins: tuple[ReplicaSet, ...]) -> bool:
        for twin in twins:
            try:
                await self._kube.delete(kinds.REPLICA_SET, twin.name, namespace, uid=twin.uid)
            except NotFound:
                continue
        return bool(twins)

    async def _delete_service(self, namespace: str, name: str) -> bool:
        if not name or f"{namespace}/{name}" not in self._feed.services:
            return False
        try:
            service = await self._kube.get(kinds.SERVICE, name, namespace)
            owners = service["metadata"].get("ownerReferences") or []
            if not any(owner.get("kind") == "Canary" for owner in owners):
                return False
            await self._kube.delete(kinds.SERVICE, name, namespace, uid=service["metadata"]["uid"])
        except NotFound:
            return False
        return True

    async def _forget_commands(self, snapshot: Snapshot, annotations: tuple[str, ...], version: str) -> str:
        """Take off requests that were dealt with; return the Canary's new version, empty when nothing was written."""
        if not annotations:
            return ""
        change = {"metadata": {"annotations": dict.fromkeys(annotations), "resourceVersion": version}}
        try:
            after = await self._kube.patch(kinds.CANARY, snapshot.meta.name, snapshot.meta.namespace, change)
        except Conflict:
            return ""  # somebody has changed the Canary since: that is looked at, and then this is done
        return str(after["metadata"]["resourceVersion"])
