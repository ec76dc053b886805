"""What the fault gate is given and gives: settings, counts of both arms, and the judgement. Loads nothing large."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import log
from typing import Any

from serinus.analysis.model import Evidence, Finding, Verdict
from serinus.analysis.settings import Margin

ERRORS, SLOW, CALLS, RECOVERY = "errors", "slow", "calls", "recovery"
STAKES = {ERRORS: 0.85, SLOW: 0.05, CALLS: 0.05, RECOVERY: 0.05}
"""How ``alpha`` is divided: most of it goes to what the gate is for."""

_RESERVE = 20
"""One of so many requests of the budget are kept for the recovery, beyond the budget where need be."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Every number of the gate. Shares are between 0 and 1, times in seconds, evidence in nats."""

    alpha: float = 0.01
    beta: float = 0.05
    harm: Margin = field(default_factory=lambda: Margin(1.2, 0.01))
    safe: Margin = field(default_factory=lambda: Margin(1.5, 0.03))
    most_calls: float = 1.25
    budget: int = 200
    least_s: float = 30.0
    longest_s: float = 300.0
    recovery_s: float = 60.0
    silent_s: float = 60.0
    """An arm without a request for so long gets none."""
    slow_edges: tuple[int, ...] = ()
    """Indices of the latency edges beyond which an answer is slow, in rising order; none: latency is not judged."""
    block_s: float = 1.5
    """Least length of a block of requests: a scrape, as they come every two seconds or so."""
    fewest: int = 8
    """So many requests of each arm are in a block, or it is made longer, to ``longest_block_s`` at most: the projection
    is for the sizes of a block's arms, and costs most where they differ much by chance."""
    longest_block_s: float = 10.0
    cap: float = 2.0
    """Most evidence of one block, so that no hiccup of one pod decides: three blocks must agree, or one that was read
    late and whose requests failed for as long as three."""
    suspicion: float = 4.0
    """Evidence for harm, as a factor, at which nothing passes yet."""

    def for_recovery(self, spent: int) -> "GateSettings":
        """Return what is left for the time after a fault that cost ``spent`` requests: no latency, and a small reserve.

        Without a reserve, a service that is fragile in both versions would be stopped there by a few failures.
        """
        return replace(self, budget=max(-(-self.budget // _RESERVE), self.budget - spent), slow_edges=())

    @property
    def slow(self) -> tuple[str, ...]:
        """Names of the tests of slow answers, one for each edge."""
        return tuple(f"{SLOW}/{edge}" for edge in self.slow_edges)

    def threshold(self, name: str) -> float:
        """Return the evidence at which a hypothesis fails the candidate."""
        return -log(self.alpha * STAKES[name])


class GateStage(StrEnum):
    """Where an experiment stands: calls fail, or do not any more."""

    FAULT = "Fault"
    RECOVERY = "Recovery"


class Ending(StrEnum):
    """Why an experiment must end without a verdict."""

    NONE = ""
    BUDGET = "Budget"  # as many requests failed as were risked
    TIME = "Time"  # it took too long to tell
    NO_TRAFFIC = "NoTraffic"  # an arm got too few requests
    SPILL_OVER = "SpillOver"  # requests outside of the arms fail since the fault began
    NOT_BY_FAULT = "NotByTheFault"  # the candidate is worse, and just as much without the fault


@dataclass(frozen=True, slots=True)
class GateSample:
    """What was counted since the stage began: by the arms, by the clean versions, and by those before the fault.

    ``calls`` are the arms' calls to the dependency, the candidate's first; ``at_s`` is how long the stage goes on.
    """

    stage: GateStage
    arms: Evidence
    clean: Evidence = field(default_factory=Evidence)
    before: Evidence = field(default_factory=Evidence)
    calls: tuple[int, int] = (0, 0)
    at_s: float = 0.0

    @property
    def spent(self) -> int:
        """Requests of both arms that failed or were given up, without as many as do anyway, by the share before."""
        failed = self.arms.candidate.unserved + self.arms.stable.unserved
        pairs = (self.arms.candidate, self.before.candidate), (self.arms.stable, self.before.stable)
        usual = sum(arm.requests * before.unserved / before.requests for arm, before in pairs if before.requests)
        return max(0, failed - round(usual))


@dataclass(frozen=True, slots=True)
class GateJudgement:
    """HARM: the candidate copes worse; SAFE: it copes no worse, or has recovered as well; with what that rests on.

    ``difference`` is by how many percentage points more the candidate lost by the fault than stable did: estimate, and
    bounds that hold at all times at once with about 95 %. ``spent`` are failed requests of both arms
    (``GateSample.spent``).
    """

    verdict: Verdict
    message: str
    ending: Ending = Ending.NONE
    findings: tuple[Finding, ...] = ()
    difference: tuple[float, float, float] | None = None
    spent: int = 0
    state: dict[str, Any] = field(default_factory=dict)
