"""What both groups of an experiment did, counted and judged; every sample goes into the log of the run as well."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from serinus.analysis import gatelog, judge_gate, runlog
from serinus.analysis.gatemodel import Ending, GateJudgement, GateSample, GateSettings, GateStage
from serinus.analysis.latency import slow_edges
from serinus.analysis.model import Evidence, Verdict
from serinus.analysis.settings import Margin
from serinus.api.base import seconds
from serinus.api.fault import Experiment
from serinus.api.release import CanaryStatus
from serinus.delivery import evidence, moves
from serinus.delivery.model import Snapshot, since

SILENT_S = 10.0
"""Counts that are older than this are none."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Where an experiment stands: what was counted, and what is known of it."""

    snapshot: Snapshot
    status: CanaryStatus
    experiment: Experiment
    now: datetime

    @property
    def note(self) -> dict[str, Any]:
        """The counts of the experiment, as the status carries them."""
        return self.status.run.experiment if self.status.run else {}

    @property
    def clean(self) -> list[list[int]]:
        """What both versions did in this run, outside of the two groups."""
        return evidence.dump_counts(evidence.load(self.status.run.evidence).total) if self.status.run else []

    @property
    def interrupted(self) -> bool:
        """Whether what was counted since the mark is not all that happened since."""
        arms = self.snapshot.arms
        return arms is None or arms.reader != self.note.get("reader") or arms.age_s > SILENT_S

    def mark(self) -> dict[str, Any]:
        """Return from where a stage counts, and what is slow for the stable version before it."""
        arms, spec = self.snapshot.arms, self.snapshot.spec
        assert arms is not None  # noqa: S101 - it had requests
        assert spec is not None  # noqa: S101 - it says the experiment
        latency, clean = spec.analysis.latency, self.clean
        edges = slow_edges(_evidence(clean).stable, 1000 * seconds(latency.floor)) if latency.compare else ()
        counts = {"arms": evidence.dump_counts(arms.evidence), "clean": clean, "calls": list(arms.calls)}
        return {"reader": arms.reader, "mark": {**counts, "slow": list(edges)}}

    def judged(self, stage: GateStage) -> tuple[CanaryStatus, GateJudgement]:
        """Return the status with the judgement on what was counted since the stage's mark."""
        run, note = self.status.run, self.note
        assert run is not None  # noqa: S101 - a phase of a run
        sample, under_fault = self._sample(stage), stage is GateStage.FAULT
        spent = 0 if under_fault else int(note.get("spent", 0))
        settings = replace(settings_of(self.experiment), slow_edges=tuple(note["mark"].get("slow") or ()))
        settings = settings if under_fault else settings.for_recovery(spent)
        judgement = judge_gate(settings, sample, note.get("gate") or {})
        seen = [moves.metric_status(finding) for finding in judgement.findings]
        known = {metric.name for metric in seen}
        *others, last = run.experiments
        changed = last.model_copy(
            update={
                "budget": self.experiment.budget if under_fault else last.budget,
                "spent": spent + judgement.spent,
                "message": judgement.message,
                "metrics": seen if under_fault else [*(each for each in last.metrics if each.name not in known), *seen],
                "difference": list(judgement.difference or ()) if under_fault else last.difference,
            }
        )
        book = evidence.load(run.evidence)
        rows, logged = self._rows(sample, settings, judgement)
        status = moves.with_run(
            self.status,
            experiments=[*others, changed],
            experiment={**note, "gate": judgement.state, "logged": logged},
            evidence=replace(book, notes={**book.notes, **runlog.noted(book.notes, rows)}).dump(),
        )
        return status, judgement

    def _sample(self, stage: GateStage) -> GateSample:
        note, run, arms = self.note, self.status.run, self.snapshot.arms
        assert arms is not None  # noqa: S101 - not interrupted
        assert run is not None  # noqa: S101 - a phase of a run
        mark = note["mark"]
        began = run.stage_since if stage is GateStage.RECOVERY else run.experiments[-1].began_at
        return GateSample(
            stage=stage,
            arms=arms.evidence - _evidence(mark["arms"]),
            clean=_evidence(self.clean) - _evidence(mark["clean"]),
            before=_evidence(mark["clean"]) - _evidence(note["before"]),
            calls=(arms.calls[0] - mark["calls"][0], arms.calls[1] - mark["calls"][1]),
            at_s=since(began, self.now),
        )

    def _rows(
        self, sample: GateSample, settings: GateSettings, judgement: GateJudgement
    ) -> tuple[list[str], dict[str, str]]:
        """Return what the log of the run needs to judge this again, and what is to be known of that at the next look.

        A look at which nothing new was counted, and which decided nothing, leaves no row.
        """
        last = self.status.run.experiments[-1] if self.status.run else None
        assert last is not None  # noqa: S101 - it is under way
        before = self.note.get("logged") or {}
        stage = gatelog.Stage(last.name, last.began_at, sample.stage, sample.before, settings)
        begun, row = gatelog.row_of_stage(stage), gatelog.row_of(sample, settings)
        logged = {"stage": begun, "counts": gatelog.counted(row)}
        rows = [begun] if begun != before.get("stage") else []
        if judgement.verdict is not Verdict.UNDECIDED or judgement.ending is not Ending.NONE:
            return [*rows, row, gatelog.row_of_tests(judgement.state)], logged
        known = logged == before and judgement.state == self.note.get("gate")
        return rows if known else [*rows, row], logged


def settings_of(experiment: Experiment) -> GateSettings:
    """Return what the gate goes by: the experiment's numbers, and defaults for what it leaves out."""
    given: dict[str, Any] = {}
    if experiment.promise:
        given["harm"] = Margin(experiment.promise.ratio, experiment.promise.points / 100)
    if experiment.tolerance:
        given["safe"] = Margin(experiment.tolerance.ratio, experiment.tolerance.points / 100)
    return GateSettings(
        budget=experiment.budget,
        longest_s=seconds(experiment.duration),
        recovery_s=seconds(experiment.recovery),
        most_calls=experiment.max_calls,
        **given,
    )


def _evidence(raw: list[list[int]]) -> Evidence:
    return evidence.load_counts(raw) if raw else Evidence()
