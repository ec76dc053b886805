"""From scrapes to evidence: puts requests together into blocks, measures how stable's pods differ, feeds the engine.

The same code runs for one Canary in the operator and for hundreds of simulated releases side by side.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.dispersion import SPAN_S, Dispersion, Drift
from serinus.analysis.engine import Arms, Engine, Readout, State
from serinus.analysis.evalues import Floats
from serinus.analysis.settings import Row, Settings

_RATE_MEMORY_S = 60.0
_NEVER = -1.0
_EARLY_S = 0.5
"""Scrapes come a little early or late; the last one of a stretch may."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What was counted since the last scrape: both arms, and the failures and requests of stable's halves, (4, N).

    ``candidates`` and ``stables`` are the numbers of pods, (N,).
    """

    arms: Arms
    halves: Floats
    candidates: Floats
    stables: Floats


@dataclass(slots=True)
class Watched:
    """All that is known of the releases that are watched. Shapes as in ``State``; (N,) where not said otherwise."""

    state: State
    dispersion: Dispersion
    drift: Drift
    block: Arms
    """Requests of the block under way."""
    halves: Floats
    """(4, N): failures and requests of stable's halves, until they are compared."""
    stretch: Arms
    """All requests in that time."""
    halves_s: float
    """How long that is."""
    outage: Arms
    """Requests since the last look for an outage."""
    open_s: Floats
    """How long the block under way is open."""
    unlooked_s: Floats
    """How long ago an outage was last looked for."""
    first_s: Floats
    """Second of the run at which the scrape began that saw the candidate's first request; -1 before."""
    rate: Floats
    """Requests a second to both versions."""
    now_s: float = 0.0


class Monitor:
    """Evidence about releases, from their scrapes."""

    def __init__(self, settings: Settings, rows: tuple[Row, ...]):
        self.settings = settings
        self.engine = Engine(settings, rows)

    def start(self, runs: int, before: Arms | None = None, rate: float = 0.0) -> Watched:
        """Return what is known before the first scrape: at most what stable did ``before``, and its ``rate``."""
        rows = len(self.engine.rows)
        return Watched(
            state=self.engine.start(runs, before),
            dispersion=Dispersion.start(runs),
            drift=Drift.start(rows, runs),
            stretch=Arms.none(rows, runs),
            block=Arms.none(rows, runs),
            halves=np.zeros((4, runs)),
            halves_s=0.0,
            outage=Arms.none(rows, runs),
            open_s=np.zeros(runs),
            unlooked_s=np.zeros(runs),
            first_s=np.full(runs, _NEVER),
            rate=np.full(runs, rate),
        )

    def warm(self, watched: Watched, at_s: Floats | float) -> NDArray[np.bool_]:
        """Return whether the candidate was warmed up at this second of the run."""
        begun = watched.first_s >= 0
        return begun & (at_s - watched.first_s >= self.settings.warm_up_s)

    def take(self, watched: Watched, scrape: Scrape, now_s: float) -> Readout:
        """Take in one scrape, at ``now_s`` seconds of the run; ``watched`` is changed in place."""
        length_s = max(now_s - watched.now_s, 0.0)
        watched.now_s = now_s
        answered = scrape.arms.n_c[0] > 0
        watched.first_s = np.where((watched.first_s < 0) & answered, now_s - length_s, watched.first_s)
        share = 1 - np.exp(-length_s / _RATE_MEMORY_S) if length_s else 0.0
        present = (scrape.arms.n_c[0] + scrape.arms.n_b[0]) / max(length_s, 1e-9)
        watched.rate = np.where(watched.rate > 0, watched.rate + share * (present - watched.rate), present)
        self._compare_halves(watched, scrape, length_s)
        self._look_for_outage(watched, scrape, length_s)
        self._fill_block(watched, scrape, length_s, now_s)
        return self.engine.read(watched.state, now_s)

    def _compare_halves(self, watched: Watched, scrape: Scrape, length_s: float) -> None:
        watched.halves = watched.halves + scrape.halves
        watched.stretch = watched.stretch + scrape.arms
        watched.halves_s += length_s
        if watched.halves_s >= SPAN_S - _EARLY_S:
            watched.dispersion.add(*watched.halves)
            watched.drift.add(watched.stretch.counts)
            watched.halves, watched.halves_s = np.zeros_like(watched.halves), 0.0
            watched.stretch = Arms.none(*watched.stretch.n_c.shape)

    def _look_for_outage(self, watched: Watched, scrape: Scrape, length_s: float) -> None:
        watched.outage = watched.outage + scrape.arms
        watched.unlooked_s = watched.unlooked_s + length_s
        due = self._due(watched.outage, watched.unlooked_s, 0.0)
        if due.any():
            self.engine.scrape(watched.state, watched.outage.only(due))
            watched.outage = watched.outage.only(~due)
            watched.unlooked_s = np.where(due, 0.0, watched.unlooked_s)

    def _fill_block(self, watched: Watched, scrape: Scrape, length_s: float, now_s: float) -> None:
        watched.block = watched.block + scrape.arms
        watched.open_s = watched.open_s + length_s
        due = self._due(watched.block, watched.open_s, self.settings.block_s)
        if not due.any():
            return
        failing = watched.dispersion.between(scrape.candidates, scrape.stables)
        slow = watched.drift.between(scrape.candidates, scrape.stables, watched.state.known_bad / watched.state.known)
        failed = np.array([row.edge is None for row in self.engine.rows])[:, None]
        kappas = np.where(failed, failing, slow)
        lengths = np.where(due, watched.open_s, 0.0)
        warm = self.warm(watched, now_s - lengths)
        self.engine.block(watched.state, watched.block.only(due), now_s, warm, kappas, lengths)
        watched.block = watched.block.only(~due)
        watched.open_s = np.where(due, 0.0, watched.open_s)

    def _due(self, arms: Arms, open_s: Floats, shortest_s: float) -> NDArray[np.bool_]:
        """Return which blocks are at an end: by their length and the numbers of requests, never by how these went."""
        least = self.settings.least
        enough = (arms.n_c[0] >= least) & (arms.n_b[0] >= least)
        long = open_s >= self.settings.longest_s - 1e-9
        return np.asarray((open_s >= shortest_s - 1e-9) & (open_s > 0) & (enough | long))


@lru_cache(maxsize=1024)
def monitor_of(settings: Settings, rows: tuple[Row, ...]) -> Monitor:
    """Return the monitor for these rows, which holds no counts: one serves every Canary that is tested alike."""
    return Monitor(settings, rows)
