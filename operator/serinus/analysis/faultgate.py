"""The judgement of the fault gate: what both arms did under the same fault in, and whether the candidate copes worse.

The state of the tests comes with the call and goes back with the judgement, as plain JSON: the same sample on the same
state gives the same judgement, in another process and another year.
"""

from math import log
from typing import Any

import numpy as np

from serinus.analysis.findings import excess
from serinus.analysis.gatemodel import (
    CALLS,
    ERRORS,
    RECOVERY,
    SLOW,
    Ending,
    GateJudgement,
    GateSample,
    GateSettings,
    GateStage,
)
from serinus.analysis.gatetests import Block, GateTests
from serinus.analysis.guards import SURE
from serinus.analysis.latency import slower_than
from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Finding, Numbers, Verdict
from serinus.analysis.sequential import log_e_difference
from serinus.analysis.settings import Margin
from serinus.analysis.words import TIMES, count, milliseconds, percent

_SPILL_POINTS, _SPILL_FACTOR = 0.01, 0.5
"""Clean traffic has moved when its share of failures is above so many points plus so much of what it was before."""
_NEEDED = 20
"""With fewer requests of an arm than that, an experiment that has come to its end had no traffic."""


def judge_gate(settings: GateSettings, sample: GateSample, state: dict[str, Any]) -> GateJudgement:
    """Return what the evidence of an experiment says so far.

    Args:
        settings: what it is judged by.
        sample: what was counted since its stage began.
        state: ``GateJudgement.state`` of the last call in this stage; empty at the first.
    """
    tests, taken = _opened(settings, state)
    at_s = float(state.get("at_s", 0.0))
    since_s = sample.at_s - at_s
    block, known = _block(settings, sample, taken, since_s)
    whole = block is not None and min(block.n_c[0], block.n_b[0]) >= settings.fewest
    if block is not None and since_s >= (settings.block_s if whole else settings.longest_block_s):
        tests.take(block)
        taken, at_s = known, sample.at_s
    found = _findings(settings, sample, tests)
    difference = _difference(sample)
    verdict, ending, message = _verdict(settings, sample, tests, found, difference)
    kept = {"tests": tests.dump(), "taken": taken, "at_s": at_s}
    return GateJudgement(verdict, message, ending, tuple(found.values()), difference, sample.spent, kept)


def _opened(settings: GateSettings, state: dict[str, Any]) -> tuple[GateTests, list[int]]:
    if len(state.get("taken", ())) == 8 + 2 * len(settings.slow_edges):
        return GateTests.load(settings, state["tests"]), list(state["taken"])
    return GateTests.start(settings, 1), [0] * (8 + 2 * len(settings.slow_edges))


def _block(
    settings: GateSettings, sample: GateSample, taken: list[int], since_s: float
) -> tuple[Block | None, list[int]]:
    """Return what is new since ``taken``, ``since_s`` ago, once both arms have requests, and what is taken then."""
    both = (sample.arms.candidate, sample.arms.stable)
    known = [number for arm in both for number in (arm.unserved, arm.requests)]
    known += [sum(arm.buckets) for arm in both]
    known += sample.calls
    known += [slower_than(arm, edge) for arm in both for edge in settings.slow_edges]
    new = [max(0, now - before) for now, before in zip(known, taken, strict=True)]
    if not new[1] or not new[3]:
        return None, taken
    bad_c, n_c, bad_b, n_b, timed_c, timed_b, calls_c, calls_b = (np.array([float(each)]) for each in new[:8])
    slow_c, slow_b = np.array(new[8:], float).reshape(2, len(settings.slow_edges), 1)
    return Block(bad_c, n_c, bad_b, n_b, slow_c, timed_c, slow_b, timed_b, calls_c, calls_b, since_s), known


def _verdict(
    settings: GateSettings,
    sample: GateSample,
    tests: GateTests,
    found: dict[str, Finding],
    difference: tuple[float, float, float] | None,
) -> tuple[Verdict, Ending, str]:
    harmful = [finding for finding in found.values() if finding.verdict is Verdict.HARM]
    if harmful:
        if sample.stage is GateStage.FAULT and harmful[0].metric == ERRORS and not _by_the_fault(sample, difference):
            return _not_by_fault(settings, sample, harmful[0], difference)
        return Verdict.HARM, Ending.NONE, harmful[0].message
    moved = _spilled(sample)
    if moved:
        return Verdict.UNDECIDED, Ending.SPILL_OVER, moved
    if sample.stage is GateStage.RECOVERY:
        return _recovered(settings, sample, tests, found)
    if _passes(settings, sample, tests):
        return Verdict.SAFE, Ending.NONE, found[ERRORS].message
    ending = _over(settings, sample)
    return Verdict.UNDECIDED, ending, _words(settings, sample, ending, ERRORS, found)


