"""The bench of the fault gate: pairs of versions under the same fault, played through the product's own judgement.

A pair is what share of the requests fails under the fault, of the stable version and of the candidate. Each is played
at 10, 100 and 1000 requests a second, with 20, 5 and 1 % of them for each of the two groups, scrape by scrape.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from serinus.analysis.faultgate import judge_gate
from serinus.analysis.gatemodel import Ending, GateSample, GateSettings, GateStage
from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Verdict
from serinus.simulation.bars import Bar, share_bar

SCRAPE_S = 2.0
LOADS = ((10.0, 0.20), (100.0, 0.05), (1000.0, 0.01))
"""Requests a second, and the share of them that each group gets."""
_FAST, _SLOW = LATENCY_EDGES_MS.index(10.0), LATENCY_EDGES_MS.index(2500.0)
_EDGES = tuple(LATENCY_EDGES_MS.index(edge) for edge in (25.0, 100.0, 500.0, 2500.0))
"""What ``slow_edges`` gives for a service that answers within 10 ms."""
_BEFORE = Evidence(Counts(500, 1), Counts(5000, 10))
"""What both versions did before the fault: 0.2 % of their requests failed."""
_EQUAL_FAILED, _BIG_MISSED, _ODD_MISSED = 0.01, 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """What both versions do under the fault: shares of failed requests, calls for each request, and shares after it.

    ``kind`` is ``equal``, ``big`` (must be found), ``odd`` (a storm of retries, slow answers, or no recovery) or
    ``between``. ``slow`` are shares of answers that take between one and two and a half seconds.
    """

    name: str
    stable: float
    candidate: float
    kind: str
    calls: tuple[float, float] = (1.0, 1.0)
    after: tuple[float, float] = (0.002, 0.002)
    slow: tuple[float, float] = (0.002, 0.002)


def _pair(stable: float, candidate: float, kind: str) -> Pair:
    return Pair(f"{100 * stable:g} % and {100 * candidate:g} %", stable, candidate, kind)


PAIRS = (
    _pair(0.002, 0.002, "equal"),
    _pair(0.002, 0.02, "between"),
    _pair(0.002, 0.05, "between"),
    _pair(0.002, 0.10, "big"),
    _pair(0.002, 0.30, "big"),
    _pair(0.05, 0.05, "equal"),
    _pair(0.05, 0.10, "between"),
    _pair(0.05, 0.25, "big"),
    _pair(0.30, 0.30, "equal"),
    _pair(0.30, 0.45, "between"),
    _pair(0.30, 0.90, "big"),
    Pair("storm of retries", 0.002, 0.002, "odd", calls=(3.0, 1.0)),
    Pair("slow answers", 0.002, 0.002, "odd", slow=(0.30, 0.002)),
    Pair("slow answers of both", 0.002, 0.002, "equal", slow=(0.30, 0.30)),
    Pair("no recovery", 0.002, 0.002, "odd", after=(0.30, 0.002)),
    Pair("no recovery of either", 0.002, 0.002, "equal", after=(0.30, 0.30)),
)


@dataclass(slots=True)
class PairCell:
    """What came of all experiments with one pair at one load; ``spent`` are failed requests of both groups."""

    pair: Pair
    rate: float
    failed: int = 0
    passed: int = 0
    budget: int = 0
    open: int = 0
    seconds: list[float] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many experiments were made."""
        return len(self.seconds)


def cells(runs: int, seed: int, pairs: Iterable[Pair] = PAIRS) -> Iterator[PairCell]:
    """Play every pair at every load, ``runs`` experiments each, and yield what came of them."""
    for rate, share in LOADS:
        for pair in pairs:
            cell = PairCell(pair, rate)
            rng = np.random.default_rng([seed, round(rate), PAIRS.index(pair)])
            for _ in range(runs):
                _play(cell, rate * share, rng)
            yield cell


