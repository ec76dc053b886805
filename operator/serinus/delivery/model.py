"""The state of the world that a decision is made on, and what a decision is. All immutable; all gathered elsewhere."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from serinus.analysis.model import Counts, Evidence, Reading
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus
from serinus.api.status import Reason


@dataclass(frozen=True, slots=True)
class Meta:
    """The Canary's own metadata."""

    namespace: str
    name: str
    uid: str = ""
    generation: int = 1
    annotations: dict[str, str] = field(default_factory=dict)
    deleted_at: str = ""
    """When its deletion was asked for, RFC 3339; empty while it lives."""


@dataclass(frozen=True, slots=True)
class Target:
    """The Deployment that is released. ``revision`` is the hash of ``template``."""

    name: str
    uid: str
    resource_version: str
    template: dict[str, Any]
    revision: str
    replicas: int
    selector: dict[str, str]
    paused: bool = False
    labelled: bool = False
    break_glass: bool = False
    settled: bool = False
    """Whether its controller has seen its spec, and all its pods are of its template and available."""


@dataclass(frozen=True, slots=True)
class ReplicaSet:
    """A ReplicaSet of the target's or of ours. ``revision`` is the hash of its template, as the target's would be."""

    name: str
    uid: str
    pod_hash: str
    revision: str
    owner_uid: str
    replicas: int
    pods: int
    manifest: dict[str, Any]
    failure: str = ""
    """Why it cannot create pods, in the controller's words; empty when it can."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the target or of a twin."""

    name: str
    pod_hash: str
    containers_ready: bool = False
    ready: bool = False
    gate_open: bool = False
    terminating: bool = False
    tracked: bool = False
    trouble: str = ""
    """Why a container waits or ended, in the kubelet's words, such as ``ImagePullBackOff``."""


@dataclass(frozen=True, slots=True)
class Service:
    """The Service through which callers reach the target. ``unusable`` says why it cannot carry a canary."""

    name: str
    unusable: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """The HorizontalPodAutoscaler on the target. ``frozen`` tells whether our freeze of its scale-in is in force."""

    name: str
    frozen: bool


@dataclass(frozen=True, slots=True)
class Mesh:
    """How far the sidecars are. ``weight`` is what was last published to them; None when nothing was.

    ``candidates`` is the number of candidate endpoints that were published. ``settled`` is False just after the start,
    while sidecars may not have come back yet.
    """

    weight: int | None = None
    candidates: int = 0
    shifted: bool = False
    """Whether the published stable endpoints include the pods of the candidate's revision."""
    arms: int = 0
    """How many endpoints each of an experiment's two groups has among those that were published, at least."""
    arms_pct: int = 0
    """Which share of the requests each of them was given."""
    connected: int = 0
    acknowledged: int = 0
    laggards: tuple[tuple[str, float], ...] = ()
    rejections: tuple[str, ...] = ()
    settled: bool = True

    @property
    def complete(self) -> bool:
        """Whether every connected sidecar has what was published."""
        return self.settled and not self.rejections and self.acknowledged >= self.connected


class Unread(NamedTuple):
    """A sidecar that gives no statistics, by ``namespace/pod``, and why in words."""

    pod: str
    why: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What one reader of the counters has added up since it began.

    ``reader`` tells readers apart; every process has others. Totals of different readers add up, those of one replace
    each other. ``halves`` are tries and failures of two halves of the stable version's pods (A/A); ``stable_pods`` were
    tried at all.
    ``before`` is what the callers had counted for the stable version when each first answered: not evidence, only
    history. After a restart of the operator the run's own beginning is part of it, and its failures and latencies reach
    back only to when the stable cluster was last sent anew, as when the Canary came.
    ``age_s`` is how long ago the counters were read last. ``outcome`` and ``trouble`` name why they cannot be, and are
    empty while they can. Of ``asked`` sidecars the ``unread`` have given no answer for a while.
    """

    reader: str
    evidence: Evidence
    halves: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    before: Counts = field(default_factory=Counts)
    stable_pods: int = 0
    age_s: float = 0.0
    outcome: str = ""
    trouble: str = ""
    asked: int = 0
    unread: tuple[Unread, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmTotals:
    """What one reader has counted of an experiment's two groups since it began: their tries, and their own calls.

    ``calls`` are those to the dependency, the candidate's group first. ``age_s`` is how long ago that was read.
    """

    reader: str
    evidence: Evidence
    calls: tuple[int, int] = (0, 0)
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Dependency:
    """The Service that an experiment lets fail. ``refusal`` says why it may not; ``busy`` names who does so already.

    ``through`` sidecars send their calls by where the fault would happen, in ``injecting`` of them it does.
    """

    refusal: str = ""
    busy: str = ""
    through: int = 0
    injecting: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a decision looks at, gathered at one moment. Missing things are None."""

    meta: Meta
    status: CanaryStatus
    spec: CanarySpec | None = None
    problems: tuple[str, ...] = ()
    target: Target | None = None
    service: Service | None = None
    replicasets: tuple[ReplicaSet, ...] = ()
    pods: tuple[Pod, ...] = ()
    autoscaler: Autoscaler | None = None
    rival: str = ""
    """Name of an older Canary that has the same target."""
    obstacles: tuple[str, ...] = ()
    """Objects in the way of a twin: a Service that publishes not-ready addresses."""
    mesh: Mesh = Mesh()
    totals: Totals | None = None
    readings: tuple[Reading, ...] = ()
    arms: ArmTotals | None = None
    dependency: Dependency | None = None

    @property
    def twin(self) -> ReplicaSet | None:
        """The ReplicaSet of the present run's candidate, owned by us or already by the target."""
        run = self.status.run
        return next((rs for rs in self.replicasets if run and rs.pod_hash == run.pod_hash), None)

    @property
    def twins(self) -> tuple[ReplicaSet, ...]:
        """All ReplicaSets that we own."""
        return tuple(rs for rs in self.replicasets if rs.owner_uid == self.meta.uid)

    @property
    def targets_own(self) -> tuple[ReplicaSet, ...]:
        """All ReplicaSets that the target owns."""
        return tuple(rs for rs in self.replicasets if self.target and rs.owner_uid == self.target.uid)

    def ready_of(self, revision: str) -> int:
        """Return how many pods of a revision in the target's own ReplicaSets are ready."""
        hashes = {rs.pod_hash for rs in self.targets_own if rs.revision == revision}
        return sum(pod.ready and not pod.terminating and pod.pod_hash in hashes for pod in self.pods)

    @property
    def candidates(self) -> tuple[Pod, ...]:
        """The pods of the present run's candidate that are not about to end."""
        run = self.status.run
        return tuple(pod for pod in self.pods if run and pod.pod_hash == run.pod_hash and not pod.terminating)


@dataclass(frozen=True, slots=True)
class Event:
    """An Event to post about the Canary."""

    reason: Reason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a snapshot: the status to persist, Events, and when to look again (None: when told).

    ``finished`` is True when a Canary that is being deleted has nothing left to undo.
    """

    status: CanaryStatus
    events: tuple[Event, ...] = ()
    after_s: float | None = None
    finished: bool = False


def stamp(now: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, to the millisecond."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def since(moment: str, now: datetime) -> float:
    """Return the seconds from a moment written by ``stamp`` to ``now``; 0 for an empty one."""
    if not moment:
        return 0.0
    return max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
