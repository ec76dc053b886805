"""The pods of an experiment in the simulated cluster: two groups, and sidecars that do what they are told."""

from dataclasses import dataclass, field
from typing import Any

from serinus.api.names import LABEL_HASH
from serinus.delivery.arms import Trial
from serinus.delivery.model import Dependency, Pod, ReplicaSet


@dataclass(slots=True)
class GroupPods:
    """The ReplicaSets of the two groups, from when their pods are ready, and the experiment that is asked for."""

    sets: dict[str, ReplicaSet] = field(default_factory=dict)
    ready_s: dict[str, float] = field(default_factory=dict)
    trial: Trial | None = None

    def create(self, body: dict[str, Any], owner_uid: str, ready_s: float) -> None:
        """Take a ReplicaSet whose pods are ready at a time; one that is there is left alone."""
        template, size = body["spec"]["template"], body["spec"]["replicas"]
        pod_hash, name = template["metadata"]["labels"][LABEL_HASH], body["metadata"]["name"]
        if pod_hash not in self.sets:
            self.sets[pod_hash] = ReplicaSet(name, name, pod_hash, "", owner_uid, size, size, body)
            self.ready_s[pod_hash] = ready_s

    def delete(self, pod_hash: str) -> None:
        """Let a group go."""
        self.sets.pop(pod_hash, None)
        self.ready_s.pop(pod_hash, None)

    def pods(self, now_s: float) -> tuple[Pod, ...]:
        """Return the pods as the operator sees them."""
        return tuple(
            Pod(f"{group.name}-{number}", pod_hash, containers_ready=self.ready_s[pod_hash] <= now_s, tracked=True)
            for pod_hash, group in self.sets.items()
            for number in range(group.replicas)
        )

    def ready(self, now_s: float) -> int:
        """Return how many pods each group has that are ready, at least; 0 unless both are there."""
        sizes = [group.replicas if self.ready_s[at] <= now_s else 0 for at, group in self.sets.items()]
        return min(sizes) if len(sizes) > 1 else 0

    @property
    def dependency(self) -> Dependency:
        """What the operator sees of the Service that fails: nothing stands in the way, and every sidecar obeys."""
        all_ = sum(group.replicas for group in self.sets.values())
        through = all_ if self.trial and self.trial.through else 0
        return Dependency(through=through, injecting=all_ if self.injected else 0)

    @property
    def injected(self) -> bool:
        """Whether calls of the groups fail."""
        return self.trial is not None and self.trial.injected
