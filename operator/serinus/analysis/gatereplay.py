"""Verdicts of the fault gate computed again: the recorded samples of each experiment through the same judgement."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from serinus.analysis.apart import apart
from serinus.analysis.faultgate import judge_gate
from serinus.analysis.gatelog import Attempt, attempts
from serinus.analysis.gatemodel import Ending, GateJudgement, GateStage
from serinus.analysis.model import Finding, Numbers, Verdict

PASSED, FAILED, INCONCLUSIVE, OPEN = "Passed", "Failed", "Inconclusive", ""
"""Verdicts as ``status.run.experiments`` has them. OPEN: the samples decide nothing."""
_ROUNDED = 0.11
"""Evidence is recorded in tenths of a percent; another processor may round it to the next one."""
_ROUNDED_TESTS = 1e-5
"""The same for the state of the tests, which is kept to 1e-6."""
_ROUNDED_POINTS = 2e-4
"""The same for the difference of both differences, which is kept to 1e-4."""


@dataclass(frozen=True, slots=True)
class ReplayedExperiment:
    """What came of one attempt at an experiment.

    ``recorded`` is its entry in ``run.experiments``; None for an attempt that was broken off and begun again.
    ``verdict`` and ``reason`` are what the samples say, or, where they decide nothing, what ended it ``from_outside``.
    ``differences`` are sentences; without any, what was decided is confirmed.
    """

    name: str
    recorded: dict[str, Any] | None
    samples: int
    verdict: str
    reason: str
    message: str = ""
    budget: int = 0
    spent: int = 0
    difference: tuple[float, float, float] | None = None
    findings: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    from_outside: bool = False


@dataclass(slots=True)
class _Course:
    """An experiment while its samples go through the tests."""

    verdict: str = OPEN
    reason: str = ""
    message: str = ""
    budget: int = 0
    spent: int = 0
    difference: tuple[float, float, float] | None = None
    differences: list[str] = field(default_factory=list)

    def play(self, attempt: Attempt) -> dict[str, Finding]:
        """Take all samples of an attempt in; return each hypothesis' last finding."""
        found: dict[str, Finding] = {}
        state: dict[str, Any] = {}
        stage, before, last, early = GateStage.FAULT, 0, Verdict.UNDECIDED, False
        for noted in attempt.samples:
            settings, sample = noted.settings, noted.sample
            early = early or bool(self.verdict)
            if sample.stage is not stage:
                if last is not Verdict.SAFE:
                    self.differences.append("its recovery was judged, but under the fault it does not come out as safe")
                stage, state, before = sample.stage, {}, self.spent
            judgement = judge_gate(settings, sample, state)
            state, last = judgement.state, judgement.verdict
            if noted.tests is not None and apart(noted.tests, state["tests"]) > _ROUNDED_TESTS:
                self.differences.append(f"its tests come to another state than was recorded ({stage.value})")
            self.verdict, self.reason = _outcome(judgement, stage, settings.recovery_s)
            self.message, self.spent = judgement.message, before + judgement.spent
            found |= {finding.metric: finding for finding in judgement.findings}
            if stage is GateStage.FAULT:
                self.difference, self.budget = judgement.difference, settings.budget
        if early:
            self.differences.append("it comes to a verdict before its recorded counts end")
        return found


def _outcome(judgement: GateJudgement, stage: GateStage, recovery_s: float) -> tuple[str, str]:
    if judgement.verdict is Verdict.HARM:
        return FAILED, ""
    if judgement.ending is not Ending.NONE:
        return INCONCLUSIVE, judgement.ending.value
    over = stage is GateStage.RECOVERY or not recovery_s
    return (PASSED, "") if judgement.verdict is Verdict.SAFE and over else (OPEN, "")


