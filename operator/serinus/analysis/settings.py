"""What the sequential engine goes by: every number, and the three profiles that set them.

A *row* is one kind of bad request that is tested: failed, slower than an edge, or bad by a metric of the user's. Rows
of one family share that family's ``alpha``.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Margin:
    """A line ``p_c = rho * p_b + delta``: up to it the candidate is no worse than declared."""

    rho: float = 1.0
    delta: float = 0.0


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What the candidate must be shown to be below, from ``after_s`` seconds of the run on.

    That is the greater of ``rho`` times stable's share of bad requests, and stable's plus ``delta``.
    """

    after_s: float = 0.0
    rho: float = 1.0
    delta: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of bad request. ``edge`` is the index of the latency edge it is counted at, None for failed requests.

    ``promise`` is the line beyond which the candidate is harmful, ``tolerances`` what it may be declared safe at.
    """

    family: str
    promise: Margin
    tolerances: tuple[Tolerance, ...]
    edge: int | None = None
    outage: bool = False
    """Whether a share of bad requests that is an outage is looked for at every scrape."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every number of the engine. Shares are between 0 and 1, times in seconds, evidence in nats (natural logarithm).

    ``alpha`` is the chance, over a whole run with its watch, that one family of metrics rolls a release back that keeps
    its promise; ``beta`` that a release is called safe that is at the tolerance in force.
    """

    alpha: float = 0.01
    beta: float = 0.05
    effects: tuple[float, ...] = (1.4, 2.0, 4.0, 12.0, 60.0)
    """By how much the odds of a bad request exceed the promise, in the alternatives that bet on harm."""
    block_s: float = 1.5
    """Least length of a block of requests, which the tests multiply: a scrape, as they come every two seconds or so."""
    cap: float = 2.5
    """Most evidence for harm at once. What was used of it comes back by ``refill`` a second, so that a hiccup of ten
    seconds decides nothing, however many requests it hits."""
    refill: float = 0.2
    sustained_s: float = 24.0
    """After so many seconds in which every block had more evidence for harm than was let in, it is no hiccup: then
    ``refill`` is ten times as much. What a hiccup gave that was over before is taken back."""
    outage: Margin = Margin(0.7, 0.3)
    """A candidate beyond this line is out; that is tested at every scrape, not only at every block."""
    outage_cap: float = 5.5
    """Most evidence for an outage of one scrape: two must agree."""
    least: int = 5
    """So many requests of each version are in a block, or it is made longer, to ``longest_s`` at most."""
    longest_s: float = 60.0
    restart_s: float = 60.0
    """How often the tests begin anew beside those that run, for defects that begin late."""
    memory_s: float = 1800.0
    """How long stable's shares are remembered for the alternatives."""
    warm_up_s: float = 180.0
    """So long after its first requests only what is far beyond the promise counts against the candidate, the weight
    does not rise, and nothing counts for it."""
    warm_factor: float = 5.0
    warm_effect: float = 10.0
    suspicion: float = 4.0
    """Evidence for harm, as a factor, at which the weight does not rise."""
    # The weight
    budget: float = 10.0
    """Bad requests that are risked until the release would be stopped, were it as bad as the evidence still allows."""
    budget_share: float = 0.25
    """The same, as a share of stable's own bad requests in that time."""
    reaction_s: float = 30.0
    first_pct: tuple[int, int] = (1, 10)
    """The first weight is what the budget allows, within these bounds."""
    growth: float = 3.0
    dwell_s: float = 30.0
    fewest: int = 20
    """So many requests at a weight before it rises."""
    most_pct: int = 50
    last_s: float = 60.0
    """How long the greatest weight is held at least."""
    shortest_s: float = 180.0
    """How long a run is at least."""


PROMISE = Margin(1.2, 0.0001)
PROMISE_LATENCY = Margin(1.1, 0.001)
TOLERANCES = (
    Tolerance(0, 1.5, 0.001),
    Tolerance(600, 2.0, 0.0025),
    Tolerance(1200, 2.0, 0.005),
    Tolerance(2400, 2.0, 0.01),
)
TOLERANCES_LATENCY = (Tolerance(0, 1.25, 0.01), Tolerance(600, 1.4, 0.015), Tolerance(1200, 1.5, 0.02))


@dataclass(frozen=True, slots=True)
class Profile:
    """Settings and margins that go together, and how long a promoted candidate is watched."""

    settings: Settings
    promise: Margin = PROMISE
    promise_latency: Margin = PROMISE_LATENCY
    tolerances: tuple[Tolerance, ...] = TOLERANCES
    tolerances_latency: tuple[Tolerance, ...] = TOLERANCES_LATENCY
    watch_s: float = 1800.0
    hold_back_pct: int = 5


PROFILES = {
    "Standard": Profile(Settings()),
    "Fast": Profile(
        Settings(warm_up_s=60.0, shortest_s=90.0, last_s=30.0, dwell_s=20.0),
        tolerances=(Tolerance(0, 2.0, 0.005), Tolerance(600, 2.0, 0.01)),
        tolerances_latency=(Tolerance(0, 1.4, 0.015),),
        watch_s=600.0,
    ),
    "Strict": Profile(
        Settings(budget=3.0, shortest_s=600.0, last_s=120.0),
        tolerances=(Tolerance(0, 1.5, 0.0005),),
        tolerances_latency=(Tolerance(0, 1.25, 0.005),),
        watch_s=3600.0,
        hold_back_pct=20,
    ),
}
"""What ``spec.analysis.profile`` names."""
