"""What a rule for releases looks like to the bench: asked at every tick, it sets weights and outcomes."""

from enum import IntEnum
from typing import Protocol

from serinus.simulation.world import FloatArray, IntArray, Tick


class Outcome(IntEnum):
    """How a simulated release stands."""

    RUNNING = 0
    ROLLED_BACK = 1
    PROMOTED = 2


class Policy(Protocol):
    """A rule, for many releases side by side. All arrays have the shape (runs,); a release that ended stays ended."""

    name: str
    """What it is called in tables."""
    tick_s: float
    """How often it is asked, in seconds."""
    weight_pct: FloatArray
    """The candidate's weight that it asks for, in percent."""
    outcome: IntArray
    """``Outcome`` of each release."""

    def start(self, runs: int) -> None:
        """Begin so many releases."""

    def step(self, now_s: float, tick: Tick) -> None:
        """Look at what happened in the last ``tick_s`` seconds, at ``now_s`` seconds of the release."""
