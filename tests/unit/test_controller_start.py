"""The controller's caches: one bad object stops no other, what is gone leaves them, and our own writes are no news."""

from typing import Any

from serinus.api.names import LABEL_HASH
from serinus.api.release import CanaryStatus
from serinus.controller.apply import Applied, Applier
from serinus.controller.controller import Controller
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed
from serinus.controller.policies import Policies
from serinus.controller.workqueue import WorkQueue
from serinus.delivery.model import Meta, Snapshot
from serinus.delivery.project import Desired
from serinus.kube import kinds
from serinus.kube.errors import Conflict, NotFound
from serinus.mesh.render import render_service

from .test_feed import BAD, Sidecars, service

NAMESPACE = "shop"


class Kube:
    """An API server that lists what it was given."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.written: list[dict[str, Any]] = []

    async def list(self, kind: kinds.Kind, namespace: str | None = None, **_: Any) -> list[dict[str, Any]]:
        return list(self.objects.get(kind.name, []))

    async def get(self, kind: kinds.Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        for body in self.objects.get(kind.name, []):
            if body["metadata"]["name"] == name:
                return body
        raise NotFound("there is none")

    async def apply(self, kind: kinds.Kind, body: dict[str, Any], *, force: bool = True) -> dict[str, Any]:
        self.written.append(body)
        return body

    async def patch(self, kind: kinds.Kind, name: str, namespace: str, change: dict[str, Any]) -> dict[str, Any]:
        present = (await self.get(kind, name))["metadata"]
        if change["metadata"].get("resourceVersion") != present["resourceVersion"]:
            raise Conflict("it has been changed")
        self.written.append(change)
        return {"metadata": {**present, "resourceVersion": "8"}}


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"namespace": NAMESPACE, "name": name, "uid": f"uid-{name}", **more}


def pod(name: str, pod_hash: str) -> dict[str, Any]:
    conditions = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
    return {
        "metadata": meta(name, labels={"app": "cart", LABEL_HASH: pod_hash}),
        "status": {"podIP": "10.1.0.7", "conditions": conditions},
    }


def canary(name: str, status: dict[str, Any]) -> dict[str, Any]:
    spec = {"targetRef": {"name": name}, "strategy": {"steps": [{"weight": 10, "for": "1m"}]}}
    return {"metadata": meta(name), "spec": spec, "status": status}


def run(phase: str, stage: str, weight: int) -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000Z"
    under_way = {"id": "r", "revision": "new", "podHash": "new", "startedAt": at, "stepSince": at, "weight": weight}
    stable = {"revision": "old", "at": at}
    return {"phase": phase, "stable": stable, "run": {**under_way, "stage": stage, "stageSince": at, "replicas": 1}}


class Keeper:
    def set_gates(self, gates: object, valid_s: float) -> None:
        pass

    def injecting(self, gate: str) -> int:
        return 0


def controller(kube: Kube, queue: WorkQueue | None = None) -> tuple[Controller, Feed, list[str]]:
    feed = Feed(Sidecars(), render_service)
    dropped: list[str] = []
    queue = WorkQueue(clock=lambda: 0.0) if queue is None else queue
    faults = Faults(Keeper(), feed)
    policies = Policies(kube, feed, faults)  # type: ignore[arg-type]
    return Controller(kube, feed, queue, policies, faults, dropped.append), feed, dropped  # type: ignore[arg-type]


async def test_a_policy_that_is_refused_and_a_status_that_cannot_be_read_stop_nobody() -> None:
    kube = Kube()
    route = {"name": "r", "match": {"path": {"regex": BAD}}}
    kube.objects = {
        "Service": [service(), service("other")],
        "Pod": [pod("new-1", "new")],
        "TrafficPolicy": [{"metadata": meta("rules"), "spec": {"targetRef": {"name": "cart"}, "routes": [route]}}],
        "Canary": [canary("broken", {"history": "none"}), canary("cart", run("Analysing", "Judge", 30))],
    }
    started, feed, _ = controller(kube)
    await started.prime()
    assert feed.facts("shop/cart").weight == 30


async def test_after_a_restart_pods_that_the_target_has_taken_still_serve_during_a_rollback() -> None:
    kube = Kube()
    template = {"metadata": {"labels": {LABEL_HASH: "new"}}, "spec": {"containers": []}}
    owner = {"uid": "uid-deployment", "controller": True}
    kube.objects = {
        "Service": [service()],
        "Pod": [pod("new-1", "new")],
        "Canary": [canary("cart", run("RollingBack", "Shift", 0))],
        "ReplicaSet": [{"metadata": meta("cart-new", ownerReferences=[owner]), "spec": {"template": template}}],
    }
    started, feed, _ = controller(kube)
    await started.prime()
    state = feed.state("shop/cart")
    assert state is not None
    assert [endpoint.pod for endpoint in state.ports[0].stable] == ["shop/new-1"]


async def test_a_sweep_forgets_pods_and_services_that_are_gone() -> None:
    kube = Kube()
    kube.objects = {"Service": [service()], "Pod": [pod("new-1", "new")]}
    started, feed, dropped = controller(kube)
    await started.prime()
    kube.objects = {}
    await started.sweep()
    assert (feed.pods, feed.services, dropped) == ({}, {}, ["uid-new-1"])


def test_the_event_of_our_own_write_asks_for_no_look_and_any_other_does() -> None:
    queue = WorkQueue(clock=lambda: 0.0)
    started, _, _ = controller(Kube(), queue)

    def look_at(version: str, *, deleted: bool = False) -> bool:
        queue.forget("canary:shop/cart")
        body = canary("cart", run("Analysing", "Judge", 30))
        body["metadata"]["resourceVersion"] = version
        started.saw_canary(body, deleted=deleted)
        return len(queue) == 1

    assert look_at("7")
    assert look_at("7")  # nothing was written yet
    started.remember("shop", "cart", CanaryStatus(), "8")
    assert not look_at("8")
    assert look_at("9")
    started.remember("shop", "cart", CanaryStatus(), "")  # looked at, and nothing to write
    assert not look_at("8")
    assert look_at("8", deleted=True)


async def test_a_foreign_service_with_the_name_of_the_candidates_is_left_alone() -> None:
    kube = Kube()
    feed = Feed(Sidecars(), render_service)
    wanted = {
        "kind": "Service",
        "metadata": meta("cart-canary", ownerReferences=[{"uid": "uid-cart"}]),
        "spec": {"selector": {LABEL_HASH: "new"}},
    }
    kube.objects = {"Service": [service("cart-canary")]}
    applier = Applier(kube, feed, Faults(Keeper(), feed))  # type: ignore[arg-type]
    assert not await applier._create(NAMESPACE, (wanted,))
    kube.objects = {}
    assert await applier._create(NAMESPACE, (wanted,))
    assert kube.written == [wanted]


async def test_requests_are_taken_off_only_where_nobody_has_changed_the_canary_since() -> None:
    kube = Kube()
    kube.objects = {"Canary": [{"metadata": meta("cart", resourceVersion="7")}]}
    feed = Feed(Sidecars(), render_service)
    applier = Applier(kube, feed, Faults(Keeper(), feed))  # type: ignore[arg-type]
    snapshot = Snapshot(Meta(NAMESPACE, "cart", "uid-cart", 1, {}), CanaryStatus())
    done = Desired(route=None, commands_done=("command.serinus.dev/t1",))
    assert await applier.apply(snapshot, done, "", "6") == Applied(wrote=False)
    assert kube.written == []
    assert await applier.apply(snapshot, done, "", "7") == Applied(wrote=True, version="8")
    assert kube.written == [{"metadata": {"annotations": {"command.serinus.dev/t1": None}, "resourceVersion": "7"}}]