def _by_the_fault(sample: GateSample, difference: tuple[float, float, float] | None) -> bool:
    """Whether the fault is to blame: the candidate is not shown to be worse without it, or is more so under it.

    It only adds to what harm takes, so it cannot add a false alarm.
    """
    without = excess(*_pair(sample.clean)) or excess(*_pair(sample.before))
    return without is None or difference is None or without[1] <= 0 or difference[1] > 0


def _not_by_fault(
    settings: GateSettings, sample: GateSample, harmful: Finding, difference: tuple[float, float, float] | None
) -> tuple[Verdict, Ending, str]:
    """What is worse without the fault as well is the main test's to judge, not the gate's."""
    alone = f", by the fault alone by {difference[0]:+.3g} points" if difference else ""
    message = f"{harmful.message}; but without the fault the candidate may be as much worse{alone}"
    over = sample.at_s >= settings.longest_s or sample.spent >= settings.budget
    return Verdict.UNDECIDED, Ending.NOT_BY_FAULT if over else Ending.NONE, message


def _passes(settings: GateSettings, sample: GateSample, tests: GateTests) -> bool:
    """Whether the candidate copes no worse: shown for failures, and nothing else is suspicious."""
    names = [ERRORS, SLOW] if settings.slow_edges else [ERRORS]
    shown = all(float(tests.safe(name)[0]) >= -log(settings.beta) for name in names)
    return shown and sample.at_s >= settings.least_s and not _suspicious(settings, tests)


def _suspicious(settings: GateSettings, tests: GateTests) -> bool:
    names = [ERRORS, CALLS, SLOW] if settings.slow_edges else [ERRORS, CALLS]
    return any(float(tests.harm(name)[0]) >= log(settings.suspicion) for name in names)


def _over(settings: GateSettings, sample: GateSample) -> Ending:
    fewest = min(sample.arms.candidate.requests, sample.arms.stable.requests)
    if sample.spent >= settings.budget:
        return Ending.BUDGET
    if sample.at_s >= settings.longest_s:
        return Ending.TIME if fewest >= _NEEDED else Ending.NO_TRAFFIC
    return Ending.NO_TRAFFIC if not fewest and sample.at_s >= settings.silent_s else Ending.NONE


def _words(settings: GateSettings, sample: GateSample, ending: Ending, name: str, found: dict[str, Finding]) -> str:
    seen = found[name].message
    if ending is Ending.BUDGET:
        return f"{sample.spent:,} requests failed, {settings.budget:,} were risked; {seen}"
    if ending is Ending.TIME:
        return f"{settings.longest_s:g} s did not suffice to tell; {seen}"
    if ending is Ending.NO_TRAFFIC:
        one, two = sample.arms.candidate.requests, sample.arms.stable.requests
        return f"the candidate's pods got {count(one, 'request')}, stable's {two:,}, within {sample.at_s:.0f} s"
    return seen


def _recovered(
    settings: GateSettings, sample: GateSample, tests: GateTests, found: dict[str, Finding]
) -> tuple[Verdict, Ending, str]:
    """Whether both arms are alike again: nothing has shown a difference in the time that is given to it."""
    seen = found[RECOVERY].message
    if sample.spent >= settings.budget:
        return Verdict.UNDECIDED, Ending.BUDGET, _words(settings, sample, Ending.BUDGET, RECOVERY, found)
    fewest = min(sample.arms.candidate.requests, sample.arms.stable.requests)
    if sample.at_s < settings.recovery_s:
        return Verdict.UNDECIDED, Ending.NONE, seen
    if not _suspicious(settings, tests) and fewest:
        return Verdict.SAFE, Ending.NONE, seen
    if sample.at_s < 2 * settings.recovery_s + settings.silent_s:
        return Verdict.UNDECIDED, Ending.NONE, seen
    return Verdict.UNDECIDED, Ending.TIME if fewest else Ending.NO_TRAFFIC, seen


def _spilled(sample: GateSample) -> str:
    """Return that requests outside of the arms fail since the fault began; empty while they do not."""
    for name, now, before in (
        ("stable version's", sample.clean.stable, sample.before.stable),
        ("candidate's", sample.clean.candidate, sample.before.candidate),
    ):
        if not before.requests:
            continue
        margin = _SPILL_POINTS + _SPILL_FACTOR * before.unserved / before.requests
        if log_e_difference(now.unserved, now.requests, before.unserved, before.requests, min(margin, 0.99)) >= SURE:
            shares = percent(_share(now)), percent(_share(before))
            return f"{shares[0]} of the {name} other requests fail since the fault began, before it were {shares[1]}"
    return ""


