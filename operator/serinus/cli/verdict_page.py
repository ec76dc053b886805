"""The fault gate's experiments for people: what failed on purpose, what both versions did, what was risked and used.

``page_of`` says it all, once; on a terminal it becomes text, in a report a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from serinus.analysis.words import percent
from serinus.api.release import ExperimentStatus, MetricStatus

_COLOURS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow", "": "cyan"}


@dataclass(frozen=True, slots=True)
class Row:
    """What both groups did by one hypothesis, the line between them, and the evidence; empty where there is none."""

    name: str
    candidate: str
    stable: str
    limit: str
    harm: str
    safe: str

    @property
    def line(self) -> str:
        """All of it in one line."""
        what = "calls for each request" if self.name == "calls" else self.name
        limit = f"; limit {self.limit}" if self.limit else ""
        harm = f"; evidence for harm {self.harm}" if self.harm else ""
        safe = f", for safety {self.safe}" if self.safe else ""
        return f"{what}: candidate {self.candidate}, stable {self.stable}{limit}{harm}{safe}"


@dataclass(frozen=True, slots=True)
class Page:
    """One experiment in words. ``verdict`` is its bare verdict, ``outcome`` the same with its reason.

    ``again`` is what came of judging it again, and ``differs`` whether that is something else.
    """

    name: str
    what: str
    verdict: str
    outcome: str
    cost: str
    message: str
    rows: tuple[Row, ...]
    difference: str
    again: str = ""
    differs: bool = False


def page_of(each: ExperimentStatus, *, ended: bool = False) -> Page:
    """Return an experiment in words.

    Args:
        each: the experiment.
        ended: whether its run is over, so that nothing of it can be under way.
    """
    without = "broken off" if ended else "under way"
    again = f", begun {each.attempt} times" if each.attempt > 1 else ""
    difference = ""
    if len(each.difference) == 3:
        middle, low, high = each.difference
        difference = f"lost by the fault, more than stable: {middle:+.3g} points ({low:+.3g} to {high:+.3g})"
    return Page(
        each.name,
        each.what,
        each.verdict,
        f"{each.verdict or without}{f' ({each.reason})' if each.reason else ''}",
        f"risked {each.budget:,}, used {each.spent:,}{again}",
        each.message,
        tuple(row for metric in each.metrics if (row := _row(metric))),
        difference,
    )


def experiments(all_: Sequence[ExperimentStatus], *, ended: bool = False) -> Text:
    """Return one paragraph for each experiment of a run; empty without any."""
    shown = Text()
    for each in all_:
        page = page_of(each, ended=ended)
        shown.append("\n").append_text(heading(each, ended=ended)).append("\n")
        for line in (page.message, *(row.line for row in page.rows), page.difference):
            if line:
                shown.append(f"  {line}\n")
    return shown


def heading(each: ExperimentStatus, *, ended: bool = False) -> Text:
    """Return one line: the experiment, its verdict, and what it cost."""
    page = page_of(each, ended=ended)
    named = ("experiment ", "bold"), (page.name, "bold"), f"  {page.what}: " if page.what else ": "
    return Text.assemble(*named, (page.outcome, _COLOURS[page.verdict]), f"; {page.cost}")


def lines(all_: Sequence[ExperimentStatus], *, ended: bool = False) -> list[str]:
    """Return each experiment of a run in a line for a list of runs; parts of a suite are told from each other."""
    names = [each.name for each in all_]
    found = []
    for each in all_:
        page = page_of(each, ended=ended)
        name = f"{page.name} ({page.what})" if names.count(page.name) > 1 and page.what else page.name
        outcome = (page.verdict or page.outcome).lower()
        found.append(f"{name}: {outcome}, {page.cost}{f': {page.message}' if page.message else ''}")
    return found


def _row(metric: MetricStatus) -> Row | None:
    """Return what both groups did; None without counts."""
    if not metric.requests or metric.bad is None or metric.stable_bad is None:
        return None
    pairs = (metric.bad, metric.requests), (metric.stable_bad, metric.stable_requests or 0)
    if metric.name == "calls":
        candidate, stable = (f"{calls / max(of, 1):.2f}" for calls, of in pairs)
    else:
        candidate, stable = (f"{bad:,} of {of:,} ({percent(100 * bad / of) if of else 'none'})" for bad, of in pairs)
    harm, safe = ("" if value is None else f"{value:.0f} %" for value in (metric.harm, metric.safe))
    return Row(metric.name, candidate, stable, metric.limit, harm, safe)
