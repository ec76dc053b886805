"""A recorded run as one HTML page: what ``history`` and ``replay`` say of it. Pure."""

from dataclasses import replace
from typing import TYPE_CHECKING

from serinus.cli import recounting
from serinus.cli.session import Object
from serinus.cli.verdict_page import page_of
from serinus.delivery import moves
from serinus.delivery.recording import PROMOTED
from serinus.reports import rendered, template

if TYPE_CHECKING:
    from serinus.analysis.replay import Replayed


def page(record: Object, found: "Replayed | None" = None) -> str:
    """Return the page of a run.

    Args:
        record: of the run.
        found: what came of computing its verdicts again; None shows them as they were recorded.
    """
    run, ended = record["run"], bool(record["run"]["endedAt"])
    title, outcome, _ = recounting.heading(record).plain.split("\n", 2)
    values = {
        "title": title,
        "outcome": outcome,
        "verdict": run["outcome"] if run["outcome"] == PROMOTED else "RolledBack" if ended else "Undecided",
        "reason": recounting.reason(run),
        "notes": [],
        "differences": [],
        "metrics": recounting.metrics(run),
        "experiments": [page_of(each, ended=ended) for each in recounting.experiments(run)],
    }
    if found is not None:
        values |= {
            "notes": [*recounting.notes(record, found), recounting.conclusion(found)],
            "differences": found.differences,
            "metrics": [moves.metric_status(finding) for finding in found.findings],
            "experiments": [
                replace(
                    page_of(recounting.as_status(each), ended=ended),
                    again=recounting.again(each),
                    differs=bool(each.differences),
                )
                for each in found.experiments
            ],
        }
    return rendered(template("run.html.j2"), values)
