"""The two groups of pods that an experiment of the fault gate compares: how many, and how they are told apart."""

from serinus.api.release import RunStatus
from serinus.delivery.model import Snapshot


def arm_size(snapshot: Snapshot) -> int:
    """Return how many pods each group has: two, unless the target itself has but one."""
    return min(2, snapshot.target.replicas) if snapshot.target else 0


def arm_hashes(run: RunStatus) -> tuple[str, str]:
    """Return the ``pod-template-hash`` of the candidate's group and of the stable version's."""
    return f"{run.pod_hash}-cf", f"{run.pod_hash}-sf"
