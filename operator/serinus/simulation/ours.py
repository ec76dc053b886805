"""Serinus itself as a policy of the bench: its own tests and its own advice, for many releases side by side.

What ``serinus.analysis.judge`` and ``serinus.delivery.running`` do for one release from one look to the next is done
here for all of them at once, by the same functions; a test holds the two against each other. Settings, rows, latency
edges and watch are those of a Canary's spec.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.advice import Advice, advise
from serinus.analysis.dispersion import SPAN_S, Dispersion
from serinus.analysis.engine import Arms, Readout
from serinus.analysis.evalues import Floats
from serinus.analysis.guards import SETTLED_S, SHARE_FACTOR, SHARE_POINTS, share_hold
from serinus.analysis.model import Counts, Evidence, Sample
from serinus.analysis.monitor import Monitor, Scrape, Watched
from serinus.analysis.ramp import first_weight
from serinus.analysis.rows import ABANDONED, ERRORS, MOST_HISTORY, choose_edges, fewest, plan_of, settings_of
from serinus.analysis.settings import Row
from serinus.api.canary import CanarySpec
from serinus.delivery import plan
from serinus.delivery.moves import TICK_S
from serinus.simulation.policy import Outcome
from serinus.simulation.world import ArmCounts, Tick

PREPARING_S = 20.0
"""How long it takes until the candidate's pods are ready. Meanwhile the tests see the stable version."""

Indices = NDArray[np.intp]


@dataclass(slots=True)
class _Group:
    """Releases whose metrics are tested by the same rows: which they are, and what the tests have come to."""

    indices: Indices
    monitor: Monitor
    watched: Watched


class Serinus:
    """Releases of one Canary. ``weight_pct`` and ``outcome`` are as in ``Policy``; all arrays have the shape (runs,).

    ``passed_s`` is when a release passed and its watch began, in seconds, NaN before; ``peaks`` is the most evidence
    for harm that each family of metrics ever had, in nats.
    """

    tick_s = TICK_S

    def __init__(
        self,
        name: str,
        spec: CanarySpec,
        candidate_pods: int,
        stable_pods: int,
        learned: bool = False,
    ) -> None:
        """Make the policy.

        Args:
            name: what it is called in tables.
            spec: the Canary.
            candidate_pods: pods of the candidate.
            stable_pods: pods of the stable version.
            learned: whether the history also tells how stable's pods differ among themselves. The product begins to
                measure that with the run.
        """
        self.name = name
        self._spec = spec
        self._pods = float(candidate_pods), float(stable_pods)
        self._learned = learned
        self._fewest = fewest(spec, settings_of(spec))
        watch = plan.legs(spec)[-1]
        self._watch_weight, self._watch_s = float(watch.weight or 0), watch.hold_s

    def start(self, runs: int) -> None:
        """Begin so many releases."""
        self.weight_pct = np.zeros(runs)
        self.outcome = np.full(runs, Outcome.RUNNING)
        self.passed_s = np.full(runs, np.nan)
        self.peaks: dict[str, Floats] = {}
        self._at_weight_s = np.zeros(runs)
        self._requests = np.zeros((2, runs))
        self._groups: list[_Group] = []

    def learn(self, history: Iterable[Tick]) -> None:
        """Take in what the stable version did before the run, tick by tick; the last of it while pods get ready."""
        preparing, later = round(PREPARING_S / self.tick_s), deque[Tick]()
        before = _Before(len(self.weight_pct), round(SPAN_S / self.tick_s))
        for tick in history:
            later.append(tick)
            if len(later) > preparing:
                before.add(later.popleft())
        self._groups = [self._group(indices, before) for indices in self._alike(before)]
        for number, tick in enumerate(later, 1):
            for group in self._groups:
                group.monitor.take(group.watched, self._scrape(group, tick), number * self.tick_s)
        for group in self._groups:
            first = first_weight(group.monitor.settings, group.watched.rate)
            self.weight_pct[group.indices] = np.maximum(first, 1.0)

    def step(self, now_s: float, tick: Tick) -> None:
        """Look at one scrape and set weights and outcomes."""
        self._at_weight_s += self.tick_s
        one, two = tick.stable
        self._requests += np.stack([tick.candidate.requests, one.requests + two.requests])
        for group in self._groups:
            readout = group.monitor.take(group.watched, self._scrape(group, tick), now_s + PREPARING_S)
            at = group.indices
            advice = advise(
                group.monitor,
                group.watched,
                readout,
                self.weight_pct[at],
                self._at_weight_s[at],
                self._requests[0, at],
            )
            self._note(at, readout)
            self._obey(at, advice, now_s)

    def _note(self, at: Indices, readout: Readout) -> None:
        going = self.outcome[at] == Outcome.RUNNING
        for family, evidence in readout.harm.items():
            peak = self.peaks.setdefault(family, np.full(len(self.outcome), -np.inf))
            peak[at] = np.where(going, np.maximum(peak[at], evidence), peak[at])

    def _obey(self, at: Indices, advice: Advice, now_s: float) -> None:
        """Do what ``serinus.delivery.running`` does with a judgement."""
        going = self.outcome[at] == Outcome.RUNNING
        watching = ~np.isnan(self.passed_s[at])
        held = advice.suspicious | (self._requests[0, at] < self._fewest) | self._odd_share(at)
        harm = going & advice.harm
        passes = going & ~harm & ~watching & advice.done & ~held
        promoted = going & ~harm & watching & ~held & (self._at_weight_s[at] >= self._watch_s - 1e-9)
        if self._watch_s <= 0:
            promoted |= passes
        follows = np.where(going & ~watching & ~held, advice.weight_pct, self.weight_pct[at])
        follows = np.where(passes, self._watch_weight, follows)
        moved = follows != self.weight_pct[at]
        self._at_weight_s[at] = np.where(moved, 0.0, self._at_weight_s[at])
        self._requests[:, at] = np.where(moved, 0.0, self._requests[:, at])
        self.weight_pct[at] = follows
        self.passed_s[at] = np.where(passes, now_s, self.passed_s[at])
        self.outcome[at] = np.select([harm, promoted], [Outcome.ROLLED_BACK, Outcome.PROMOTED], self.outcome[at])

    def _odd_share(self, at: Indices) -> NDArray[np.bool_]:
        """Return where the candidate does not get its share of the requests, so that the release halts."""
        candidate, stable = self._requests[:, at]
        weight = self.weight_pct[at] / 100
        off = np.abs(candidate - weight * (candidate + stable))
        allowed = np.maximum(SHARE_FACTOR * weight, SHARE_POINTS) * (candidate + stable)
        going: NDArray[np.bool_] = self.outcome[at] == Outcome.RUNNING
        found: NDArray[np.bool_] = (off > allowed) & (self._at_weight_s[at] >= SETTLED_S) & going
        for index in np.flatnonzero(found):
            window = Evidence(Counts(int(candidate[index])), Counts(int(stable[index])))
            release = at[index]
            sample = Sample(
                window=window,
                weight_pct=int(self.weight_pct[release]),
                at_weight_s=float(self._at_weight_s[release]),
            )
            found[index] = bool(share_hold(sample))
        return found

    def _alike(self, before: "_Before") -> list[Indices]:
        """Return the releases that are tested by the same rows; these come from what stable did before."""
        alike: dict[tuple[Row, ...], list[int]] = {}
        for run in range(len(self.weight_pct)):
            counts = before.of(run)
            edges = choose_edges(self._spec.analysis.latency, counts)
            alike.setdefault(plan_of(self._spec, edges, counts).rows, []).append(run)
        return [np.array(runs) for runs in alike.values()]

    def _group(self, indices: Indices, before: "_Before") -> _Group:
        counts = before.of(int(indices[0]))
        chosen = plan_of(self._spec, choose_edges(self._spec.analysis.latency, counts), counts)
        monitor = Monitor(chosen.settings, chosen.rows)
        bad, requests = _column(chosen.rows, before.arm(indices))
        scale = np.minimum(1.0, MOST_HISTORY / np.maximum(requests, 1))
        nothing = np.zeros_like(bad)
        watched = monitor.start(len(indices), Arms.of(nothing, nothing, bad * scale, requests * scale))
        if self._learned:
            watched.dispersion = before.dispersion_of(indices)
        return _Group(indices, monitor, watched)

    def _scrape(self, group: _Group, tick: Tick) -> Scrape:
        rows, at = group.monitor.engine.rows, group.indices
        bad_c, n_c = _column(rows, _part(tick.candidate, at))
        stable = [_column(rows, _part(half, at)) for half in tick.stable]
        bad_b, n_b = stable[0][0] + stable[1][0], stable[0][1] + stable[1][1]
        candidates, stables = (np.full(len(at), pods) for pods in self._pods)
        return Scrape(Arms.of(bad_c, n_c, bad_b, n_b), _halves(tick)[:, at], candidates, stables)


