"""The bench: every policy in every scenario. Here is who takes part in what; processes and files are the caller's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from serinus.api.analysis import Analysis
from serinus.api.canary import CanarySpec, TargetRef
from serinus.simulation.bars import Bar, Names, bars
from serinus.simulation.contest import play
from serinus.simulation.ours import Serinus
from serinus.simulation.peers import POLICIES
from serinus.simulation.policy import Policy
from serinus.simulation.scenarios import CANDIDATE_PODS, SCENARIOS, STABLE_PODS, Kind, Scenario
from serinus.simulation.scoring import Cell, score

OURS, KNOWN, FAST = "serinus", "serinus, dispersion known", "serinus, Fast"
_HELD_OUT_SEED = 7919
"""What is added to the seed for scenarios that are held out."""


class Subset(StrEnum):
    """How much is played."""

    CI = "ci"
    FULL = "full"


RUNS = {Subset.CI: 50, Subset.FULL: 300}
"""Releases of each good scenario; of a bad one it is half as many."""

_CI_RATES = (100.0, 1000.0)
_CI_SCENARIOS = (
    "identical, 0.1 %",
    "bursts",
    "pods differ, cv 0.5",
    "cold start",
    "counters reset",
    "errors step while weights shift",
    "outage, 0.1 %",
    "+1 point, 0.1 %",
    "+5 points, 0.1 %",
    "latency x1.3, 0.1 %",
    "slow tail, 0.1 %",
    "errors x5, 1 %",
    "+5 points after 10 min",
    "at the promise, 1 %",
)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy, made anew for every cell, and the kinds of scenarios that it is played in."""

    name: str
    make: Callable[[], Policy]
    kinds: frozenset[Kind]


def spec_of(profile: str) -> CanarySpec:
    """Return the Canary whose user has written nothing but a profile."""
    analysis = Analysis.model_validate({"profile": profile})
    return CanarySpec(target_ref=TargetRef(name="web"), analysis=analysis)


def _ours(name: str, profile: str, learned: bool = False) -> Callable[[], Policy]:
    return lambda: Serinus(name, spec_of(profile), CANDIDATE_PODS, STABLE_PODS, learned)


_JUDGED = frozenset({Kind.GOOD, Kind.CLEAR, Kind.OTHER})
CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(OURS, _ours(OURS, "Standard"), frozenset(Kind)),
        Contestant(KNOWN, _ours(KNOWN, "Standard", learned=True), _JUDGED),
        Contestant(FAST, _ours(FAST, "Fast"), frozenset({Kind.GOOD})),
        *(Contestant(name, make, _JUDGED) for name, make in POLICIES.items()),
    )
}
"""All policies, by name."""
NAMES = Names(OURS, FAST, tuple(POLICIES))


@dataclass(frozen=True, slots=True)
class Job:
    """One cell to be played. ``scenario`` is an index into ``SCENARIOS``."""

    contestant: str
    scenario: int
    rate: float
    runs: int
    seed: int

    def what(self) -> str:
        """Return what it is about, for people."""
        return f"{self.contestant}: {SCENARIOS[self.scenario].name} at {self.rate:g}/s"


def jobs(subset: Subset, seed: int, runs: int | None = None, contestants: Sequence[str] = ()) -> list[Job]:
    """Return the cells of a subset, in the order of the table.

    Args:
        subset: which scenarios and rates.
        seed: of the worlds; those of scenarios that are held out come from it, too.
        runs: releases of each good scenario, else as many as the subset has.
        contestants: names of policies; all, when there is none.

    Raises:
        KeyError: a policy that is not known.
    """
    chosen = [CONTESTANTS[name] for name in contestants or CONTESTANTS]
    good = runs or RUNS[subset]
    return [
        Job(
            contestant.name,
            index,
            rate,
            good if scenario.kind in (Kind.GOOD, Kind.LINE) else max(1, good // 2),
            seed + (_HELD_OUT_SEED if scenario.held_out else 0),
        )
        for index, scenario in enumerate(SCENARIOS)
        for rate in _rates(scenario, subset)
        for contestant in chosen
        if scenario.kind in contestant.kinds
    ]


def _rates(scenario: Scenario, subset: Subset) -> tuple[float, ...]:
    if subset is Subset.FULL:
        return scenario.rates
    return _CI_RATES if scenario.name in _CI_SCENARIOS and not scenario.held_out else ()


def run(job: Job) -> Cell:
    """Play one cell. The same job gives the same numbers, in any process."""
    scenario = SCENARIOS[job.scenario]
    policy = CONTESTANTS[job.contestant].make()
    return score(job.contestant, scenario, job.rate, play(policy, scenario.traffic(job.rate), job.runs, job.seed))


@dataclass(frozen=True, slots=True)
class Table:
    """All that came out: cells in the order of their jobs, and the bars."""

    subset: Subset
    seed: int
    cells: tuple[Cell, ...]
    bars: tuple[Bar, ...]

    @property
    def unmet(self) -> tuple[Bar, ...]:
        """The bars that were measured and are not met."""
        return tuple(bar for bar in self.bars if bar.met is False)


def tabulate(subset: Subset, seed: int, cells: Iterable[Cell]) -> Table:
    """Return the table of these cells."""
    every = tuple(cells)
    return Table(subset, seed, every, tuple(bars(every, NAMES)))
