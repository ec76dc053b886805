"""How past runs look: a table of them, one of them, and what came of computing its verdict again. Pure."""

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from serinus import __version__
from serinus.analysis.words import count, lasting
from serinus.api import parse_live
from serinus.api.release import ExperimentStatus, MetricStatus
from serinus.cli import explaining, verdict_page, view
from serinus.cli.session import Object
from serinus.delivery import moves

if TYPE_CHECKING:
    from serinus.analysis.gatereplay import ReplayedExperiment
    from serinus.analysis.replay import Replayed

HEADINGS = ["RUN", "REVISION", "BEGAN", "TOOK", "VERDICT", "REASON"]


def summary(ending: Object) -> Object:
    """Return one run in a few words. ``seconds`` and ``outcome`` are None and empty while it goes on.

    Args:
        ending: what ``serinus.delivery.recording.ending`` returned, or the little that is known.
    """
    run = ending["run"]
    ended, known = run.get("endedAt") or "", "revision" in run
    return {
        "run": run["id"],
        "revision": run.get("revision", ""),
        "startedAt": run["startedAt"],
        "endedAt": ended,
        "seconds": _seconds(run["startedAt"], ended) if ended else None,
        "outcome": run.get("outcome", ""),
        "verdict": run.get("verdict", "Undecided"),
        "reason": reason(run) if known else "its end was not recorded",
        "experiments": [
            each.model_dump(mode="json", by_alias=True, exclude={"metrics", "difference"}) for each in experiments(run)
        ],
    }


def experiments(run: Object) -> list[ExperimentStatus]:
    """Return the fault gate's experiments in a recorded run; a record of an older version has none."""
    return [parse_live(ExperimentStatus, raw) for raw in run.get("experiments") or []]


def reason(run: Object) -> str:
    """Return why a run ended as it did, in one sentence; while it goes on, what is known so far."""
    if run["message"]:
        return str(run["message"])
    verdict = run["verdict"]
    said = [metric.get("message") or "" for metric in run["metrics"] if metric.get("verdict", "Undecided") == verdict]
    return next(filter(None, said), "nothing was judged").split("; about ")[0]


def table(summaries: list[Object], now: datetime) -> str:
    """Return a row for each run, and below it a line for each of its experiments."""
    rows = [HEADINGS]
    for one in summaries:
        began = view.age(one["startedAt"], now)
        took = lasting(one["seconds"]) if one["seconds"] is not None else "-"
        outcome = one["outcome"] or (f"{one['verdict']} so far" if one["revision"] else "unknown")
        rows.append([one["run"], one["revision"], f"{began} ago", took, outcome, one["reason"]])
    head, *lines = view.table(rows).split("\n")
    shown = [head]
    for one, line in zip(summaries, lines, strict=True):
        below = verdict_page.lines(experiments(one), ended=bool(one["endedAt"]))
        shown += [line, *(f"  experiment {each}" for each in below)]
    return "\n".join(shown)


def one_run(record: Object) -> Text:
    """Return a recorded run with its metrics and experiments, as ``explain`` shows the present one."""
    shown, run = heading(record), record["run"]
    findings = tuple(explaining.finding_of(metric) for metric in metrics(run))
    shown.append_text(explaining.metrics(findings))
    return shown.append_text(verdict_page.experiments(experiments(run), ended=bool(run["endedAt"])))


def metrics(run: Object) -> list[MetricStatus]:
    """Return the metrics of a recorded run."""
    return [parse_live(MetricStatus, metric) for metric in run["metrics"]]


def replayed(record: Object, found: "Replayed") -> Text:
    """Return what came of computing a verdict again: counts, every metric, and whether it is the same."""
    shown = heading(record)
    for note in notes(record, found):
        shown.append(f"{note}\n")
    shown.append_text(explaining.metrics(found.findings))
    for each in found.experiments:
        shown.append_text(verdict_page.experiments([as_status(each)], ended=bool(record["run"]["endedAt"])))
        shown.append(f"  {again(each)}\n", "red" if each.differences else "green")
    shown.append("\n")
    if not found.differences:
        return shown.append(f"{conclusion(found)}\n", "green")
    shown.append(f"{conclusion(found)}\n", "red")
    for difference in found.differences:
        shown.append(f"  {difference}\n")
    return shown


