"""``project``: every object and route that a persisted status implies. It reads nothing but what it is given.

A restart at any point projects the same again, so whatever was half done is finished.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

from serinus.api.commands import commands
from serinus.api.names import (
    ANNOTATION_COMMAND_PREFIX,
    API_VERSION,
    LABEL_HASH,
    LABEL_OWNER,
)
from serinus.api.release import Phase, RunStatus
from serinus.delivery import plan, recording
from serinus.delivery.arms import WITH_REQUESTS, Trial, arm_hashes, arm_size, experimenting, trial_of
from serinus.delivery.model import ReplicaSet, Snapshot, Target
from serinus.delivery.revision import adopted_template, twin_name, twin_template


@dataclass(frozen=True, slots=True)
class Route:
    """What the sidecars get for the Service. ``pod_hash`` names the candidate's pods; empty when there are none.

    ``shifted``: the stable endpoints include the candidate's pods. Otherwise they exclude them.
    """

    weight: int = 0
    pod_hash: str = ""
    excluded: str = ""
    shifted: bool = False
    arms: tuple[str, str] = ("", "")
    """``pod-template-hash`` of an experiment's two groups, the candidate's first; empty when there are none."""
    arms_pct: int = 0
    """Share of the requests that each of them gets, in percent."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is to be, as data; ``serinus.controller.apply`` makes it so, in the order of the fields."""

    route: Route | None = None
    """None: the Service is none of our business any more."""
    label: str | None = ""
    """Value of our label on the target; None: the label goes; empty: it is left as it is."""
    create: tuple[dict[str, Any], ...] = ()
    """Objects that must exist; those that do are left alone."""
    scale: tuple[tuple[ReplicaSet, int], ...] = ()
    """ReplicaSets, and the size that they are to have."""
    open_gates: tuple[str, ...] = ()
    """Pods whose readiness gate is to be opened."""
    adopt: dict[str, Any] | None = None
    """The candidate's ReplicaSet, rewritten for the target to take; guarded by its resourceVersion."""
    release: Target | None = None
    """The target, to be un-paused if it still is as it was seen."""
    untrack: tuple[str, ...] = ()
    """Pods that lose our track label."""
    freeze: bool = False
    """Whether the autoscaler's scale-in is to be frozen."""
    delete: tuple[ReplicaSet, ...] = ()
    """Twins that go."""
    delete_service: str = ""
    """The Service by which the candidate was reached, when it is to go."""
    commands_done: tuple[str, ...] = ()
    """Annotations of requests that were dealt with."""
    trial: Trial | None = None
    """The experiment that is under way. It ends by itself where this is not asked for again and again."""
    record: tuple[dict[str, Any], ...] = ()
    """Parts of the run's record that must exist; those that do are left alone. A release waits for none of them."""


def project(snapshot: Snapshot) -> Desired:
    """Return what the snapshot's status, which must be the persisted one, implies for the objects in the snapshot."""
    status, target = snapshot.status, snapshot.target
    phase = plan.effective_phase(status)
    run = status.run if phase in plan.ACTIVE else None
    gone = bool(snapshot.meta.deleted_at) and run is None
    usable = snapshot.spec is not None and not snapshot.problems and not snapshot.rival
    if snapshot.rival:
        return Desired(commands_done=_done(snapshot))
    desired = Desired(
        route=None if gone else _route(phase, run, snapshot),
        label=None if gone else _label(snapshot),
        release=_release(snapshot, phase, run),
        commands_done=_done(snapshot),
        freeze=run is not None and not _cleaning(phase, run),
        record=recording.parts(snapshot.meta, status, _owner(snapshot)),
    )
    if not usable or target is None:
        return replace(desired, delete=_leaving(snapshot, phase, run))
    return _with_objects(snapshot, desired, phase, run, target)


def _label(snapshot: Snapshot) -> str | None:
    """Return what becomes of the label on the target, by which its changes are held."""
    service, target = snapshot.service, snapshot.target
    if service is None or service.unusable or target is None or snapshot.problems:
        return ""
    if snapshot.status.stable is None and target.paused:
        return None  # with the label, the person who is to resume the target could not
    if snapshot.status.stable is None and not target.settled:
        return ""  # a rollout under way ends as it began
    return snapshot.meta.name


def _leaving(snapshot: Snapshot, phase: Phase | None, run: RunStatus | None) -> tuple[ReplicaSet, ...]:
    """Return the twins that nobody needs: all when no candidate is wanted, else those of other runs.

    The two groups of an experiment that is over stay until every sidecar knows that they get no requests any more.
    """
    kept = {run.pod_hash} if run is not None and _twin_wanted(phase, run) else set()
    withdrawn = snapshot.mesh.complete and not snapshot.mesh.arms_pct
    if run is not None and (experimenting(snapshot, run) or (kept and not withdrawn)):
        kept.update(arm_hashes(run))
    return tuple(rs for rs in snapshot.twins if rs.pod_hash not in kept)