def replayed(recorded: Iterable[dict[str, Any]], rows: Iterable[str]) -> tuple[ReplayedExperiment, ...]:
    """Judge experiments again.

    Args:
        recorded: the experiments of a run, as its record has them.
        rows: the fault gate's rows of its log.

    Raises:
        KeyError, TypeError, ValueError: these are none.
    """
    noted = {(attempt.experiment, attempt.began): attempt for attempt in attempts(rows)}
    found = []
    for experiment in recorded:
        key = experiment["name"], experiment.get("beganAt") or ""
        found.append(_replayed(experiment, noted.pop(key, Attempt(*key, []))))
    return (*(_broken_off(attempt) for attempt in noted.values()), *found)


def _replayed(experiment: dict[str, Any], attempt: Attempt) -> ReplayedExperiment:
    course = _Course()
    findings = course.play(attempt)
    verdict, reason = experiment.get("verdict") or OPEN, experiment.get("reason") or ""
    said = []
    from_outside = not course.verdict and verdict == INCONCLUSIVE
    from_outside = from_outside and (not attempt.samples or reason not in set(Ending))
    if from_outside:
        course.verdict, course.reason, course.message = verdict, reason, experiment.get("message") or ""
    if (course.verdict, course.reason) != (verdict, reason):
        said.append(f"it was recorded as {_words(verdict, reason)} and comes out as {_words(*_of(course))}")
    said += course.differences
    if attempt.samples or experiment.get("metrics"):
        said += _other_numbers(experiment, course, findings)
    return ReplayedExperiment(
        attempt.experiment,
        experiment,
        len(attempt.samples),
        *_of(course),
        course.message,
        course.budget or int(experiment.get("budget") or 0),
        course.spent,
        course.difference,
        tuple(findings.values()),
        tuple(said),
        from_outside,
    )


def _broken_off(attempt: Attempt) -> ReplayedExperiment:
    """Return an attempt that was begun again: one that had come to a verdict would not have been."""
    course = _Course()
    findings = course.play(attempt)
    said = f"an attempt was broken off and comes out as {_words(*_of(course))}"
    return ReplayedExperiment(
        attempt.experiment,
        None,
        len(attempt.samples),
        *_of(course),
        course.message,
        course.budget,
        course.spent,
        course.difference,
        tuple(findings.values()),
        (said,) if course.verdict else (),
    )


def _of(course: _Course) -> tuple[str, str]:
    return course.verdict, course.reason


def _words(verdict: str, reason: str) -> str:
    return (verdict or "undecided") + (f" ({reason})" if reason else "")


def _other_numbers(experiment: dict[str, Any], course: _Course, findings: dict[str, Finding]) -> list[str]:
    """Return in which numbers an experiment was recorded otherwise than it comes out, in sentences."""
    said = [
        f"{what} were recorded as {experiment.get(field) or 0:,} and come out as {number:,}"
        for what, field, number in (
            ("the requests that were risked", "budget", course.budget),
            ("the requests that failed", "spent", course.spent),
        )
        if (experiment.get(field) or 0) != number
    ]
    if apart(experiment.get("difference") or [], course.difference or ()) > _ROUNDED_POINTS:
        said.append("what was lost by the fault comes out otherwise than was recorded")
    metrics = {metric["name"]: metric for metric in experiment.get("metrics") or []}
    for name in dict.fromkeys((*metrics, *findings)):
        metric, finding = metrics.get(name), findings.get(name)
        if metric is None or finding is None or not _alike(metric, finding):
            said.append(f"{name} comes out with other numbers than were recorded")
    return said


def _alike(metric: dict[str, Any], finding: Finding) -> bool:
    numbers = finding.numbers or Numbers(0, 0, 0, 0)
    counts = [metric.get(field) or 0 for field in ("bad", "requests", "stableBad", "stableRequests")]
    if counts != [numbers.bad, numbers.requests, numbers.stable_bad, numbers.stable_requests]:
        return False
    pairs = (metric.get("harm"), numbers.harm), (metric.get("safe"), numbers.safe)
    return metric.get("verdict", Verdict.UNDECIDED.value) == finding.verdict.value and all(
        one == two if one is None or two is None else isclose(one, two, rel_tol=1e-9, abs_tol=_ROUNDED)
        for one, two in pairs
    )