def notes(record: Object, found: "Replayed") -> list[str]:
    """Return what was computed again, in sentences."""
    answers = f" and {count(found.answers, 'answer')} to queries" if found.answers else ""
    said = [f"{count(found.scrapes, 'scrape')}{answers} went through the tests again."]
    if found.began > 1:
        said.append(f"The spec was edited in the run; the tests began afresh {count(found.began - 1, 'time')}.")
    if record["serinus"] != __version__:
        said.append(f"It was recorded by Serinus {record['serinus']}; this is {__version__}.")
    return said


def conclusion(found: "Replayed") -> str:
    """Return whether it is the same, in one sentence."""
    if found.differences:
        return "Not the same:"
    same = "bit for bit" if found.off == 0 else f"to {found.off:.0e}; this processor rounds logarithms otherwise"
    return f"The same: {found.verdict.value}, and what the tests have come to is equal {same}."


def as_status(found: "ReplayedExperiment") -> ExperimentStatus:
    """Return an experiment that was judged again as a status tells of it."""
    known = parse_live(ExperimentStatus, found.recorded or {"name": found.name, "what": "an attempt"})
    return known.model_copy(
        update={
            "verdict": found.verdict,
            "reason": found.reason,
            "budget": found.budget,
            "spent": found.spent,
            "message": found.message,
            "difference": list(found.difference or ()),
            "metrics": [moves.metric_status(finding) for finding in found.findings],
        }
    )


def again(found: "ReplayedExperiment") -> str:
    """Return whether an experiment came out as it was decided, in one sentence."""
    if found.differences:
        return f"It differs: {'; '.join(found.differences)}."
    if not found.samples:
        return "It was not judged, so there is nothing to compute again."
    samples = count(found.samples, "sample")
    if found.recorded is None or not found.verdict:
        return f"The same: {samples} decide nothing."
    if found.from_outside:
        return f"The same: {samples} decide nothing; what ended it ({found.reason}) is not computed again."
    return f"The same, from {samples}: {found.verdict}."


def replayed_json(record: Object, found: "Replayed") -> Object:
    """Return the same for programs."""
    run = record["run"]
    return {
        "run": run["id"],
        "revision": run["revision"],
        "same": not found.differences,
        "bitForBit": found.off == 0,
        "greatestDifference": found.off,
        "differences": list(found.differences),
        "recordedVerdict": run["verdict"],
        "verdict": found.verdict.value,
        "scrapes": found.scrapes,
        "metrics": [explaining.metric_json(finding) for finding in found.findings],
        "experiments": [_experiment_json(each) for each in found.experiments],
    }


def _experiment_json(found: "ReplayedExperiment") -> Object:
    status = as_status(found).model_dump(mode="json", by_alias=True, exclude={"metrics"})
    return status | {
        "same": not found.differences,
        "differences": list(found.differences),
        "recordedVerdict": (found.recorded or {}).get("verdict", ""),
        "samples": found.samples,
        "metrics": [explaining.metric_json(finding) for finding in found.findings],
    }


def heading(record: Object) -> Text:
    """Return which run it is, how it went, and why it ended so."""
    run = record["run"]
    shown = Text.assemble((f"Run {run['id']}", "bold"), f" of {record['namespace']}/{record['canary']}\n")
    took = f", took {lasting(_seconds(run['startedAt'], run['endedAt']))}" if run["endedAt"] else ""
    outcome = run["outcome"] or "under way"
    shown.append(f"revision {run['revision']}, began {run['startedAt']}{took}: {outcome}, verdict {run['verdict']}\n")
    return shown.append(f"{reason(run)}\n")


def _seconds(began: str, ended: str) -> float:
    return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
