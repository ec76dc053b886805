"""One release in virtual time: the product's own ``decide`` and ``project``, a simulated cluster, a simulated service.

The operator looks when it wants to, and when something changes in the cluster; in between time passes, requests are
answered, and every two seconds the callers' counters are read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf

import numpy as np

from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, ExperimentStatus, MetricStatus, Phase, Promoted
from serinus.api.status import Reason
from serinus.delivery import plan
from serinus.delivery.decide import decide
from serinus.delivery.model import Decision, stamp
from serinus.delivery.moves import TICK_S
from serinus.delivery.project import project
from serinus.simulation.cluster import Cluster, Delays
from serinus.simulation.coping import Failing, failing
from serinus.simulation.counter import Arm, Counter
from serinus.simulation.traffic import TrafficModel
from serinus.simulation.world import World

HORIZON_S = 7200.0
"""How long a release is followed."""
HISTORY_S = 3600.0
"""How long the callers had called the stable version before the run."""
_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_LOOK_S, _SOON_S = 0.01, 0.25
"""How long one look takes, and after which time a change of the operator's own is looked at."""


class Ending(StrEnum):
    """How a release stands in the end."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    UNDECIDED = "Undecided"


@dataclass(frozen=True, slots=True)
class Moment:
    """A tick of two seconds that ends at ``second``.

    ``weight_pct`` is the share of the requests that the candidate got. ``evidence`` are harm and safety by metric, in
    percent of what it takes to roll back and to pass; None where there is none yet.
    """

    second: float
    weight_pct: float
    phase: str
    candidate: Arm
    stable: Arm
    evidence: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Happening:
    """An Event that the operator posted, and when."""

    second: float
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Release:
    """How a release went. All times are seconds since the begin of the run.

    ``passed_s`` is when the candidate had passed, and its watch or its promotion began; ``ended_s`` when it was
    promoted, or when it was decided to roll it back; None where that did not come to be. ``message`` says why.
    ``bad_responses`` are those that the defects caused, in expectation, to ``followed_s``, those after a promotion
    included; ``failed_responses`` are all failures of both versions that were seen until the release was over, those of
    experiments included. ``weights`` are the shares of the requests in percent, each with the time from which it was in
    force; while an experiment has requests of its own, of the others.
    """

    seed: int
    ending: Ending
    message: str
    passed_s: float | None
    ended_s: float | None
    followed_s: float
    bad_responses: float
    failed_responses: int
    weights: tuple[tuple[float, float], ...]
    metrics: tuple[MetricStatus, ...]
    moments: tuple[Moment, ...]
    happenings: tuple[Happening, ...]
    experiments: tuple[ExperimentStatus, ...] = ()


def simulate(
    spec: CanarySpec,
    model: TrafficModel,
    seed: int,
    *,
    name: str = "canary",
    horizon_s: float = HORIZON_S,
    history_s: float = HISTORY_S,
    delays: Delays | None = None,
) -> Release:
    """Return how a release goes: from the held template to its end, or to the horizon.

    Args:
        spec: the Canary. No query of its users' metrics is answered.
        model: the service; its ``pods.stable`` are the Deployment's replicas.
        seed: another one gives another history of the same world.
        name: of the Canary, as it stands in messages.
        horizon_s: how long the release is followed, in seconds.
        history_s: how long the stable version had been called before, in seconds.
        delays: how long the cluster takes for things.
    """
    play = _Play(spec, model, seed, name, horizon_s, delays or Delays())
    play.learn(history_s)
    play.run()
    return play.release()


class _Play:
    """A release while it is played."""

    def __init__(
        self, spec: CanarySpec, model: TrafficModel, seed: int, name: str, horizon_s: float, delays: Delays
    ) -> None:
        self._model = model
        self._seed = seed
        self._horizon_s = horizon_s
        self._cluster = Cluster(spec, model.pods.stable, name, delays)
        self._world = World(model, 1, seed, TICK_S)
        self._counter = Counter(model.pods.stable, seed)
        self._spec = spec
        stable = Promoted(revision=self._cluster.stable_revision, at=stamp(_at(-HISTORY_S)))
        self._status = CanaryStatus(phase=Phase.READY, stable=stable)
        self._now_s = 0.0
        self._requests_s = 0.0
        """Integral of the candidate's share since the last scrape, in percent times seconds."""
        self._hurt = 0.0
        self._passed_s: float | None = None
        self._ended_s: float | None = None
        self._ending, self._message = Ending.UNDECIDED, ""
        self._weights: list[tuple[float, float]] = [(0.0, 0.0)]
        self._moments: list[Moment] = []
        self._happenings: list[Happening] = []

    def learn(self, history_s: float) -> None:
        """Play the time before the run."""
        self._counter.learn(self._world.past(history_s))

    def run(self) -> None:
        """Play until the release is over, or to the horizon; a bad release that was promoted goes on hurting."""
        while self._now_s < self._horizon_s:
            next_s = self._look()
            if self._over or next_s == inf:
                break
            self._pass(min(next_s, self._horizon_s))
        if self._ending is Ending.PROMOTED and self._model.defects:
            while self._now_s < self._horizon_s:
                self._pass(min(self._now_s + TICK_S, self._horizon_s), watched=False)

    @property
    def _over(self) -> bool:
        return self._status.phase in (Phase.READY, Phase.FAILED) and self._ended_s is not None

    def _look(self) -> float:
        """Let the operator look once, and do what it decides; return when it looks again."""
        now_s = self._now_s
        age_s = now_s - self._world.now_s
        totals, arms = self._counter.totals(age_s), self._counter.arms(age_s)
        snapshot = self._cluster.snapshot(self._status, totals, arms, now_s)
        decision = decide(snapshot, _at(now_s))
        before, self._status = self._status, decision.status
        changed = self._cluster.obey(project(replace(snapshot, status=decision.status)), now_s)
        self._note(before, decision)
        after_s = inf if decision.after_s is None else max(decision.after_s, _LOOK_S)
        if changed or (decision.after_s is None and decision.status != before):
            after_s = min(after_s, _SOON_S)
        return round(min(now_s + after_s, self._cluster.next_change_s(now_s)), 3)

    def _note(self, before: CanaryStatus, decision: Decision) -> None:
        status, run = decision.status, decision.status.run
        self._happenings += [Happening(self._now_s, each.reason, each.message) for each in decision.events]
        if run is None:
            self._message = status.message
            return
        if self._passed_s is None and status.phase in (Phase.WATCHING, Phase.PROMOTING):
            self._passed_s = self._now_s
        if status.phase is Phase.ROLLING_BACK and before.phase is not Phase.ROLLING_BACK:
            self._ending, self._ended_s, self._message = Ending.ROLLED_BACK, self._now_s, run.cause_message
        elif any(event.reason is Reason.PROMOTED for event in decision.events):
            self._ending, self._ended_s, self._message = Ending.PROMOTED, self._now_s, self._why_passed()
        elif self._ended_s is None:
            self._message = status.message
        if self._moments and self._ended_s in (None, self._now_s):
            evidence = {metric.name: (metric.harm, metric.safe) for metric in run.metrics}
            self._moments[-1] = replace(self._moments[-1], phase=str(status.phase), evidence=evidence)

    def _why_passed(self) -> str:
        metrics = self._status.run.metrics if self._status.run else []
        return "; ".join(metric.message for metric in metrics if metric.verdict == "Safe") or self._message

    def _pass(self, until_s: float, *, watched: bool = True) -> None:
        """Let the time pass until ``until_s``, before which nothing changes but what requests are answered."""
        while (scrape_s := self._world.now_s + TICK_S) <= until_s + 1e-9:
            self._serve(scrape_s)
            self._scrape(watched)
        self._serve(until_s)
        self._now_s = until_s
        self._cluster.advance(until_s)
        share = self._cluster.share_pct
        if share != self._weights[-1][1]:
            self._weights.append((until_s, share))

    def _serve(self, until_s: float) -> None:
        self._requests_s += self._cluster.share_pct * (until_s - self._now_s)
        self._now_s = until_s

    def _scrape(self, watched: bool) -> None:
        weight_pct = min(self._requests_s / TICK_S, 100.0)
        self._requests_s = 0.0
        tick = self._world.tick(np.array([weight_pct]), self._cluster.ready(self._now_s), self._cluster.arms_pct)
        self._hurt += float(tick.hurt[0])
        if watched:
            injected = self._cluster.groups.injected
            candidate, stable = self._counter.take(tick, TICK_S, self._failing(), injected=injected)
            weight = round(weight_pct, 3)
            self._moments.append(Moment(self._now_s, weight, str(self._status.phase), candidate, stable))

    def _failing(self) -> Failing | None:
        """Return what happens where the experiment that is under way lets calls fail."""
        run = self._status.run
        found = plan.experiment_at(self._spec, run.step) if run and run.stage in plan.EXPERIMENT else None
        return failing(self._model.faults, found[0].name) if found else None

    def release(self) -> Release:
        """Return how it went."""
        run = self._status.run
        return Release(
            seed=self._seed,
            ending=self._ending,
            message=self._message,
            passed_s=self._passed_s,
            ended_s=self._ended_s,
            followed_s=self._now_s,
            bad_responses=self._hurt,
            failed_responses=self._counter.failures,
            weights=tuple(self._weights),
            metrics=tuple(run.metrics) if run else (),
            moments=tuple(self._moments),
            happenings=tuple(self._happenings),
            experiments=tuple(run.experiments) if run else (),
        )


def _at(second: float) -> datetime:
    return _BEGIN + timedelta(seconds=second)
