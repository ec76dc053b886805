"""Users' own metrics that have limits: what the answers to their queries say."""

from dataclasses import dataclass, replace
from math import isnan
from typing import Any

from serinus.analysis.model import Finding, Outcome, Reading, Verdict
from serinus.analysis.questions import unanswered
from serinus.analysis.words import count, plain
from serinus.api.analysis import Analysis, UserMetric

_KEY = "queries"


@dataclass(frozen=True, slots=True)
class _Tally:
    """What was read of one metric at this step: the last sequence, readings beyond the limits, good ones since."""

    sequence: int = 0
    violations: int = 0
    good: int = 0


def judge_queries(
    spec: Analysis, readings: tuple[Reading, ...], state: dict[str, object]
) -> tuple[list[Finding], dict[str, object]]:
    """Return a finding for every metric of the user's that has limits, and the state to come back with.

    Only a value is evidence. Harm: ``failureLimit`` values beyond the limits at this step. Safe: more values within the
    limits since the last one beyond them than there were beyond them, so one where there was none.

    Args:
        spec: the metrics; those that compare both versions are left to ``serinus.analysis.users``.
        readings: answers to the queries, oldest first; an answer that was passed before does not count twice.
        state: what this returned last at the present weight. Without it the readings that are there are only noted:
            they are of the time before, and do not count.
    """
    first = _KEY not in state
    noted: dict[str, Any] = state.get(_KEY, {})  # type: ignore[assignment]
    findings, kept = [], {}
    for metric in spec.metrics:
        if metric.query is None:
            continue
        own = [reading for reading in readings if reading.metric == metric.name]
        tally = _Tally(*noted.get(metric.name, ()))
        if first:
            tally, own = _Tally(own[-1].sequence if own else 0), []
        new = _not_counted(own, tally.sequence)
        for reading in new:
            tally = _counted(metric, tally, reading)
        findings.append(_finding(metric, tally, own[-1] if own else None))
        kept[metric.name] = [tally.sequence, tally.violations, tally.good]
    return findings, {_KEY: kept}


def _not_counted(readings: list[Reading], last: int) -> list[Reading]:
    """Return the readings that are new. A reader that begins again counts its sequences from the beginning."""
    if readings and readings[-1].sequence < last:
        return readings
    return [reading for reading in readings if reading.sequence > last]


def _counted(metric: UserMetric, tally: _Tally, reading: Reading) -> _Tally:
    tally = replace(tally, sequence=reading.sequence)
    if reading.outcome != Outcome.VALUE or reading.value is None or isnan(reading.value):
        return tally
    if _within(metric, reading.value):
        return replace(tally, good=tally.good + 1)
    return replace(tally, violations=tally.violations + 1, good=0)


def _within(metric: UserMetric, value: float) -> bool:
    return (metric.min is None or value >= metric.min) and (metric.max is None or value <= metric.max)


def _finding(metric: UserMetric, tally: _Tally, last: Reading | None) -> Finding:
    limit = _limit(metric)

    def finding(verdict: Verdict, words: str) -> Finding:
        value = last.value if last and last.outcome == Outcome.VALUE else None
        return Finding(metric.name, verdict, value, None, limit, last.outcome.value if last else "", words)

    if tally.violations >= metric.failure_limit:
        beyond = count(tally.violations, "reading") + " beyond the limit"
        value = f"{plain(last.value)}; " if last and last.value is not None else ""
        return finding(Verdict.HARM, f"{metric.name}: {value}the limit is {limit} ({beyond})")
    if last is None:
        return finding(Verdict.UNDECIDED, f"{metric.name}: the first reading at this step is awaited")
    if last.outcome != Outcome.VALUE or last.value is None:
        return finding(Verdict.UNDECIDED, f"{metric.name}: {unanswered(last)}")
    seen = f"{metric.name}: {plain(last.value)}; the limit is {limit}"
    if tally.good > tally.violations:
        return finding(Verdict.SAFE, seen)
    before = f"{count(tally.violations, 'reading')} beyond it at this step, {metric.failure_limit} would be harm"
    return finding(Verdict.UNDECIDED, f"{seen}; {before}")


def _limit(metric: UserMetric) -> str:
    if metric.min is not None and metric.max is not None:
        return f"{plain(metric.min)} to {plain(metric.max)}"
    if metric.min is not None:
        return f"at least {plain(metric.min)}"
    return f"at most {plain(metric.max)}" if metric.max is not None else ""