def _with_objects(
    snapshot: Snapshot, desired: Desired, phase: Phase | None, run: RunStatus | None, target: Target
) -> Desired:
    twin = snapshot.twin if run else None
    wanted = run is not None and _twin_wanted(phase, run)
    name = f"{snapshot.spec.service or target.name}-canary" if snapshot.spec else ""
    create: list[dict[str, Any]] = []
    scale: list[tuple[ReplicaSet, int]] = []
    if run and wanted:
        if twin is None and phase in (*plan.IN_RUN, Phase.PROMOTING) and target.revision == run.revision:
            create.append(_twin(snapshot, run, target))
        elif twin is not None and twin.owner_uid == snapshot.meta.uid and twin.replicas != run.replicas:
            scale.append((twin, run.replicas))
        create += _candidate_service(snapshot, run, name)
        if experimenting(snapshot, run):
            create += _arms(snapshot, run, target)
    if run:
        scale += _judged_only(snapshot, phase, run, target)
    promoting = phase is Phase.PROMOTING and run is not None
    open_gates = tuple(p.name for p in snapshot.candidates if not p.gate_open) if _gates_open(phase, run) else ()
    adopt = None
    if run and promoting and run.stage == plan.ADOPT and twin and twin.owner_uid == snapshot.meta.uid:
        adopt = _adopted(twin, run, target) if target.revision == run.revision and target.paused else None
    cleaning = run is None or _cleaning(phase, run)
    return replace(
        desired,
        create=tuple(create),
        scale=tuple(scale),
        open_gates=open_gates,
        adopt=adopt,
        trial=trial_of(snapshot, run) if run else None,
        untrack=tuple(pod.name for pod in snapshot.pods if pod.tracked and _kept(snapshot, pod.pod_hash))
        if cleaning
        else (),
        delete=_leaving(snapshot, phase, run),
        delete_service=name if not wanted else "",
    )


def _route(phase: Phase | None, run: RunStatus | None, snapshot: Snapshot) -> Route:
    if run is None:
        return Route()
    if phase is Phase.RESTORING:
        cleaning = run.stage == plan.CLEAN
        return Route(run.weight, "" if cleaning else run.pod_hash, "", shifted=True)
    adopted = snapshot.twin is not None and snapshot.twin.owner_uid != snapshot.meta.uid
    if phase is Phase.ROLLING_BACK:
        return Route(0, "" if run.stage == plan.DRAIN else run.pod_hash, "" if adopted else run.pod_hash)
    plain = Route(run.weight, run.pod_hash, run.pod_hash)
    found = plan.experiment_at(snapshot.spec, run.step) if snapshot.spec else None
    if found is None or not experimenting(snapshot, run):
        return plain
    share = found[0].share if run.stage in WITH_REQUESTS else 0
    return replace(plain, arms=arm_hashes(run), arms_pct=share)


def _arms(snapshot: Snapshot, run: RunStatus, target: Target) -> list[dict[str, Any]]:
    """Return the ReplicaSets of an experiment's two groups, as far as they are missing."""
    stable, spec = snapshot.status.stable, snapshot.spec
    own = [rs for rs in snapshot.targets_own if stable and rs.revision == stable.revision]
    if spec is None or not own or target.revision != run.revision:
        return []
    there = {rs.pod_hash for rs in snapshot.replicasets}
    templates = (target.template, own[0].manifest["spec"]["template"])
    return [
        _replicaset(snapshot, target, pod_hash, arm_size(snapshot), template, spec.candidate.without_labels)
        for pod_hash, template in zip(arm_hashes(run), templates, strict=True)
        if pod_hash not in there
    ]


def _twin_wanted(phase: Phase | None, run: RunStatus) -> bool:
    if phase is Phase.ROLLING_BACK:
        return run.stage == plan.SHIFT
    return not _cleaning(phase, run)


def _cleaning(phase: Phase | None, run: RunStatus) -> bool:
    return (phase is Phase.RESTORING and run.stage == plan.CLEAN) or (
        phase is Phase.ROLLING_BACK and run.stage == plan.DRAIN
    )


def _gates_open(phase: Phase | None, run: RunStatus | None) -> bool:
    return (
        run is not None
        and phase is Phase.PROMOTING
        and run.stage in (plan.OPEN, plan.ADOPT, plan.RELEASE)
        and not run.native
    )


def _kept(snapshot: Snapshot, pod_hash: str) -> bool:
    """Whether pods of this hash belong to the target by now."""
    return any(rs.pod_hash == pod_hash and rs.owner_uid != snapshot.meta.uid for rs in snapshot.replicasets)


