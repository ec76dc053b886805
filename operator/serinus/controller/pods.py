"""Pods, as little of them as is needed: 1,000 idle Canaries must fit into 150 MiB."""

from dataclasses import dataclass
from typing import Any

from serinus.api.names import ANNOTATION_INJECTED, LABEL_HASH, LABEL_TRACK, READINESS_GATE
from serinus.delivery import model


@dataclass(frozen=True, slots=True)
class PodEntry:
    """One pod.

    ``ports`` are its containers' named ports, ``trouble`` what keeps a container from running, ``meshed`` tells whether
    it was given a sidecar.
    """

    namespace: str
    name: str
    uid: str
    address: str
    labels: tuple[tuple[str, str], ...]
    containers_ready: bool
    ready: bool
    gate_open: bool
    terminating: bool
    ports: tuple[tuple[str, int], ...]
    trouble: str = ""
    meshed: bool = False

    @property
    def pod_hash(self) -> str:
        """The value of ``pod-template-hash``, empty without one."""
        return next((value for name, value in self.labels if name == LABEL_HASH), "")

    def matches(self, selector: dict[str, str]) -> bool:
        """Whether the pod's labels match a selector of equalities."""
        return all(item in self.labels for item in selector.items())

    def fact(self) -> model.Pod:
        """Return what a decision looks at."""
        return model.Pod(
            name=self.name,
            pod_hash=self.pod_hash,
            containers_ready=self.containers_ready,
            ready=self.ready,
            gate_open=self.gate_open,
            terminating=self.terminating,
            tracked=LABEL_TRACK in dict(self.labels),
            trouble=self.trouble,
        )


def entry(pod: dict[str, Any]) -> PodEntry:
    """Return what we keep of a pod, given as the API server returns it."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    conditions = {c["type"]: c["status"] == "True" for c in status.get("conditions") or []}
    ended = status.get("phase") in ("Succeeded", "Failed")
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return PodEntry(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        address=status.get("podIP") or "",
        labels=tuple(sorted((meta.get("labels") or {}).items())),
        containers_ready=conditions.get("ContainersReady", False),
        ready=conditions.get("Ready", False),
        gate_open=conditions.get(READINESS_GATE, False),
        terminating="deletionTimestamp" in meta or ended,
        ports=tuple((p["name"], p["containerPort"]) for c in containers for p in c.get("ports") or [] if "name" in p),
        trouble=_trouble(status),
        meshed=ANNOTATION_INJECTED in (meta.get("annotations") or {}),
    )


def _trouble(status: dict[str, Any]) -> str:
    for container in status.get("containerStatuses") or []:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"container {container['name']} waits: {waiting['reason']}"
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended:
            return f"container {container['name']} ended with {ended.get('exitCode')}"
        if not container.get("ready") and (container.get("state") or {}).get("running"):
            return f"container {container['name']} runs and does not pass its readiness probe"
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message', '')}"
    return ""