class _Before:
    """What the stable version did before the run, for every run: all counts, and how its halves differed."""

    def __init__(self, runs: int, span: int) -> None:
        buckets = len(Counts().buckets)
        self._total = ArmCounts(np.zeros(runs, int), np.zeros(runs, int), np.zeros((buckets, runs), int))
        self._dispersion = Dispersion.start(runs)
        self._halves = np.zeros((4, runs))
        self._span, self._ticks = span, 0

    def add(self, tick: Tick) -> None:
        """Add a tick."""
        for half in tick.stable:
            total = self._total
            self._total = ArmCounts(
                total.requests + half.requests, total.failures + half.failures, total.buckets + half.buckets
            )
        self._halves += _halves(tick)
        self._ticks += 1
        if self._ticks % self._span == 0:
            self._dispersion.add(*self._halves)
            self._halves = np.zeros_like(self._halves)

    def dispersion_of(self, at: Indices) -> Dispersion:
        """Return what was measured for some runs."""
        sums = self._dispersion
        return Dispersion(sums.open[..., at], sums.excess[..., at], sums.scale[..., at], sums.blocks)

    def arm(self, at: Indices) -> ArmCounts:
        """Return the counts of some runs."""
        return _part(self._total, at)

    def of(self, run: int) -> Counts:
        """Return the counts of one run."""
        total = self._total
        return Counts(
            int(total.requests[run]), int(total.failures[run]), tuple(int(count) for count in total.buckets[:, run])
        )


def _part(arm: ArmCounts, at: Indices) -> ArmCounts:
    return ArmCounts(arm.requests[at], arm.failures[at], arm.buckets[:, at])


def _column(rows: tuple[Row, ...], arm: ArmCounts) -> tuple[Floats, Floats]:
    """Return bad requests and requests by row, (rows, runs). Failed ones have no latency; none is given up."""
    slower, none = arm.buckets[::-1].cumsum(axis=0)[::-1], np.zeros_like(arm.failures)
    failed = {ERRORS: arm.failures, ABANDONED: none}
    bad = [failed[row.family] if row.edge is None else slower[row.edge + 1] for row in rows]
    requests = [arm.requests if row.edge is None else slower[0] for row in rows]
    return np.array(bad, dtype=float), np.array(requests, dtype=float)


def _halves(tick: Tick) -> Floats:
    """Return failures and requests of stable's halves, as ``Scrape`` has them, (4, runs)."""
    one, two = tick.stable
    return np.array([one.failures, one.requests, two.failures, two.requests], dtype=float)
