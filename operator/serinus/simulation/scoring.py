"""What becomes of one policy in one scenario, as numbers, and scores of several scenarios together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log
from statistics import fmean, median_high

import numpy as np

from serinus.simulation.contest import Releases
from serinus.simulation.policy import Outcome
from serinus.simulation.scenarios import Kind, Scenario

LEVELS = (0.1, 0.05, 0.01)
"""Chances of a false alarm at which the evidence is checked: it may exceed the inverse no more often than that."""


@dataclass(frozen=True, slots=True)
class Cell:
    """How the releases of one policy went in one scenario at one rate.

    ``shipped`` have passed and were not taken back until the horizon; ``undecided`` were neither shipped nor rolled
    back. ``ship_s`` are the seconds until each release that was not rolled back had passed, infinite for the undecided;
    ``back_s`` those until each rollback; ``hurt`` the bad responses of each release. ``alarms`` counts, by family of
    metrics, the releases whose evidence for harm ever reached the inverse of each of ``LEVELS``.
    """

    policy: str
    scenario: str
    kind: Kind
    held_out: bool
    rate: float
    runs: int
    rolled_back: int
    shipped: int
    undecided: int
    ship_s: tuple[float, ...]
    back_s: tuple[float, ...]
    hurt: tuple[float, ...]
    alarms: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def false_rollback(self) -> float:
        """The share that was rolled back, 0 to 1; that is false where the scenario is good."""
        return self.rolled_back / self.runs

    @property
    def promoted(self) -> float:
        """The share that was shipped for good, 0 to 1; that is a miss where the scenario is bad."""
        return self.shipped / self.runs

    @property
    def open(self) -> float:
        """The share that is undecided at the horizon, 0 to 1."""
        return self.undecided / self.runs


def score(policy: str, scenario: Scenario, rate: float, releases: Releases) -> Cell:
    """Return the numbers of one cell."""
    back = releases.outcome == Outcome.ROLLED_BACK
    ship_s = np.where(np.isnan(releases.shipped_s), inf, releases.shipped_s)[~back]
    return Cell(
        policy=policy,
        scenario=scenario.name,
        kind=scenario.kind,
        held_out=scenario.held_out,
        rate=rate,
        runs=len(back),
        rolled_back=int(back.sum()),
        shipped=int(np.isfinite(ship_s).sum()),
        undecided=int(np.isinf(ship_s).sum()),
        ship_s=tuple(float(value) for value in np.sort(ship_s)),
        back_s=tuple(float(value) for value in np.sort(releases.ended_s[back])),
        hurt=tuple(float(value) for value in np.sort(releases.hurt)),
        alarms={
            family: tuple(int((peak >= log(1 / level)).sum()) for level in LEVELS)
            for family, peak in releases.peaks.items()
        },
    )


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the least of ``values``, sorted from small to great, that so many percent of them do not exceed.

    None without values, or when it is infinite.
    """
    if not values:
        return None
    found = values[max(0, int(np.ceil(percent / 100 * len(values))) - 1)]
    return found if isfinite(found) else None


def pooled_median(cells: Iterable[Cell]) -> float | None:
    """Return the median seconds until a release of these cells had passed; None when most have not."""
    every = [value for cell in cells for value in cell.ship_s]
    found = median_high(every) if every else inf
    return found if isfinite(found) else None


def mean_hurt(cells: Iterable[Cell]) -> float:
    """Return the mean bad responses of a release, every cell counting the same."""
    return fmean(fmean(cell.hurt) for cell in cells)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often the evidence of one family of metrics reached the inverse of each of ``LEVELS``, in so many runs."""

    scenario: str
    rate: float
    family: str
    runs: int
    alarms: tuple[int, ...]


def calibrations(cells: Iterable[Cell]) -> list[Calibration]:
    """Return how often evidence for harm was great where the candidate keeps its promise without any noise."""
    return [
        Calibration(cell.scenario, cell.rate, family, cell.runs, alarms)
        for cell in cells
        if cell.kind is Kind.LINE or (cell.kind is Kind.GOOD and cell.scenario.startswith("identical"))
        for family, alarms in cell.alarms.items()
    ]
