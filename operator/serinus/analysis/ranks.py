"""A user's gauge of both versions: how often the candidate's number is beyond the line.

Every half minute at most, the candidate's number is compared with the line, the stable version's number of the same
moment plus what is allowed. The candidate is harmful when it is shown to be beyond that line more often than half of
the time, and safe when it is shown to be beyond it less often.

Only the order counts, as in the tests of Mann and Whitney and of the sign, so the gauges may be distributed in any way;
and what moves both versions alike, such as the hour of the day, cancels in each comparison. Both tests bet on the next
comparison: a stake at odds ``q`` to ``1 - q`` is multiplied by ``2q`` where the bet was right and by ``2(1 - q)`` where
it was wrong. While the chance of being right is at most one half, whatever came before, such a stake is not expected to
grow; so a mixture of stakes over several ``q`` exceeds ``1 / alpha`` in no more than ``alpha`` of all runs, however
often it is looked at.

What is assumed: the chance that the candidate's number is beyond the line is at most one half *given the comparisons
before*. Gauges that wander slowly (memory, caches) are not like that from one second to the next. That is why the pace
is slow, and why no single comparison counts for more than ``ln 2``: at ``alpha = 0.01`` it takes four minutes at least.

Half the stake on harm bets from the first comparison on, the rest begins later, for leaks that take their time.

Sources: Mann, Whitney, "On a test of whether one of two random variables is stochastically larger than the other",
Annals of Mathematical Statistics 18 (1947); Dixon, Mood, "The statistical sign test", Journal of the American
Statistical Association 41 (1946); Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
inference", 2023, arXiv 2210.01948 (tests by betting).
"""

import math
from typing import Any

from serinus.analysis.model import Finding, Reading, Verdict
from serinus.analysis.questions import Gap, gap, questions, value_of
from serinus.analysis.settings import Settings
from serinus.analysis.words import count, plain
from serinus.api.analysis import GaugeQuery, UserMetric

EVERY_S = 30.0
"""Least time between two comparisons."""
BETS = (0.6, 0.75, 0.9, 0.99)
"""The chances, of being beyond the line or within it, that are bet on."""
_STAKE = 0.5
"""Share of the stake on harm that bets from the first comparison on."""


