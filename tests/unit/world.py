"""Snapshots to decide on: each part has a sound default, and a test names only what it is about.

The scene: Deployment ``web`` of four replicas serves ``v1``; ``v2`` was applied to it and is held; the plan has the
steps 10, 20 and 50 %.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from serinus.analysis.model import Counts, Evidence
from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.api.commands import Command
from serinus.api.names import LABEL_HASH
from serinus.api.release import CanaryStatus, Phase, Promoted, RunStatus
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.decide import decide
from serinus.delivery.finishing import REVISION_NUMBER
from serinus.delivery.model import Decision, Mesh, Meta, Pod, ReplicaSet, Service, Snapshot, Target, Totals, stamp
from serinus.delivery.revision import adopted_template, revision_of, twin_template

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
OURS, THEIRS = "uid-of-the-canary", "uid-of-the-deployment"
REPLICAS = 4


def ago(seconds: float) -> str:
    return stamp(NOW - timedelta(seconds=seconds))


def template(version: str) -> dict[str, Any]:
    container = {"name": "app", "image": f"registry.example/web:{version}"}
    return {"metadata": {"labels": {"app": "web", "team": "shop"}}, "spec": {"containers": [container]}}


def revision(version: str) -> str:
    return revision_of(template(version))


V1, V2, V3 = revision("v1"), revision("v2"), revision("v3")


def a_spec(*steps: dict[str, Any], **fields: Any) -> CanarySpec:
    """A plan of weights 10, 20 and 50, or of the given steps. Fields in camelCase, as users write them.

    One look at the evidence decides: what is looked at here is what follows from a verdict.
    """
    plain = [{"weight": 10}, {"weight": 20}, {"weight": 50}]
    analysis = {**AT_ONCE, **fields.pop("analysis", {})}
    raw = {"targetRef": {"name": "web"}, "strategy": {"steps": list(steps) or plain}, "analysis": analysis, **fields}
    return parse_live(CanarySpec, raw)


AT_ONCE = {
    "warmUp": "0s",
    "successRate": {"maxDrop": 2},
    "latency": {"compare": False},
    "tuning": {"block": "1s", "cap": 100, "wronglySafe": 0.5},
}


def a_target(version: str = "v2", **changes: Any) -> Target:
    """The Deployment: held with ``v2`` when nothing else is said, not held with ``v1``."""
    fields: dict[str, Any] = {
        "name": "web",
        "uid": THEIRS,
        "resource_version": "7",
        "template": template(version),
        "revision": revision(version),
        "replicas": REPLICAS,
        "selector": {"app": "web"},
        "paused": version != "v1",
        "labelled": True,
        "settled": version == "v1",
    }
    return Target(**{**fields, **changes})


def a_set(
    version: str,
    replicas: int = REPLICAS,
    owner: str = THEIRS,
    pod_hash: str = "",
    failure: str = "",
    without: tuple[str, ...] = (),
) -> ReplicaSet:
    """A ReplicaSet of the target's, or with ``owner=OURS`` a twin."""
    pod_hash = pod_hash or revision(version)
    gated = owner == OURS
    pods = template(version)
    made = twin_template(pods, pod_hash, list(without)) if gated else adopted_template(pods, pod_hash)
    name = f"web-{pod_hash}"
    manifest = {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "3"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {LABEL_HASH: pod_hash}}, "template": made},
        "status": {"replicas": replicas},
    }
    return ReplicaSet(name, f"uid-{name}", pod_hash, revision(version), owner, replicas, replicas, manifest, failure)


def twin(replicas: int = 2, version: str = "v2", **changes: Any) -> ReplicaSet:
    return a_set(version, replicas, OURS, **changes)


def pods(version: str, count: int, pod_hash: str = "", **changes: Any) -> tuple[Pod, ...]:
    """Pods that serve: ready, and not of a twin."""
    pod_hash = pod_hash or revision(version)
    fields = {"containers_ready": True, "ready": True, **changes}
    return tuple(Pod(name=f"web-{pod_hash}-{index}", pod_hash=pod_hash, **fields) for index in range(count))


def twin_pods(count: int = 2, version: str = "v2", **changes: Any) -> tuple[Pod, ...]:
    """Pods of a candidate that are well, with a gate that is shut."""
    return pods(version, count, **{"ready": False, "tracked": True, **changes})