def _difference(sample: GateSample) -> tuple[float, float, float] | None:
    """Return the difference of both differences, under the fault and without it, in points, with its bounds.

    Source: as of ``serinus.analysis.findings.excess``, with the variances of all four shares.
    """
    under = excess(*_pair(sample.arms))
    without = excess(*_pair(sample.clean)) or excess(*_pair(sample.before))
    if under is None or without is None:
        return None
    half = ((under[2] - under[0]) ** 2 + (without[2] - without[0]) ** 2) ** 0.5
    middle = under[0] - without[0]
    return round(middle, 4), round(middle - half, 4), round(middle + half, 4)


def _pair(evidence: Evidence) -> tuple[int, int, int, int]:
    return (
        evidence.candidate.unserved,
        evidence.candidate.requests,
        evidence.stable.unserved,
        evidence.stable.requests,
    )


# -- what is shown


def _findings(settings: GateSettings, sample: GateSample, tests: GateTests) -> dict[str, Finding]:
    """Return one finding for each hypothesis of the stage."""
    fault = sample.stage is GateStage.FAULT
    found = {ERRORS: _errors(settings, sample, tests)} if fault else {RECOVERY: _errors(settings, sample, tests)}
    if settings.slow_edges and fault:
        found[SLOW] = _slow(settings, sample, tests)
    if fault and any(sample.calls):
        found[CALLS] = _calls(settings, sample, tests)
    return found


def _errors(settings: GateSettings, sample: GateSample, tests: GateTests) -> Finding:
    name = ERRORS if sample.stage is GateStage.FAULT else RECOVERY
    candidate, stable = sample.arms.candidate, sample.arms.stable
    when = "under the fault" if sample.stage is GateStage.FAULT else "after the fault"
    seen = f"{when} {_of(candidate)} to the candidate failed, {_of(stable)} to stable"
    return _finding(settings, tests, name, ERRORS, seen, _line(settings.harm, "failures"), _pair(sample.arms))


def _slow(settings: GateSettings, sample: GateSample, tests: GateTests) -> Finding:
    """Return what is said of slow answers, at the edge that speaks loudest."""
    loudest = max(range(len(settings.slow)), key=lambda index: float(tests.harm(settings.slow[index])[0]))
    edge = settings.slow_edges[loudest]
    numbers = []
    for arm in (sample.arms.candidate, sample.arms.stable):
        numbers += [slower_than(arm, edge), sum(arm.buckets)]
    slow_c, timed_c, slow_b, timed_b = numbers
    limit = milliseconds(LATENCY_EDGES_MS[edge])
    shares = [
        percent(100 * slow / timed) if timed else "none" for slow, timed in ((slow_c, timed_c), (slow_b, timed_b))
    ]
    seen = f"under the fault {shares[0]} of the candidate's answers took longer than {limit}, {shares[1]} of stable's"
    line = _line(settings.harm, "share of slow answers")
    return _finding(settings, tests, SLOW, SLOW, seen, line, (slow_c, timed_c, slow_b, timed_b))


def _calls(settings: GateSettings, sample: GateSample, tests: GateTests) -> Finding:
    calls_c, calls_b = sample.calls
    n_c, n_b = sample.arms.candidate.requests, sample.arms.stable.requests
    rates = [f"{calls / requests:.2f}" if requests else "no" for calls, requests in ((calls_c, n_c), (calls_b, n_b))]
    seen = f"under the fault the candidate makes {rates[0]} calls for each request, stable {rates[1]}"
    limit = f"{settings.most_calls:g} times stable's"
    return _finding(settings, tests, CALLS, CALLS, seen, limit, (calls_c, n_c, calls_b, n_b))


def _finding(
    settings: GateSettings,
    tests: GateTests,
    name: str,
    bets: str,
    seen: str,
    limit: str,
    counts: tuple[int, int, int, int],
) -> Finding:
    evidence = float(tests.harm(bets)[0])
    harmful = evidence >= settings.threshold(name)
    sure = f"; the limit is {limit}; chance alone does that in less than {settings.alpha:g} of all experiments"
    safe = float(tests.safe(bets)[0]) / -log(settings.beta) if bets != CALLS else None
    numbers = Numbers(
        *counts,
        excess=excess(*counts) if bets != CALLS else None,
        harm=round(100 * evidence / settings.threshold(name), 1),
        safe=None if safe is None else round(100 * safe, 1),
    )
    shown = safe is not None and safe >= 1
    verdict = Verdict.HARM if harmful else Verdict.SAFE if shown else Verdict.UNDECIDED
    return Finding(name, verdict, limit=limit, message=seen + (sure if harmful else ""), numbers=numbers)


def _line(margin: Margin, what: str) -> str:
    points = f" + {100 * margin.delta:g} points" if margin.delta else ""
    return f"stable's {what} {TIMES} {margin.rho:g}{points}"


def _of(arm: Counts) -> str:
    return f"{percent(_share(arm))} of {count(arm.requests, 'request')}"


def _share(arm: Counts) -> float:
    return 100 * arm.unserved / arm.requests if arm.requests else 0.0
