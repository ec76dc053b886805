"""Users' queries: which are asked for a metric, of which version, and what an answer says that is no value."""

from dataclasses import dataclass, replace
from math import isfinite

from serinus.analysis.model import Outcome, Reading
from serinus.api.analysis import UserMetric

_ADVICE = {
    Outcome.EMPTY: "the query gave nothing; check its labels and that the metric exists",
    Outcome.NAN: "the query gave no number (NaN), as a division by zero does; it needs traffic",
    Outcome.MANY_SERIES: "the query gave several series; put sum() or another aggregation around it",
    Outcome.QUERY_ERROR: "Prometheus refused the query; correct it",
    Outcome.TIMEOUT: "Prometheus did not answer in time; make the query cheaper",
    Outcome.UNREACHABLE: "Prometheus cannot be reached; check analysis.prometheus.address",
}
_NOT_BORN = "; a counter that begins with its first event needs `or vector(0)` behind it"
_NOTHING = (Outcome.EMPTY, Outcome.NAN)


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a metric.

    ``name`` is that of its readings, ``field`` its place within the metric. ``compared`` tells whether it is asked once
    for each version: then ``{{ revision }}`` stands for the stable one where ``stable`` is True.
    """

    name: str
    field: str
    template: str
    compared: bool = False
    stable: bool = False

    @property
    def words(self) -> str:
        """What is asked for, for people."""
        part = self.field.rpartition(".")[2]
        whose = "the stable version's" if self.stable else "the candidate's"
        return f"{whose} {'number' if part == 'query' else part}"


def questions(metric: UserMetric) -> tuple[Question, ...]:
    """Return the queries of a metric, the candidate's before the stable version's.

    ``total`` comes before what is counted of it. A scrape that falls between the two then makes for more bad or good
    ones than there are in all, which is noticed; not for too few good ones, which would look like bad ones.
    """
    if metric.counts is not None:
        counts = metric.counts
        part, template = ("bad", counts.bad) if counts.bad is not None else ("good", counts.good or "")
        return tuple(
            Question(f"{metric.name}/{version}/{field}", f"counts.{field}", query, True, version == "stable")
            for version in ("candidate", "stable")
            for field, query in (("total", counts.total), (part, template))
        )
    if metric.gauge is not None:
        return tuple(
            Question(f"{metric.name}/{version}", "gauge.query", metric.gauge.query, True, version == "stable")
            for version in ("candidate", "stable")
        )
    return (Question(metric.name, "query", metric.query or ""),)


def unanswered(reading: Reading) -> str:
    """Return what is to be done about an answer that is no value."""
    detail = f" ({reading.detail})" if reading.detail else ""
    return f"{reading.outcome.value}: {_ADVICE.get(reading.outcome, 'there is none')}{detail}"


@dataclass(frozen=True, slots=True)
class Gap:
    """Why two versions cannot be compared at this moment: an answer that is missing, or is no value.

    ``idle`` tells that nothing is wrong but that there is nothing to count for the stable version, as at weight 100.
    """

    outcome: str
    words: str
    idle: bool = False


def value_of(reading: Reading | None) -> float | None:
    """Return the value of an answer; None when there is none, or none that is finite. Only a value is evidence."""
    if reading is None or reading.outcome is not Outcome.VALUE or reading.value is None:
        return None
    return reading.value if isfinite(reading.value) else None


def gap(asked: tuple[Question, ...], answers: dict[str, Reading]) -> Gap | None:
    """Return what is missing of the answers to these questions; None when all are values."""
    found = None
    for question in asked:
        missing = _missing(question, answers.get(question.name))
        if missing is not None and (found is None or found.idle):
            found = missing
    return found


def _missing(question: Question, reading: Reading | None) -> Gap | None:
    if reading is None:
        return Gap("", f"{question.words} is awaited")
    if value_of(reading) is not None:
        return None
    if reading.outcome is Outcome.VALUE:
        reading = replace(reading, outcome=Outcome.NAN)
    born = reading.outcome is not Outcome.EMPTY or question.field not in ("counts.bad", "counts.good")
    words = f"{question.words}: {unanswered(reading)}{'' if born else _NOT_BORN}"
    return Gap(reading.outcome.value, words, question.stable and reading.outcome in _NOTHING)
