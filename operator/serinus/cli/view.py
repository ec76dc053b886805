"""How a release looks: a tree for people, one line for logs, and one row of the list. Pure: dicts in, text out."""

from datetime import UTC, datetime
from typing import Any

from rich.text import Text
from rich.tree import Tree

from serinus.analysis.words import milliseconds, percent, plain
from serinus.api import parse_live
from serinus.api.release import ExperimentStatus, MetricStatus
from serinus.cli import explaining, verdict_page
from serinus.cli.session import Object

_COLOURS = {
    "Ready": "green", "Failed": "red", "RollingBack": "red", "Suspended": "yellow", "Waiting": "yellow",
    "Harm": "red", "Safe": "green", "Undecided": "yellow",
}  # fmt: skip
_IN_RUN = ("Preparing", "Analysing", "Waiting", "Watching", "Promoting", "Restoring", "RollingBack", "Suspended")


def coloured(word: str) -> Text:
    """Return a phase or verdict in its colour."""
    return Text(word, _COLOURS.get(word, "cyan"))


def tree(canary: Object, now: datetime) -> Tree:
    """Return revision, step, weight asked, acknowledged and measured, every metric, and what is waited for."""
    meta, status = canary["metadata"], canary.get("status") or {}
    run, phase = status.get("run") or {}, status.get("phase") or "not seen yet"
    title = Text.assemble(("Canary ", "bold"), (f"{meta['namespace']}/{meta['name']}", "bold"), "  ", coloured(phase))
    root = Tree(title)
    if not status:
        root.add("The operator has not looked at it yet; is it running? kubectl get pods -n serinus-system")
        return root
    if message := status.get("message"):
        waits = phase in _IN_RUN and phase != "Suspended"
        root.add(Text.assemble(("waits for  " if waits else "says       ", "dim"), message))
    stable = status.get("stable") or {}
    if stable:
        root.add(_line("stable", f"revision {stable.get('revision')}", _ago("stable for", stable.get("at"), now, "")))
    if run and phase in (*_IN_RUN, "Failed"):
        _add_run(root, canary, run, phase, now)
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Stalled" and condition.get("status") == "True":
            root.add(Text.assemble(("stalled    ", "red"), f"{condition.get('reason')}: {condition.get('message')}"))
    return root


def _add_run(root: Tree, canary: Object, run: Object, phase: str, now: datetime) -> None:
    pods = f"{run['replicas']} pods" if run.get("replicas") and phase != "Failed" else ""
    began = _ago("run began", run.get("startedAt"), now)
    root.add(_line("candidate", f"revision {run.get('revision')}", pods, began, "paused" if run.get("paused") else ""))
    if cause := run.get("causeMessage"):
        root.add(Text.assemble(("cause      ", "red"), f"{run.get('cause')}: {cause}"))
    if phase != "Failed":
        _add_steps(root, canary, run, phase)
        root.add(_line("weight", f"asked {run.get('weight', 0)} %", _acknowledged(run, now), _measured(run)))
    if metrics := run.get("metrics"):
        branch = root.add(Text.assemble(("metrics    ", "dim"), coloured(run.get("verdict") or "Undecided")))
        share = run.get("measuredWeight"), run.get("weight") or 0
        rate = explaining.candidate_rate(run.get("evidence") or {}, *share) if phase != "Failed" else None
        for metric in metrics:
            branch.add(_metric(metric, rate))
    for raw in run.get("experiments") or []:
        experiment = parse_live(ExperimentStatus, raw)
        branch = root.add(verdict_page.heading(experiment, ended=phase in ("Failed", "RollingBack")))
        if experiment.message:
            branch.add(Text(experiment.message, "dim"))


def _add_steps(root: Tree, canary: Object, run: Object, phase: str) -> None:
    suites = {each["name"] for each in canary["spec"].get("faults") or [] if each.get("suite")}
    steps = [
        step
        for step in (canary["spec"].get("strategy") or {}).get("steps") or []
        for _ in range(2 if step.get("fault") in suites else 1)  # a suite has two parts
    ]
    if not steps:
        root.add(_line("step", "the evidence decides weight and pace" if run.get("step") == 0 else "the watch"))
        return
    present = min(int(run.get("step") or 0), len(steps))
    at = f"{present + 1} of {len(steps)}" if present < len(steps) else f"all {len(steps)} passed"
    branch = root.add(_line("step", at))
    for index, step in enumerate(steps):
        if step.get("approval") is not None:
            words = f"approval: {step['approval']}"
        elif step.get("fault") is not None:
            words = f"experiment {step['fault']}"
        else:
            words = f"weight {step.get('weight')} %" + (f" for at least {step['for']}" if step.get("for") else "")
        if index < present:
            branch.add(Text(f"{words} (passed)", "dim"))
        elif index == present and phase != "RollingBack":
            branch.add(Text(f"{words} (now)", "bold"))
        else:
            branch.add(Text(words))