def _release(snapshot: Snapshot, phase: Phase | None, run: RunStatus | None) -> Target | None:
    """Return the target when it is held and may go: what it holds is stable, released, or was judged and adopted."""
    status, target = snapshot.status, snapshot.target
    if target is None or not target.paused or status.stable is None:
        return None
    if run is None:
        served = {status.stable.revision, *(old.revision for old in status.history)}
        released = status.released == target.revision and (target.replicas == 0 or target.revision in served)
        known = (target.revision == status.stable.revision or released) and not target.break_glass
        ours = target.labelled or bool(snapshot.meta.deleted_at)  # the label goes first, the pause was ours
        return target if known and phase in (Phase.READY, Phase.FAILED) and ours else None
    if phase is not Phase.PROMOTING:
        return None
    judged = target.revision == run.revision and run.stage in (plan.RELEASE, plan.NATIVE)
    set_back = target.revision == status.stable.revision and run.stage in (plan.ADOPT, plan.NATIVE)
    return target if judged or set_back else None


def _judged_only(
    snapshot: Snapshot, phase: Phase | None, run: RunStatus, target: Target
) -> list[tuple[ReplicaSet, int]]:
    """Return the scalings that finish a promotion towards the judged revision beneath a newer, held template.

    The target's controller keeps a held mixture at the wish plus its surge: what is missing it adds to the largest
    ReplicaSet, what is too much it takes from there. So the judged one grows by one until it is the largest, as fast as
    its pods become ready, and then the others shrink.
    """
    if phase is not Phase.PROMOTING or run.stage not in plan.FINAL:
        return []
    stable = snapshot.status.stable
    if target.revision == run.revision or not target.paused or (stable and target.revision == stable.revision):
        return []
    judged = next((rs for rs in snapshot.targets_own if rs.revision == run.revision and rs.replicas), None)
    others = [rs for rs in snapshot.targets_own if rs.revision != run.revision and rs.replicas]
    if judged is None or not others:
        return []
    ready = snapshot.ready_of(run.revision)
    if judged.replicas < max(rs.replicas for rs in others):
        return [(judged, judged.replicas + 1)] if ready >= judged.replicas else []
    scale, keep = [], max(0, target.replicas - ready)
    for rs in others:
        size = min(rs.replicas, keep)
        keep -= size
        if size != rs.replicas:
            scale.append((rs, size))
    return scale


def _done(snapshot: Snapshot) -> tuple[str, ...]:
    handled = {command.token for command in snapshot.status.commands}
    return tuple(
        ANNOTATION_COMMAND_PREFIX + command.token
        for command in commands(snapshot.meta.annotations)
        if command.token in handled
    )


def _owner(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Canary",
        "name": snapshot.meta.name,
        "uid": snapshot.meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _twin(snapshot: Snapshot, run: RunStatus, target: Target) -> dict[str, Any]:
    without = snapshot.spec.candidate.without_labels if snapshot.spec else []
    return _replicaset(snapshot, target, run.pod_hash, run.replicas, target.template, without)


def _replicaset(
    snapshot: Snapshot, target: Target, pod_hash: str, size: int, template: dict[str, Any], without: list[str]
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "namespace": snapshot.meta.namespace,
            "name": twin_name(target.name, pod_hash),
            "labels": {LABEL_OWNER: snapshot.meta.name},
            "ownerReferences": [_owner(snapshot)],
        },
        "spec": {
            "replicas": size,
            "selector": {"matchLabels": {LABEL_HASH: pod_hash}},
            "template": twin_template(template, pod_hash, without),
        },
    }


def _candidate_service(snapshot: Snapshot, run: RunStatus, name: str) -> list[dict[str, Any]]:
    """Return the Service by which smoke tests and hooks reach the candidate by name."""
    service = snapshot.service
    if service is None or not service.manifest:
        return []
    ports = [
        {k: port[k] for k in ("name", "port", "targetPort", "protocol", "appProtocol") if k in port}
        for port in service.manifest["spec"].get("ports", [])
    ]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": snapshot.meta.namespace,
                "name": name,
                "labels": {LABEL_OWNER: snapshot.meta.name},
                "ownerReferences": [_owner(snapshot)],
            },
            "spec": {"selector": {LABEL_HASH: run.pod_hash}, "ports": ports, "publishNotReadyAddresses": True},
        }
    ]


def _adopted(twin: ReplicaSet, run: RunStatus, target: Target) -> dict[str, Any]:
    """Return the twin's ReplicaSet as the target's controller takes it for the newest of its own."""
    adopted = copy.deepcopy(twin.manifest)
    adopted.pop("status", None)
    template = adopted_template(adopted["spec"]["template"], run.pod_hash)
    adopted["spec"]["template"] = template
    metadata = adopted["metadata"]
    metadata.pop("managedFields", None)
    metadata["labels"] = dict(template["metadata"]["labels"])
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        "deployment.kubernetes.io/desired-replicas": str(target.replicas),
        "deployment.kubernetes.io/max-replicas": str(target.replicas + 1),
    }
    metadata["ownerReferences"] = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": target.name,
            "uid": target.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    return adopted