def _play(cell: PairCell, rate: float, rng: np.random.Generator) -> None:
    settings, pair = GateSettings(slow_edges=_EDGES), cell.pair
    verdict, ending, took_s, spent = _stage(settings, GateStage.FAULT, (pair.candidate, pair.stable), pair, rate, rng)
    if verdict is Verdict.SAFE:
        left = settings.for_recovery(spent)
        verdict, ending, more_s, more = _stage(left, GateStage.RECOVERY, pair.after, pair, rate, rng)
        took_s, spent = took_s + more_s, spent + more
    cell.failed += verdict is Verdict.HARM
    cell.passed += verdict is Verdict.SAFE
    cell.budget += ending is Ending.BUDGET
    cell.open += ending not in (Ending.NONE, Ending.BUDGET)
    cell.seconds.append(took_s)
    cell.spent.append(spent)


def _stage(
    settings: GateSettings,
    stage: GateStage,
    shares: tuple[float, float],
    pair: Pair,
    rate: float,
    rng: np.random.Generator,
) -> tuple[Verdict, Ending, float, int]:
    """Return how a stage ends: verdict, ending, seconds, failed requests of both groups."""
    requests, failures, slow, calls = [0, 0], [0, 0], [0, 0], [0, 0]
    state: dict[str, object] = {}
    at_s = 0.0
    while True:
        at_s += SCRAPE_S
        for arm in (0, 1):
            new = int(rng.poisson(rate * SCRAPE_S))
            requests[arm] += new
            failures[arm] += int(rng.binomial(new, shares[arm]))
            calls[arm] += int(rng.poisson(new * pair.calls[arm]))
            slow[arm] += int(rng.binomial(new, pair.slow[arm]))
        arms = Evidence(*map(_counts, requests, failures, slow))
        sample = GateSample(stage, arms, before=_BEFORE, calls=(calls[0], calls[1]), at_s=at_s)
        judgement = judge_gate(settings, sample, state)
        state = judgement.state
        if judgement.verdict is not Verdict.UNDECIDED or judgement.ending is not Ending.NONE:
            return judgement.verdict, judgement.ending, at_s, judgement.spent


def _counts(requests: int, failures: int, slow: int) -> Counts:
    buckets = [0] * (len(LATENCY_EDGES_MS) + 1)
    buckets[_FAST], buckets[_SLOW] = requests - slow, slow
    return Counts(requests, failures, tuple(buckets))


def pair_bars(found: Iterable[PairCell]) -> list[Bar]:
    """Return the bars that the gate has to clear."""
    every = list(found)

    def of(kind: str) -> list[tuple[str, int, int]]:
        chosen = [cell for cell in every if cell.pair.kind == kind]
        missed = [cell.failed if kind == "equal" else cell.runs - cell.failed for cell in chosen]
        names = [f"{cell.pair.name} at {cell.rate:g}/s" for cell in chosen]
        return list(zip(names, missed, [cell.runs for cell in chosen], strict=True))

    return [
        share_bar(of("equal"), _EQUAL_FAILED, "Equal versions failed by the fault gate ≤ 1 % in every pair"),
        share_bar(of("big"), _BIG_MISSED, "Versions that cope much worse not failed ≤ 1 % in every pair"),
        share_bar(of("odd"), _ODD_MISSED, "Storms of retries, slow answers and lack of recovery not failed ≤ 5 %"),
    ]


def pair_table(found: Iterable[PairCell]) -> str:
    """Return a Markdown table, one line for each cell."""
    heads = (
        "requests/s",
        "failed under the fault: stable and candidate",
        "failed / passed / budget / open",
        "seconds, median",
        "bad responses, mean (95th percentile)",
        "a probe ≥ 99 % / ≥ 95 % lets it through",
    )
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for cell in found:
        ends = (cell.failed, cell.passed, cell.budget, cell.open)
        shares = " / ".join(_percent(number / cell.runs) for number in ends)
        spent = f"{fmean(cell.spent):.0f} ({np.quantile(cell.spent, 0.95):.0f})"
        probes = " / ".join("yes" if cell.pair.candidate <= 1 - limit else "no" for limit in (0.99, 0.95))
        lines.append(
            f"| {cell.rate:g} | {cell.pair.name} | {shares} | {median(cell.seconds):.0f} | {spent} | {probes} |"
        )
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "0 %"
