"""How past runs look: a table of them, one of them, and what came of computing its verdict again. Pure."""

from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from serinus import __version__
from serinus.analysis.words import count, lasting
from serinus.api import parse_live
from serinus.api.release import MetricStatus
from serinus.cli import explaining, view
from serinus.cli.session import Object

if TYPE_CHECKING:
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
    }


def reason(run: Object) -> str:
    """Return why a run ended as it did, in one sentence; while it goes on, what is known so far."""
    if run["message"]:
        return str(run["message"])
    verdict = run["verdict"]
    said = [metric.get("message") or "" for metric in run["metrics"] if metric.get("verdict", "Undecided") == verdict]
    return next(filter(None, said), "nothing was judged").split("; about ")[0]


def table(summaries: list[Object], now: datetime) -> str:
    """Return a row for each run."""
    rows = [HEADINGS]
    for one in summaries:
        began = view.age(one["startedAt"], now)
        took = lasting(one["seconds"]) if one["seconds"] is not None else "-"
        outcome = one["outcome"] or (f"{one['verdict']} so far" if one["revision"] else "unknown")
        rows.append([one["run"], one["revision"], f"{began} ago", took, outcome, one["reason"]])
    return view.table(rows)


def one_run(record: Object) -> Text:
    """Return a recorded run with its metrics, as ``explain`` shows the present one."""
    shown = _heading(record)
    findings = tuple(explaining.finding_of(parse_live(MetricStatus, metric)) for metric in record["run"]["metrics"])
    return shown.append_text(explaining.metrics(findings))


def replayed(record: Object, found: "Replayed") -> Text:
    """Return what came of computing a verdict again: counts, every metric, and whether it is the same."""
    shown = _heading(record)
    scrapes = count(found.scrapes, "scrape")
    answers = f" and {count(found.answers, 'answer')} to queries" if found.answers else ""
    shown.append(f"{scrapes}{answers} went through the tests again.\n")
    if found.began > 1:
        shown.append(f"The spec was edited in the run; the tests began afresh {count(found.began - 1, 'time')}.\n")
    if record["serinus"] != __version__:
        shown.append(f"It was recorded by Serinus {record['serinus']}; this is {__version__}.\n")
    shown.append_text(explaining.metrics(found.findings))
    shown.append("\n")
    if found.differences:
        shown.append("Not the same:\n", "red")
        for difference in found.differences:
            shown.append(f"  {difference}\n")
        return shown
    same = "bit for bit" if found.off == 0 else f"to {found.off:.0e}; this processor rounds logarithms otherwise"
    return shown.append(f"The same: {found.verdict.value}, and what the tests have come to is equal {same}.\n", "green")


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
    }


def _heading(record: Object) -> Text:
    run = record["run"]
    shown = Text.assemble((f"Run {run['id']}", "bold"), f" of {record['namespace']}/{record['canary']}\n")
    took = f", took {lasting(_seconds(run['startedAt'], run['endedAt']))}" if run["endedAt"] else ""
    outcome = run["outcome"] or "under way"
    shown.append(f"revision {run['revision']}, began {run['startedAt']}{took}: {outcome}, verdict {run['verdict']}\n")
    return shown.append(f"{reason(run)}\n")


def _seconds(began: str, ended: str) -> float:
    return max(0.0, (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())
