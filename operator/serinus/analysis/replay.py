"""A verdict computed again, from the record of its run: the same scrapes through the same tests.

The record is JSON, as ``serinus history NAME RUN -o json`` writes it: what ``serinus.delivery.recording.ending``
returns, with ``rows`` (``serinus.analysis.runlog``) and, in ``missing``, the numbers of chunks that are not there.
"""

from dataclasses import dataclass, field
from typing import Any

from serinus.analysis import gatelog, runlog
from serinus.analysis import record as states
from serinus.analysis.apart import ROUNDING, apart
from serinus.analysis.findings import errors_finding, latency_finding, worst_of
from serinus.analysis.gatereplay import ReplayedExperiment
from serinus.analysis.gatereplay import replayed as replayed_experiments
from serinus.analysis.judge import Bench, begun, fingerprint, take_in
from serinus.analysis.model import Counts, Evidence, Finding, Numbers, Sample, Verdict
from serinus.analysis.queries import judge_queries
from serinus.analysis.rows import settings_of
from serinus.analysis.users import UserTests
from serinus.analysis.words import count
from serinus.api.canary import CanarySpec


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    ``off`` is the greatest relative difference between a number of the recorded final state and the same one computed
    again; 0 means bit for bit. ``differences`` are sentences; without any, the record is confirmed. ``began`` is how
    often the tests began. ``experiments`` are the fault gate's, those that were broken off first.
    """

    findings: tuple[Finding, ...]
    verdict: Verdict
    scrapes: int
    answers: int
    began: int
    off: float
    differences: tuple[str, ...]
    experiments: tuple[ReplayedExperiment, ...] = ()


@dataclass(slots=True)
class _Course:
    """The tests while the rows go through them."""

    spec: CanarySpec
    edges: tuple[int, ...]
    before: Counts
    bench: Bench | None = None
    users: UserTests | None = None
    queries: dict[str, Any] | None = None
    query_findings: tuple[Finding, ...] = ()
    scrapes: int = 0
    answers: int = 0
    began: int = 0
    gate: list[str] = field(default_factory=list)

    def take(self, row: str) -> None:
        """Take in one row; those of the fault gate are only gathered."""
        if gatelog.is_row(row):
            self.gate.append(row)
            return
        found = runlog.read(row)
        if isinstance(found, float):
            self.bench, self.scrapes = begun(self.spec, self.edges, self.before, found), 0
            self.began += 1
        elif isinstance(found, runlog.Answers):
            self._answer(found)
        elif self.bench is not None:
            take_in(self.bench, found)
            self.scrapes += 1

    def _answer(self, found: runlog.Answers) -> None:
        raw = self.users.dump() if self.users is not None else {}
        for name in found.afresh:
            raw.pop(name, None)
        self.users = UserTests.load(self.spec, raw)
        self.users.take(found.readings, found.now_s)
        noted: dict[str, object] = {} if found.first or self.queries is None else {"queries": self.queries}
        findings, tallies = judge_queries(self.spec.analysis, found.readings, noted)
        self.query_findings, self.queries = tuple(findings), dict(tallies.get("queries") or {})  # type: ignore[call-overload]
        self.answers += 1


def spec_of(record: dict[str, Any]) -> CanarySpec:
    """Return the spec that a record's run was judged by.

    Raises:
        ValueError: it is none.
    """
    target = {"targetRef": {"name": record["canary"]}}
    return CanarySpec.model_validate(target | (record.get("spec") or {}))


def replay(record: dict[str, Any]) -> Replayed:
    """Compute the verdict of a run again.

    Raises:
        KeyError, TypeError, ValueError: the record is none.
    """
    spec, tests, rows = spec_of(record), record.get("tests"), record["rows"]
    before, edges = (Counts.of_row(tests["before"]), tuple(tests["edges"])) if tests else (Counts(), ())
    course = _Course(spec, edges, before)
    for row in rows:
        course.take(row)
    differences = _missing(record)
    if tests and tests["print"] != fingerprint(spec):
        differences.append("the recorded settings are others than those of the recorded tests")
    if tests and course.bench is None:
        differences.append("no row says that the tests began, so no scrape was taken in")
    off, more = _compared(record, tests, course)
    findings, verdict = _judged(record, course)
    differences += more + _other_words(record["run"], findings, verdict, exact=off == 0.0)
    experiments = replayed_experiments(record["run"].get("experiments") or [], course.gate)
    differences += [f"experiment {each.name}: {said}" for each in experiments for said in each.differences]
    counted = course.scrapes, course.answers, course.began
    return Replayed(findings, verdict, *counted, off, tuple(differences), experiments)


def _missing(record: dict[str, Any]) -> list[str]:
    return [f"rows are missing: chunk {number} of {record['chunks']} is not there" for number in record["missing"]]


def _compared(record: dict[str, Any], tests: dict[str, Any] | None, course: _Course) -> tuple[float, list[str]]:
    """Return how far the state that was reached is from the recorded one, and what differs, in sentences."""
    found: list[str] = []
    offs = [0.0]
    if tests and course.bench is not None:
        bench = course.bench
        for what, version, recorded in zip(
            (bench.taken.candidate, bench.taken.stable), ("candidate", "stable version"), tests["taken"], strict=True
        ):
            if what != Counts.of_row(recorded):
                seen, wanted = (count(number, "request") for number in (what.requests, recorded[0]))
                found.append(f"the rows hold {seen} to the {version}, the record {wanted}")
        offs.append(apart(tests["watched"], states.dump(bench.watched)))
        if offs[-1] > ROUNDING:
            found.append("the tests of failed requests and latency come to another state than was recorded")
    users = course.users.dump() if course.users is not None else {}
    offs.append(apart(_unprinted(record.get("users") or {}), _unprinted(users)))
    offs.append(apart(record.get("queries") or {}, course.queries or {}))
    if max(offs[-2:]) > ROUNDING:
        found.append("the tests of users' metrics come to another state than was recorded")
    return max(offs), found


def _unprinted(users: dict[str, Any]) -> dict[str, Any]:
    return {name: {key: value for key, value in test.items() if key != "print"} for name, test in users.items()}


def _judged(record: dict[str, Any], course: _Course) -> tuple[tuple[Finding, ...], Verdict]:
    """Return what every metric says by the state that was reached, and the verdict of all."""
    own: list[Finding] = []
    if course.bench is not None:
        bench = course.bench
        sample = Sample(total=Evidence(*(Counts.of_row(row) for row in record["total"])))
        readout = bench.monitor.engine.read(bench.watched.state, bench.watched.now_s)
        parts = (course.spec, sample, bench.monitor, bench.watched, readout)
        own = [errors_finding(*parts), *latency_finding(*parts)]
    users = course.users.findings(settings_of(course.spec)) if course.users is not None else []
    outcomes = {metric["name"]: metric for metric in record["run"]["metrics"]}
    users = [_silent(finding, outcomes.get(finding.metric) or {}) for finding in users]
    judged = [finding for finding in own if finding.limit] + list(course.query_findings) + users
    verdict = worst_of(judged)[0] if judged else Verdict.UNDECIDED
    return (*own, *course.query_findings, *users), verdict


def _silent(finding: Finding, recorded: dict[str, Any]) -> Finding:
    """Return a finding as it was at the end, when a query gave no value then: that is no evidence, and not in a row."""
    if recorded.get("outcome") in (None, "", "Value"):
        return finding
    verdict = Verdict(recorded.get("verdict", "Undecided"))
    return Finding(finding.metric, verdict, limit=finding.limit, outcome=recorded["outcome"], numbers=finding.numbers)


def _other_words(run: dict[str, Any], findings: tuple[Finding, ...], verdict: Verdict, *, exact: bool) -> list[str]:
    """Return in which words and numbers the run's metrics were recorded otherwise than they are now."""
    said = []
    by_name = {finding.metric: finding for finding in findings}
    for metric in run["metrics"]:
        finding = by_name.get(metric["name"])
        if finding is None:
            continue  # a remark, that nothing is computed from
        recorded = metric.get("verdict", Verdict.UNDECIDED.value)
        if recorded != finding.verdict.value:
            said.append(f"{finding.metric} was recorded as {recorded} and comes out as {finding.verdict.value}")
        elif exact and metric.get("requests") is not None and finding.numbers != numbers_of(metric):
            said.append(f"{finding.metric} comes out with other numbers than were recorded")
    waits = run["verdict"] == Verdict.UNDECIDED.value and verdict is Verdict.SAFE  # minRequests at that weight
    if run["metrics"] and run["verdict"] != verdict.value and not waits:
        said.append(f"the verdict was recorded as {run['verdict']} and comes out as {verdict.value}")
    return said


def numbers_of(metric: dict[str, Any]) -> Numbers | None:
    """Return the numbers of a metric as a status has it; None when it has none."""
    if metric.get("requests") is None:
        return None
    excess: list[float] = metric.get("excess") or []
    return Numbers(
        metric.get("bad") or 0,
        metric["requests"],
        metric.get("stableBad") or 0,
        metric.get("stableRequests") or 0,
        (float(excess[0]), float(excess[1]), float(excess[2])) if len(excess) == 3 else None,
        metric.get("harm"),
        metric.get("safe"),
        metric.get("needed"),
    )