def counts(requests: int, failures: int = 0) -> Counts:
    buckets = [0] * len(Counts().buckets)
    buckets[3] = requests
    return Counts(requests, failures, tuple(buckets))


def seen(candidate: Counts, stable: Counts | None = None, reader: str = "reader-1") -> Totals:
    return Totals(reader, Evidence(candidate, stable or Counts()))


GOOD = seen(counts(200), counts(1800))


def good_at(weight: int) -> Totals:
    """Requests that all went well, in the shares that a weight makes."""
    return seen(counts(20 * weight), counts(20 * (100 - weight)))


BAD = seen(counts(200, 120), counts(1800, 2))
LITTLE = seen(counts(7), counts(80))


def a_run(stage: str = plan.JUDGE, **changes: Any) -> RunStatus:
    fields: dict[str, Any] = {
        "id": "run-1",
        "revision": V2,
        "pod_hash": V2,
        "started_at": ago(60),
        "step": 0,
        "step_since": ago(30),
        "stage": stage,
        "stage_since": ago(20),
        "weight": 10,
        "acknowledged_at": ago(20) if stage == plan.JUDGE else "",
        "replicas": 2,
    }
    return RunStatus(**{**fields, **changes})


def a_status(phase: Phase | None, run: RunStatus | None = None, **changes: Any) -> CanaryStatus:
    """A status in which ``v1`` is the stable version since an hour."""
    fields: dict[str, Any] = {"phase": phase, "run": run, "stable": Promoted(revision=V1, at=ago(3600))}
    return CanaryStatus(**{**fields, **changes})


def acknowledged(weight: int | None, **changes: Any) -> Mesh:
    """Three sidecars that have everything that was published."""
    fields: dict[str, Any] = {"weight": weight, "candidates": 2, "connected": 3, "acknowledged": 3}
    return Mesh(**{**fields, **changes})


