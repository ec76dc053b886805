"""What the evidence reader would have reached in a simulated release: both versions, and an experiment's two groups."""

from dataclasses import dataclass

from serinus.analysis.model import Counts, Evidence
from serinus.api.base import seconds
from serinus.delivery.model import ArmTotals, Totals
from serinus.simulation.coping import Failing, Groups
from serinus.simulation.world import ArmCounts, Tick

_READER = "simulation"


@dataclass(frozen=True, slots=True)
class Arm:
    """What the scrapes saw of one version in one tick."""

    requests: int = 0
    failures: int = 0


class Counter:
    """Adds ticks up."""

    def __init__(self, stable_pods: int, seed: int) -> None:
        self._stable_pods = stable_pods
        self._before = Counts()
        self._total = Evidence()
        self._halves = ((0, 0), (0, 0))
        self._groups = Groups.start(seed)
        self._met: Failing | None = None
        """What the groups' pods have met; None as long as nothing failed on purpose."""
        self._over_s = 0.0
        """How long ago that stopped."""
        self.failures = 0
        """Failed requests of both versions, those of the groups included."""

    def learn(self, past: ArmCounts) -> None:
        """Take in what the stable version did before the run."""
        self._before = _counts(past)

    def take(self, tick: Tick, tick_s: float, failing: Failing | None, *, injected: bool) -> tuple[Arm, Arm]:
        """Add a tick; return what was new of candidate and stable.

        Args:
            tick: what would have happened if nothing had failed on purpose.
            tick_s: its length, in seconds.
            failing: what happens where an experiment lets calls fail; None without an experiment.
            injected: whether it lets calls fail now.
        """
        self._meet(tick, tick_s, failing if injected else None)
        spill = failing.spill_over if failing and injected else 0.0
        candidate, one, two = (
            self._groups.failed(_counts(arm), spill) if spill else _counts(arm)
            for arm in (tick.candidate, *tick.stable)
        )
        stable = one + two
        self._total = Evidence(self._total.candidate + candidate, self._total.stable + stable)
        (tries_1, bad_1), (tries_2, bad_2) = self._halves
        self._halves = (
            (tries_1 + one.requests, bad_1 + one.failures),
            (tries_2 + two.requests, bad_2 + two.failures),
        )
        self.failures += candidate.failures + stable.failures
        for group, arm in enumerate(tick.arms or ()):
            way = self._met.both[group] if self._met else None
            shows = way is not None and (injected or self._over_s <= seconds(way.recovers_after))
            self.failures += self._groups.take(group, _counts(arm), way if shows else None).failures
        return Arm(candidate.requests, candidate.failures), Arm(stable.requests, stable.failures)

    def _meet(self, tick: Tick, tick_s: float, failing: Failing | None) -> None:
        """Remember what the groups' pods meet. Where they get no requests they are gone, and the next ones are new."""
        self._over_s = 0.0 if failing else self._over_s + tick_s
        self._met = (failing or self._met) if tick.arms else None

    def totals(self, age_s: float) -> Totals:
        """Return what was counted of both versions; the last scrape was so long ago."""
        return Totals(
            _READER,
            self._total,
            halves=self._halves,
            before=self._before,
            stable_pods=self._stable_pods if self._total.stable.requests else 0,
            age_s=age_s,
        )

    def arms(self, age_s: float) -> ArmTotals:
        """Return what was counted of an experiment's two groups."""
        counted, calls = self._groups.counted, self._groups.calls
        return ArmTotals(_READER, Evidence(*counted), (calls[0], calls[1]), age_s)


def _counts(arm: ArmCounts) -> Counts:
    return Counts(int(arm.requests[0]), int(arm.failures[0]), tuple(arm.buckets[:, 0].tolist()))
