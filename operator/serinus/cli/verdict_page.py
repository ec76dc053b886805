"""The fault gate's experiments for people: what failed on purpose, what both versions did, what was risked and used."""

from rich.text import Text

from serinus.analysis.words import percent
from serinus.api.release import ExperimentStatus, MetricStatus, RunStatus

_COLOURS = {"Passed": "green", "Failed": "red", "Inconclusive": "yellow", "": "cyan"}


def experiments(run: RunStatus) -> Text:
    """Return one paragraph for each experiment of a run; empty without any."""
    shown = Text()
    for each in run.experiments:
        shown.append("\n")
        shown.append_text(heading(each))
        shown.append(f"\n  {each.message}\n" if each.message else "\n")
        for metric in each.metrics:
            if line := numbers(metric):
                shown.append(f"  {line}\n")
        if len(each.difference) == 3:
            middle, low, high = each.difference
            shown.append(f"  lost by the fault, more than stable: {middle:+.2g} points ({low:+.2g} to {high:+.2g})\n")
    return shown


def heading(each: ExperimentStatus) -> Text:
    """Return one line: the experiment, its verdict, and what it cost."""
    words = f"{each.verdict or 'under way'}{f' ({each.reason})' if each.reason else ''}"
    again = f", begun {each.attempt} times" if each.attempt > 1 else ""
    cost = f"risked {each.budget:,}, used {each.spent:,}"
    return Text.assemble(
        ("experiment ", "bold"),
        (each.name, "bold"),
        f"  {each.what}: ",
        (words, _COLOURS[each.verdict]),
        f"; {cost}{again}",
    )


def numbers(metric: MetricStatus) -> str:
    """Return what both groups did, in one line; empty without counts."""
    if not metric.requests or metric.bad is None or metric.stable_bad is None:
        return ""
    if metric.name == "calls":
        rates = f"{metric.bad / metric.requests:.2f}", f"{metric.stable_bad / max(metric.stable_requests or 0, 1):.2f}"
        line = f"calls for each request: candidate {rates[0]}, stable {rates[1]}"
    else:
        shares = [
            f"{bad:,} of {of:,} ({percent(100 * bad / of) if of else 'none'})"
            for bad, of in ((metric.bad, metric.requests), (metric.stable_bad, metric.stable_requests or 0))
        ]
        line = f"{metric.name}: candidate {shares[0]}, stable {shares[1]}"
    harm = f"; evidence for harm {metric.harm:.0f} %" if metric.harm is not None else ""
    safe = f", for safety {metric.safe:.0f} %" if metric.safe is not None else ""
    limit = f"; limit {metric.limit}" if metric.limit else ""
    return f"{line}{limit}{harm}{safe}"