def a_snapshot(status: CanaryStatus | None = None, **parts: Any) -> Snapshot:
    """The scene; without a status an idle Canary whose target serves ``v1``."""
    status = status or a_status(Phase.READY)
    idle = status.phase in (None, Phase.READY, Phase.FAILED)
    weight = status.run.weight if status.run and not idle else 0
    fields: dict[str, Any] = {
        "meta": Meta("shop", "web", OURS),
        "status": status,
        "spec": a_spec(),
        "target": a_target("v1" if idle and status.phase is not Phase.FAILED else "v2"),
        "service": Service("web", manifest={"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        "replicasets": (a_set("v1"),) if idle else (a_set("v1"), twin(status.run.replicas if status.run else 2)),
        "pods": pods("v1", REPLICAS) + (() if idle else twin_pods(status.run.replicas if status.run else 2)),
        "mesh": acknowledged(weight),
    }
    return Snapshot(**{**fields, **parts})


def analysing(stage: str = plan.JUDGE, **parts: Any) -> Snapshot:
    """A candidate at the first step, 10 %, with whatever differs. ``run_`` parts go into the run."""
    changes = {key.removeprefix("run_"): parts.pop(key) for key in list(parts) if key.startswith("run_")}
    phase = parts.pop("phase", Phase.ANALYSING)
    status_changes = parts.pop("status_changes", {})
    return a_snapshot(a_status(phase, a_run(stage, **changes), **status_changes), **parts)


def promoting(stage: str, **parts: Any) -> Snapshot:
    """A candidate that passed all steps and has as many pods as the target."""
    weight = parts.pop("run_weight", 10 if stage == plan.SCALE else 100)
    fields = {"run_weight": weight, "run_step": 3, "run_replicas": REPLICAS, "phase": Phase.PROMOTING}
    opened = stage in (plan.OPEN, plan.ADOPT, plan.RELEASE)
    body = {"pods": pods("v1", REPLICAS) + twin_pods(REPLICAS, gate_open=opened, ready=opened)}
    return analysing(stage, **{**fields, **body, **parts})


def adopted(stage: str = plan.RELEASE, **parts: Any) -> Snapshot:
    """A candidate whose ReplicaSet the target has taken, its own older one at 0."""
    body = {
        "replicasets": (a_set("v1", 0), a_set("v2")),
        "pods": pods("v2", REPLICAS, tracked=True, gate_open=True),
    }
    return promoting(stage, **{**body, **parts})


READY, PREPARING, ANALYSING, WAITING = Phase.READY, Phase.PREPARING, Phase.ANALYSING, Phase.WAITING
PROMOTING, RESTORING, ROLLING_BACK, FAILED = Phase.PROMOTING, Phase.RESTORING, Phase.ROLLING_BACK, Phase.FAILED
GONE = {"replicasets": (a_set("v1"),), "pods": pods("v1", REPLICAS)}
"""The candidate has left."""


def failed(cause: Reason = Reason.ROLLED_BACK, words: str = "success rate 40 %", **parts: object) -> Snapshot:
    """A Canary whose candidate ``v2`` was refused and is gone; the target holds ``v2``."""
    run = a_run("", weight=0, cause=cause.value, cause_message=words)
    changes = {"status": a_status(FAILED, run, rejected=V2), "target": a_target("v2"), **GONE, **parts}
    return a_snapshot(**changes)  # type: ignore[arg-type]


def rolling_back(stage: str = plan.SHIFT, cause: Reason = Reason.ROLLED_BACK, **parts: object) -> Snapshot:
    fields = {"run_weight": 0, "run_cause": cause.value, "run_cause_message": "success rate 40 %"}
    return analysing(stage, phase=ROLLING_BACK, **{**fields, **parts})


def restoring(stage: str, **parts: object) -> Snapshot:
    """``v2`` is the stable version by now."""
    weight = 100 if stage == plan.SETTLE else 0
    changes = {"stable": Promoted(revision=V2, at=ago(5)), "history": [Promoted(revision=V1, at=ago(3600))]}
    fields = {
        "phase": RESTORING,
        "run_weight": weight,
        "status_changes": changes,
        "target": a_target("v2", paused=False, settled=True),
        "mesh": acknowledged(weight, shifted=True),
    }
    return adopted(stage, **{**fields, **parts})


def numbered(replicaset: ReplicaSet) -> ReplicaSet:
    """The ReplicaSet, once the target's controller has taken it for the newest."""
    metadata = {**replicaset.manifest["metadata"], "annotations": {REVISION_NUMBER: "2"}}
    return replace(replicaset, manifest={**replicaset.manifest, "metadata": metadata})


STAGES_OF_A_RUN = {
    "preparing": analysing(plan.SCALE, phase=PREPARING, run_weight=0),
    "scaling for a step": analysing(plan.SCALE, run_step=1),
    "shifting": analysing(plan.SHIFT),
    "judging": analysing(),
    "waiting": analysing(phase=WAITING),
    "scaling for the promotion": promoting(plan.SCALE),
    "shifting all traffic": promoting(plan.SHIFT),
    "entering the Service": promoting(plan.OPEN),
    "about to be adopted": promoting(plan.ADOPT),
}
STAGES_BEYOND = {
    "adopted": adopted(plan.ADOPT, replicasets=(a_set("v1", 2), a_set("v2"))),
    "released": adopted(plan.RELEASE, replicasets=(a_set("v1", 2), a_set("v2"))),
    "rolling out natively": promoting(plan.NATIVE, run_native=True, replicasets=(a_set("v1", 2), a_set("v2", 2))),
    "putting the routes back": restoring(plan.SETTLE, mesh=acknowledged(100)),
}
"""A candidate that can be taken back, and one that cannot, at every stage."""


def ordered(verb: str, **fields: Any) -> dict[str, str]:
    """Annotations that carry one request."""
    command = Command(**{"token": f"token-{verb}", "by": "ada", "at": ago(1), **fields, "verb": verb})
    return dict([command.annotation()])


def meta(**changes: Any) -> Meta:
    return Meta(**{"namespace": "shop", "name": "web", "uid": OURS, **changes})


def look(snapshot: Snapshot, now: datetime = NOW) -> Decision:
    return decide(snapshot, now)


def reason_of(decision: Decision) -> Reason:
    return Reason(next(c.reason for c in decision.status.conditions if c.type == "Ready"))


def is_stalled(decision: Decision) -> bool:
    return any(c.type == "Stalled" and c.status == "True" for c in decision.status.conditions)
