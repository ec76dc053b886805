"""What the evidence of a run says, for people: counts, estimate, evidence on one scale, what is needed. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.text import Text

from serinus.analysis.model import Finding, Numbers, Verdict
from serinus.analysis.words import count, lasting, milliseconds, percent, plain
from serinus.api.canary import CanarySpec
from serinus.api.release import CanaryStatus, MetricStatus, Phase, RunStatus
from serinus.cli import verdict_page
from serinus.cli.session import Object
from serinus.delivery import evidence, plan
from serinus.delivery.model import since

BAR = 24
"""Length of a bar of 100 %."""
_BAD = {"success-rate": "failed", "latency": "slow"}
_VALUES = {"success-rate": percent, "latency": milliseconds}
_COLOURS = {Verdict.HARM: "red", Verdict.SAFE: "green", Verdict.UNDECIDED: "yellow"}


@dataclass(frozen=True, slots=True)
class Explained:
    """All that is shown of one run. ``rate`` are requests a second to the candidate now; None once it gets none.

    ``holds`` are sentences on what keeps an adaptive weight where it is.
    """

    canary: str
    phase: str
    run: RunStatus
    message: str
    findings: tuple[Finding, ...]
    rate: float | None = None
    holds: tuple[str, ...] = ()


def finding_of(metric: MetricStatus) -> Finding:
    """Return what a status says of a metric as the analysis said it."""
    numbers = None
    if metric.requests is not None:
        excess = (metric.excess[0], metric.excess[1], metric.excess[2]) if len(metric.excess) == 3 else None
        counted = metric.bad or 0, metric.requests, metric.stable_bad or 0, metric.stable_requests or 0
        numbers = Numbers(*counted, excess, metric.harm, metric.safe, metric.needed)
    return Finding(
        metric.name,
        Verdict(metric.verdict),
        metric.candidate,
        metric.stable,
        metric.limit,
        metric.outcome,
        metric.message,
        numbers,
    )


def explained(canary: Object, spec: CanarySpec | None, status: CanaryStatus) -> Explained | None:
    """Return what there is to say of the run under way, or of the last one; None when there was none."""
    run = status.run
    if run is None:
        return None
    meta = canary["metadata"]
    phase = plan.effective_phase(status)
    active = phase in plan.ACTIVE
    return Explained(
        canary=f"{meta['namespace']}/{meta['name']}",
        phase=(status.phase or "not seen yet"),
        run=run,
        message=status.message if active else run.cause_message or status.message,
        findings=tuple(finding_of(metric) for metric in run.metrics),
        rate=candidate_rate(run.evidence, run.measured_weight, run.weight) if active else None,
        holds=tuple(_holds(spec, run)) if spec is not None and phase is Phase.ANALYSING else (),
    )


def candidate_rate(evidence: dict[str, Any], measured_weight: float | None, weight: int) -> float | None:
    """Return how many requests a second the candidate gets: the present rate of both versions, by its share of them.

    Args:
        evidence: ``status.run.evidence``.
        measured_weight: the candidate's share in percent; None while it is not known.
        weight: the share that was asked for.
    """
    watched = _tests(evidence).get("watched") or {}
    rate = float(watched.get("rate") or 0.0) * (weight if measured_weight is None else measured_weight) / 100
    return rate if rate > 0 else None


def _tests(evidence: dict[str, Any]) -> dict[str, Any]:
    return (evidence.get("notes") or {}).get("tests") or {}


def _holds(spec: CanarySpec, run: RunStatus) -> list[str]:
    leg, tests = plan.leg_at(spec, run.step), _tests(run.evidence)
    if leg is None or leg.kind != plan.ADAPTIVE or run.stage != plan.JUDGE or not tests:
        return []
    from serinus.analysis import record
    from serinus.analysis.holding import holds
    from serinus.analysis.model import Counts
    from serinus.analysis.monitor import monitor_of
    from serinus.analysis.rows import plan_of

    tested = plan_of(spec, tuple(tests["edges"]), Counts.of_row(tests["before"]))
    monitor, watched = monitor_of(tested.settings, tested.rows), record.load(tests["watched"])
    at_weight_s = watched.now_s - since(run.started_at, datetime.fromisoformat(run.acknowledged_at))
    requests = evidence.load(run.evidence).window.candidate.requests
    readout = monitor.engine.read(watched.state, watched.now_s)
    return holds(monitor, watched, readout, run.weight, max(0.0, at_weight_s), requests)


# Words


def text(what: Explained, began: str) -> Text:
    """Return one screen.

    Args:
        what: is shown.
        began: when the run began, in words.
    """
    run = what.run
    shown = Text.assemble(("Canary ", "bold"), (what.canary, "bold"), f"  {what.phase}\n")
    _line(shown, "run", ", ".join(part for part in (run.id, f"revision {run.revision}", began) if part))
    if what.rate is not None:
        measured = f", measured {percent(run.measured_weight)}" if run.measured_weight is not None else ""
        _line(shown, "weight", f"{run.weight} %{measured}; the candidate gets {_rate(what.rate)}")
    for index, hold in enumerate(what.holds):
        _line(shown, "" if index else "held by", hold)
    _line(shown, "waits for" if what.rate is not None else "says", what.message)
    if not what.findings:
        shown.append("\nNothing was judged in this run.\n")
    shown.append_text(metrics(what.findings, what.rate))
    ended = what.phase in (Phase.READY, Phase.FAILED)
    return shown.append_text(verdict_page.experiments(run.experiments, ended=ended))


def metrics(findings: tuple[Finding, ...], rate: float | None = None) -> Text:
    """Return every metric with its numbers; remarks, which have none, at the end."""
    shown = Text()
    remarks = [finding for finding in findings if _is_remark(finding)]
    for finding in findings:
        if finding in remarks:
            continue
        verdict = (finding.verdict.value, _COLOURS[finding.verdict])
        limit = f"   limit: {finding.limit}" if finding.limit else ""
        shown.append("\n").append_text(Text.assemble((finding.metric, "bold"), "  ", verdict, limit, "\n"))
        if finding.numbers is None:
            _line(shown, "  now", _values(finding) or finding.outcome or "no number yet")
            _line(shown, "  says", finding.message)
            continue
        _numbers(shown, finding, finding.numbers, rate)
    for remark in remarks:
        shown.append("\n")
        _line(shown, "note", remark.message)
    return shown


def _numbers(shown: Text, finding: Finding, numbers: Numbers, rate: float | None) -> None:
    bad = _BAD.get(finding.metric, "bad")
    for arm, number, of in (
        ("candidate", numbers.bad, numbers.requests),
        ("stable", numbers.stable_bad, numbers.stable_requests),
    ):
        share = f"{_share(number, of):>9}" if of else ""
        _line(shown, f"  {arm}", f"{f'{number:,} of {of:,} {bad}':<32}{share}")
    if finding.metric == "latency":
        _line(shown, "  says", "; ".join(finding.message.removeprefix("latency: ").split("; ")[:2]))
    if numbers.excess:
        _line(shown, "  excess", excess(numbers.excess))
    _evidence(shown, "  harm", numbers.harm, "of what rolls it back", "red")
    _evidence(shown, "  safe", numbers.safe, "of what lets it pass", "green")
    if finding.limit:
        _line(shown, "  needed", _needed(finding, numbers, rate))


def _evidence(shown: Text, label: str, value: float | None, words: str, colour: str) -> None:
    if value is None:
        return
    part = min(max(value, 0.0), 100.0)
    full = int(part * BAR / 100)
    shown.append(f"{label:<12}", "dim").append("█" * full, colour).append("░" * (BAR - full), "dim")
    shown.append(f" {part:>4.0f} % {words}\n")


def _needed(finding: Finding, numbers: Numbers, rate: float | None) -> str:
    if finding.verdict is Verdict.SAFE:
        return "nothing more; it is shown to be within the limit"
    if finding.verdict is Verdict.HARM:
        return "nothing more; it is shown to be beyond the limit"
    return needed(numbers, rate) or "cannot be said: as it is, more requests do not show it to be within the limit"


def needed(numbers: Numbers, rate: float | None) -> str:
    """Return how many more requests it takes, and how long at the present rate; empty when nobody can say."""
    if numbers.needed is None:
        return ""
    if numbers.needed == 0:
        return "no more requests"
    time = f", {lasting(numbers.needed / rate)} at {_rate(rate)}" if rate else ""
    return f"about {count(_roughly(numbers.needed), 'more request')} to the candidate{time}"


def _roughly(number: int) -> int:
    """Return a number in two digits, since nobody knows more of it."""
    size = int(10 ** max(len(str(number)) - 2, 0))
    return -(-number // size) * size


def excess(bounds: tuple[float, float, float]) -> str:
    """Return by how many points the candidate is worse: the estimate, and its bounds."""
    estimate, lower, upper = (_points(value) for value in bounds)
    return f"{estimate} points; with 95 % between {lower} and {upper}, whenever one looks"


def compact(finding: Finding, rate: float | None) -> str:
    """Return the numbers of a metric in one line; empty when it has none."""
    numbers = finding.numbers
    if numbers is None or not numbers.requests:
        return ""
    parts = [f"{numbers.bad:,} of {numbers.requests:,}, stable {numbers.stable_bad:,} of {numbers.stable_requests:,}"]
    if numbers.excess:
        estimate, lower, upper = (_points(value) for value in numbers.excess)
        parts.append(f"excess {estimate} points ({lower} to {upper})")
    for word, value in (("harm", numbers.harm), ("safe", numbers.safe)):
        if value is not None:
            parts.append(f"{word} {min(max(value, 0.0), 100.0):.0f} %")
    if finding.verdict is Verdict.UNDECIDED and finding.limit and numbers.needed:
        parts.append(needed(numbers, rate))
    return "; ".join(parts)


def as_json(what: Explained) -> Object:
    """Return the same for programs."""
    run = what.run
    return {
        "canary": what.canary,
        "phase": str(what.phase),
        "run": run.id,
        "revision": run.revision,
        "startedAt": run.started_at,
        "verdict": run.verdict,
        "weight": run.weight,
        "measuredWeight": run.measured_weight,
        "requestsPerSecond": round(what.rate, 2) if what.rate is not None else None,
        "message": what.message,
        "heldBy": list(what.holds),
        "metrics": [metric_json(finding, what.rate) for finding in what.findings],
        "experiments": [each.model_dump(mode="json", by_alias=True) for each in run.experiments],
    }


def metric_json(finding: Finding, rate: float | None = None) -> Object:
    """Return one metric for programs; shares and evidence in percent, the excess in points."""
    found: Object = {"name": finding.metric, "verdict": finding.verdict.value, "limit": finding.limit}
    found |= {"candidate": finding.candidate, "stable": finding.stable, "outcome": finding.outcome}
    numbers = finding.numbers
    if numbers is not None:
        excess = dict(zip(("estimate", "lower", "upper"), numbers.excess or (), strict=False))
        seconds = round(numbers.needed / rate, 1) if numbers.needed is not None and rate else None
        found |= {
            "bad": numbers.bad,
            "requests": numbers.requests,
            "stableBad": numbers.stable_bad,
            "stableRequests": numbers.stable_requests,
            "excess": excess or None,
            "harm": numbers.harm,
            "safe": numbers.safe,
            "needed": numbers.needed,
            "neededSeconds": seconds,
        }
    return found | {"message": finding.message}


def _is_remark(finding: Finding) -> bool:
    return not (finding.numbers or finding.limit or finding.outcome) and finding.candidate is None


def _values(finding: Finding) -> str:
    show = _VALUES.get(finding.metric, plain)
    parts = [show(finding.candidate)] if finding.candidate is not None else []
    if finding.stable is not None:
        parts.append(f"stable {show(finding.stable)}")
    return ", ".join(parts)


def _line(shown: Text, label: str, words: str) -> None:
    shown.append(f"{label:<12}", "dim").append(f"{words.rstrip()}\n")


def _share(number: int, of: int) -> str:
    return f"{100 * number / of:.2f} %"


def _points(value: float) -> str:
    digits = 2 if abs(value) < 10 else 1
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _rate(rate: float) -> str:
    number = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{number} request{'' if number == '1' else 's'} a second"
