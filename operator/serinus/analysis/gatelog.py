"""The fault gate's rows in the log of a run: what each experiment was judged by, so that it can be judged again.

A row that begins with ``!=`` begins a stage of an attempt, or says that its settings were edited: JSON with the
experiment's name, when its fault began, the stage, what the clean versions had done before, and every setting. Each row
behind it is a sample that the tests took in, or that ended the stage::

    !14.021 71/9 68 804/4 7203/3 71,68
    |       |    |  |     |      `- calls to the dependency, of the candidate's arm and of stable's
    |       |    |  |     `-------- requests, failed and given up, of the clean stable pods
    |       |    |  `-------------- of the clean candidate
    |       |    `----------------- of stable's arm
    |       `---------------------- of the candidate's arm
    `------------------------------ second of the stage

A row that begins with ``!#`` stands behind the sample that ended a stage: what the tests had come to, as JSON.

Counts are written as in ``serinus.analysis.runlog``, but all since the stage began, so that each row stands by itself.
Buckets of the arms are there only where slow answers are judged.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from serinus.analysis.gatemodel import GateSample, GateSettings, GateStage
from serinus.analysis.model import Counts, Evidence
from serinus.analysis.runlog import counts_of, counts_text, sparse
from serinus.analysis.settings import Margin

_MARK, _STAGE, _TESTS = "!", "!=", "!#"


@dataclass(frozen=True, slots=True)
class Stage:
    """What all samples of a stage have in common. ``began`` tells the attempts of an experiment from each other."""

    experiment: str
    began: str
    stage: GateStage
    before: Evidence
    settings: GateSettings

    @property
    def attempt(self) -> tuple[str, str]:
        """The attempt that it is a stage of."""
        return self.experiment, self.began


@dataclass(frozen=True, slots=True)
class Noted:
    """A sample, what it was judged by, and what the tests had come to then; None where that was not noted."""

    settings: GateSettings
    sample: GateSample
    tests: dict[str, Any] | None = None


@dataclass(slots=True)
class Attempt:
    """All that was noted of one attempt at an experiment, in order."""

    experiment: str
    began: str
    samples: list[Noted]


def is_row(row: str) -> bool:
    """Whether a row of the log is the fault gate's."""
    return row.startswith(_MARK)


def row_of_stage(stage: Stage) -> str:
    """Return the row that begins a stage."""
    body = {
        "experiment": stage.experiment,
        "began": stage.began,
        "stage": stage.stage.value,
        "before": [counts_text(_bare(arm)) for arm in (stage.before.candidate, stage.before.stable)],
        "settings": asdict(stage.settings),
    }
    return _STAGE + json.dumps(body, separators=(",", ":"))


def row_of(sample: GateSample, settings: GateSettings) -> str:
    """Return a sample as a row; nothing that its judgement reads is left out."""
    timed = bool(settings.slow_edges)
    arms = [counts_text(arm if timed else _bare(arm)) for arm in (sample.arms.candidate, sample.arms.stable)]
    clean = [counts_text(_bare(arm)) for arm in (sample.clean.candidate, sample.clean.stable)]
    return " ".join((f"{_MARK}{sample.at_s!r}", *arms, *clean, sparse(sample.calls)))


def row_of_tests(state: dict[str, Any]) -> str:
    """Return the row with what the tests have come to.

    Args:
        state: of the judgement (``serinus.analysis.gatemodel.GateJudgement``).
    """
    return _TESTS + json.dumps(state["tests"], separators=(",", ":"))


def counted(row: str) -> str:
    """Return a row of a sample without its second."""
    return row.partition(" ")[2]


def attempts(rows: Iterable[str]) -> list[Attempt]:
    """Return the attempts that the fault gate's rows of a log tell of.

    Raises:
        KeyError, TypeError, ValueError: a row is none of them.
    """
    found: list[Attempt] = []
    stage: Stage | None = None
    for row in rows:
        if row.startswith(_STAGE):
            stage = _stage(json.loads(row.removeprefix(_STAGE)))
            if not found or (found[-1].experiment, found[-1].began) != stage.attempt:
                found.append(Attempt(*stage.attempt, []))
        elif stage is None:
            continue  # the chunk with its beginning is missing
        elif row.startswith(_TESTS):
            samples = found[-1].samples
            samples[-1:] = [replace(last, tests=json.loads(row.removeprefix(_TESTS))) for last in samples[-1:]]
        else:
            found[-1].samples.append(Noted(stage.settings, _sample(row, stage)))
    return found


def _stage(raw: dict[str, Any]) -> Stage:
    known = {each.name for each in fields(GateSettings)}
    given = {name: value for name, value in raw["settings"].items() if name in known}
    margins = {name: Margin(**given[name]) for name in ("harm", "safe") if name in given}
    given["slow_edges"] = tuple(given.get("slow_edges") or ())
    before = Evidence(*map(counts_of, raw["before"]))
    return Stage(raw["experiment"], raw["began"], GateStage(raw["stage"]), before, GateSettings(**{**given, **margins}))


def _sample(row: str, stage: Stage) -> GateSample:
    second, one, two, clean_one, clean_two, calls = row.removeprefix(_MARK).split(" ")
    candidate, stable = (int(number or 0) for number in calls.split(","))
    return GateSample(
        stage=stage.stage,
        arms=Evidence(counts_of(one), counts_of(two)),
        clean=Evidence(counts_of(clean_one), counts_of(clean_two)),
        before=stage.before,
        calls=(candidate, stable),
        at_s=float(second),
    )


def _bare(counts: Counts) -> Counts:
    return Counts(counts.requests, counts.failures, abandoned=counts.abandoned)