def _metric(metric: Object, rate: float | None) -> Text:
    show = _number(metric.get("name", ""))
    numbers = [show(metric["candidate"])] if metric.get("candidate") is not None else []
    if metric.get("stable") is not None:
        numbers.append(f"stable {show(metric['stable'])}")
    if metric.get("limit"):
        numbers.append(f"limit {metric['limit']}")
    if (outcome := metric.get("outcome")) and outcome != "Value":
        numbers.append(str(outcome))
    verdict = metric.get("verdict") or "Undecided"
    text = Text.assemble(coloured(f"{verdict}"), f"  {metric.get('name')}: {', '.join(numbers) or 'no number yet'}")
    numbers_line = explaining.compact(explaining.finding_of(parse_live(MetricStatus, metric)), rate)
    if numbers_line:
        text.append(f"\n{numbers_line}", "dim")
    elif verdict != "Safe" and metric.get("message"):
        text.append(f"\n{metric['message']}", "dim")
    return text


def _number(name: str) -> Any:
    return {"success-rate": percent, "latency": milliseconds}.get(name, plain)


def _acknowledged(run: Object, now: datetime) -> str:
    if not run.get("acknowledgedAt"):
        return "not in force on every sidecar yet"
    return _ago("acknowledged by every sidecar", run["acknowledgedAt"], now)


def _measured(run: Object) -> str:
    measured = run.get("measuredWeight")
    return f"measured {percent(measured)}" if measured is not None else ""


def _line(label: str, *parts: str) -> Text:
    return Text.assemble((f"{label:<11}", "dim"), ", ".join(part for part in parts if part))


def _ago(words: str, moment: Any, now: datetime, after: str = " ago") -> str:
    return f"{words} {age(moment, now)}{after}" if moment else ""


def age(moment: Any, now: datetime) -> str:
    """Return the time since a moment as kubectl writes it: ``42s``, ``7m``, ``3h``, ``2d``; empty when unknown."""
    try:
        then = datetime.fromisoformat(str(moment))
    except ValueError:
        return ""
    passed = max(0, int((now - then.astimezone(UTC)).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if passed >= 2 * size:
            return f"{passed // size}{unit}"
    return f"{passed}s"


def line(canary: Object) -> str:
    """Return how a release stands, in one line for a log."""
    status = canary.get("status") or {}
    run, phase = status.get("run") or {}, status.get("phase") or "not seen yet"
    parts = [phase]
    if phase in _IN_RUN and run:
        parts.append(f"step {status.get('step') or '-'}")
        measured = f", {_measured(run)}" if _measured(run) else ""
        parts.append(f"weight {run.get('weight', 0)} %{'' if run.get('acknowledgedAt') else ' (asked)'}{measured}")
    words = f"{'; '.join(parts)}: {status.get('message') or 'no message'}"
    harmful = [metric for metric in run.get("metrics") or [] if metric.get("verdict") == "Harm"]
    if harmful and phase in ("RollingBack", "Failed") and harmful[0].get("message") not in words:
        words += f" ({harmful[0]['message']})"
    return words


HEADINGS = ("NAME", "TARGET", "READY", "PHASE", "WEIGHT", "STEP", "REASON", "AGE")
WIDE = ("STABLE", "CANDIDATE", "MESSAGE")


def row(canary: Object, now: datetime, *, wide: bool = False) -> list[str]:
    """Return one row under ``HEADINGS``, and under ``WIDE`` when asked for."""
    meta, status = canary["metadata"], canary.get("status") or {}
    ready: Object = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    cells = [
        meta["name"],
        canary["spec"]["targetRef"]["name"],
        ready.get("status", ""),
        status.get("phase") or "",
        f"{status.get('weight', 0)} %",
        status.get("step") or "",
        ready.get("reason", ""),
        age(meta.get("creationTimestamp"), now),
    ]
    if wide:
        run = status.get("run") or {}
        candidate = run.get("revision", "") if status.get("phase") in _IN_RUN else ""
        cells += [(status.get("stable") or {}).get("revision", ""), candidate, status.get("message") or ""]
    return [str(cell) for cell in cells]


def table(rows: list[list[str]]) -> str:
    """Return rows in columns, as kubectl writes them."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )
