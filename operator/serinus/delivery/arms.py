"""The two groups of pods that an experiment of the fault gate compares, and what their sidecars are told of it."""

from dataclasses import dataclass

from serinus.api.fault import Experiment, Injection
from serinus.api.release import RunStatus
from serinus.delivery import plan
from serinus.delivery.model import Snapshot

WITH_REQUESTS = (plan.WARM, plan.INJECT, plan.RECOVER)
"""Stages in which the two groups get requests."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment that is under way, for the sidecars of its two groups.

    ``arms`` are the ``pod-template-hash`` of both. Calls go by where the fault would happen once ``through``, and meet
    it while ``injected``.
    """

    name: str
    to: str
    spec: Injection
    retries: bool
    allow_unsafe: bool
    arms: tuple[str, str]
    through: bool = False
    injected: bool = False


def dependency_key(namespace: str, experiment: Experiment) -> str:
    """Return ``namespace/name`` of the Service that an experiment lets fail."""
    return experiment.to if "/" in experiment.to else f"{namespace}/{experiment.to}"


def arm_size(snapshot: Snapshot) -> int:
    """Return how many pods each group has: two, unless the target itself has but one."""
    return min(2, snapshot.target.replicas) if snapshot.target else 0


def arm_hashes(run: RunStatus) -> tuple[str, str]:
    """Return the ``pod-template-hash`` of the candidate's group and of the stable version's.

    What users match pods of a revision by, ``NAME-HASH-.*``, matches the pods of neither.
    """
    return f"{run.pod_hash}cf", f"{run.pod_hash}sf"


def experimenting(snapshot: Snapshot, run: RunStatus) -> bool:
    """Whether an experiment is under way. None is while nothing moves: nobody would look after it."""
    spec, status = snapshot.spec, snapshot.status
    if spec is None or run.stage not in plan.EXPERIMENT or status.phase not in plan.IN_RUN:
        return False
    return plan.experiment_at(spec, run.step) is not None


def trial_of(snapshot: Snapshot, run: RunStatus) -> Trial | None:
    """Return the experiment that a status implies, for the sidecars; None without one."""
    found = plan.experiment_at(snapshot.spec, run.step) if snapshot.spec else None
    if found is None or not experimenting(snapshot, run):
        return None
    experiment, injection = found
    return Trial(
        name=f"{snapshot.meta.namespace}/{snapshot.meta.name}: {experiment.name}",
        to=dependency_key(snapshot.meta.namespace, experiment),
        spec=injection,
        retries=experiment.at == "Dependency",
        allow_unsafe=experiment.allow_unsafe,
        arms=arm_hashes(run),
        through=run.stage in WITH_REQUESTS,
        injected=run.stage == plan.INJECT and not experiment.dry_run,
    )