class SignTest:
    """Both bets on a sequence of comparisons. All numbers are natural logarithms of what the stakes have become.

    The later stakes on harm begin with the ``n``-th comparison, with ``1 / ((n - 1) n)`` of what is not bet at first;
    ``1 / n`` of it is left then.
    """

    def __init__(self) -> None:
        self.comparisons = 0
        self.beyond = 0
        self._harm = [math.log(_STAKE)] * len(BETS)
        self._safe = [0.0] * len(BETS)

    def take(self, beyond: bool) -> None:
        """Take in one comparison."""
        self.comparisons += 1
        self.beyond += beyond
        if self.comparisons > 1:
            begun = math.log((1 - _STAKE) / ((self.comparisons - 1) * self.comparisons))
            self._harm = [_log_sum((stake, begun)) for stake in self._harm]
        self._harm = [stake + _grown(chance, beyond) for stake, chance in zip(self._harm, BETS, strict=True)]
        self._safe = [stake + _grown(chance, not beyond) for stake, chance in zip(self._safe, BETS, strict=True)]

    def harm(self) -> float:
        """Return the evidence for harm."""
        left = math.log((1 - _STAKE) / max(self.comparisons, 1))
        return _log_sum((_log_sum(self._harm) - math.log(len(BETS)), left))

    def safe(self) -> float:
        """Return the evidence for safety."""
        return _log_sum(self._safe) - math.log(len(BETS))

    def needed(self, level: float) -> int:
        """Return how many comparisons in a row, all within the line, would bring the evidence for safety to a level."""
        stakes, more = self._safe, 0
        while _log_sum(stakes) - math.log(len(BETS)) < level:
            stakes = [stake + _grown(chance, True) for stake, chance in zip(stakes, BETS, strict=True)]
            more += 1
        return more

    def dump(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"comparisons": self.comparisons, "beyond": self.beyond, "harm": self._harm, "safe": self._safe}

    @classmethod
    def load(cls, raw: dict[str, Any]) -> "SignTest":
        """Return what was dumped.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        test = cls()
        test.comparisons, test.beyond = int(raw["comparisons"]), int(raw["beyond"])
        test._harm, test._safe = [float(stake) for stake in raw["harm"]], [float(stake) for stake in raw["safe"]]
        if {len(test._harm), len(test._safe)} != {len(BETS)}:
            raise ValueError("the stakes are those of other bets")
        return test


class RankTest:
    """The test of one metric. Comparisons begin ``warm_up_s`` after the candidate's first number."""

    def __init__(self, metric: UserMetric, gauge: GaugeQuery, settings: Settings):
        self._name = metric.name
        self._asked = questions(metric)
        self._increase_pct = gauge.max_increase
        self._warm_up_s = settings.warm_up_s
        self._signs = SignTest()
        self._sequences: list[int] = []
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._numbers: tuple[float, float] | None = None
        self._gap: Gap | None = None

    def restore(self, raw: dict[str, Any]) -> None:
        """Go on from what ``dump`` returned.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        signs, sequences = SignTest.load(raw["signs"]), list(raw["sequences"])
        self._first_s, self._last_s, self._sequences, self._signs = raw["first"], raw["last"], sequences, signs

    def dump(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {
            "signs": self._signs.dump(),
            "sequences": self._sequences,
            "first": self._first_s,
            "last": self._last_s,
        }

    def take(self, answers: dict[str, Reading], now_s: float) -> None:
        """Take in the last answer to each query, at ``now_s`` seconds of the run."""
        self._gap = gap(self._asked, answers)
        if self._gap is not None:
            return
        candidate, stable = (value_of(answers[question.name]) or 0.0 for question in self._asked)
        self._numbers = candidate, stable
        if self._first_s is None:
            self._first_s = now_s
        sequences = [answers[question.name].sequence for question in self._asked]
        again = any(now == then for now, then in zip(sequences, self._sequences, strict=False))
        soon = self._last_s is not None and now_s - self._last_s < EVERY_S
        if again or soon or now_s - self._first_s < self._warm_up_s:
            return
        self._signs.take(candidate > self._line(stable))
        self._sequences, self._last_s = sequences, now_s

    def _line(self, stable: float) -> float:
        return stable + abs(stable) * self._increase_pct / 100

    def finding(self, settings: Settings) -> Finding:
        """Return what the comparisons say."""
        harm = self._signs.harm() >= -math.log(settings.alpha)
        safe = self._signs.safe() >= -math.log(settings.beta)
        verdict = Verdict.HARM if harm else Verdict.SAFE if safe else Verdict.UNDECIDED
        if verdict is not Verdict.HARM and self._gap and not (self._gap.idle and verdict is Verdict.SAFE):
            verdict = Verdict.UNDECIDED
        limit = "at most stable's" + (f" + {self._increase_pct:g} %" if self._increase_pct else "")
        candidate, stable = self._numbers or (None, None)
        outcome = self._gap.outcome if self._gap else "Value" if self._numbers else ""
        sentence = f"{self._name}: {self._sentence(verdict, limit, settings)}"
        return Finding(self._name, verdict, candidate, stable, limit, outcome, sentence)

    def _sentence(self, verdict: Verdict, limit: str, settings: Settings) -> str:
        parts = []
        if self._numbers is not None:
            candidate, stable = self._numbers
            parts.append(f"{plain(candidate)} (stable {plain(stable)})")
        if self._signs.comparisons:
            times = count(self._signs.comparisons, "comparison")
            parts.append(f"beyond the limit, {limit}, in {self._signs.beyond:,} of {times}")
        if verdict is Verdict.HARM:
            parts.append(f"chance alone does that in less than {settings.alpha:.2g} of all runs")
        if self._gap is not None:
            parts.append(self._gap.words)
        elif not self._signs.comparisons:
            parts.append("the comparisons begin when the candidate is warmed up")
        elif verdict is Verdict.UNDECIDED:
            more = count(self._signs.needed(-math.log(settings.beta)), "more comparison")
            parts.append(f"{more} within the limit would show that it is safe, one in {EVERY_S:g} s")
        return "; ".join(parts)


def _grown(chance: float, right: bool) -> float:
    return math.log(2 * chance if right else 2 * (1 - chance))


def _log_sum(logs: list[float] | tuple[float, ...]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(each - most) for each in logs))
