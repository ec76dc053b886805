"""The judge: a Canary's spec and what was counted in, verdict, findings and advice on the weight out.

The state of the tests comes with the call and goes back with the judgement, as plain JSON: the same sample on the same
state gives the same judgement, in another process and another year.
"""

import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np

from serinus.analysis import guards, record, runlog
from serinus.analysis.advice import Advice, advise
from serinus.analysis.dispersion import SPAN_S
from serinus.analysis.engine import Arms, Readout
from serinus.analysis.evalues import Floats
from serinus.analysis.findings import abandoned_finding, errors_finding, latency_finding, worst_of
from serinus.analysis.latency import slower_than
from serinus.analysis.model import Counts, Evidence, Finding, Judgement, Sample, Verdict
from serinus.analysis.monitor import Monitor, Scrape, Watched, monitor_of
from serinus.analysis.queries import judge_queries
from serinus.analysis.ramp import first_weight
from serinus.analysis.rows import ABANDONED, ERRORS, MOST_HISTORY, Plan, choose_edges, fewest, plan_of
from serinus.analysis.settings import Row
from serinus.analysis.users import UserTests
from serinus.analysis.words import count
from serinus.api.canary import CanarySpec

_ALL = 100
_BESIDE = 5.0
"""So many remembered requests of stable stand beside one of the candidate's."""
_TESTS = 3
"""Raised when the state of the tests gets another shape or meaning: a run under way then begins its tests anew."""
_RATE_KNOWN_S = 5.0
"""So long the requests are counted before their rate decides the first weight."""
_LEAST_LENGTH_S = 1.0
"""A scrape shorter than this is put together with the next one."""


@dataclass(slots=True)
class Bench:
    """The tests of one run while they are looked at: what is tested, and what it has come to."""

    plan: Plan
    monitor: Monitor
    watched: Watched
    edges: tuple[int, ...]
    before: Counts
    taken: Evidence
    halves: tuple[tuple[int, int], tuple[int, int]]
    print: str
    rows: list[str] = field(default_factory=list)
    """What was taken in this time, for the log of the run."""


def judge(spec: CanarySpec, sample: Sample, state: dict[str, Any]) -> Judgement:
    """Return what the evidence says of the candidate.

    Args:
        spec: what the candidate is judged by.
        sample: what was counted in this run so far, and where it stands.
        state: ``Judgement.state`` of the last call in this run; empty at the first.

    Returns:
        HARM if the evidence for harm of one kind of metric suffices, SAFE if that for safety of all does and enough
        requests were seen at the present weight, else UNDECIDED; with a sentence on what decided, or is waited for.
    """
    bench = _opened(spec, sample, state)
    users = UserTests.load(spec, state.get("users"))
    noted = {"queries": state["queries"]} if "queries" in state else {}
    queries, tallies = judge_queries(spec.analysis, sample.readings, noted)
    if bench is None:
        words = f"no request to the candidate yet; {spec.analysis.min_requests:,} are needed at each weight"
        noted = _noted(spec, sample, state, [], users, tallies)
        nothing = Finding(ERRORS, Verdict.UNDECIDED, message=words)
        return Judgement(Verdict.UNDECIDED, words, (nothing, *queries), noted, hold=words, starved=True)
    readout = _advance(bench, sample)
    noted = _noted(spec, sample, state, bench.rows, users, tallies)
    weight = np.array([float(sample.weight_pct)])
    requests = np.array([float(sample.window.candidate.requests)])
    advice = advise(bench.monitor, bench.watched, readout, weight, np.array([sample.at_weight_s]), requests)
    findings = _findings(spec, sample, bench, readout)
    judged = [finding for finding in findings if finding.limit] + queries + users.findings(bench.plan.settings)
    kept: dict[str, Any] = {**noted, "level": state.get("level") or []}
    return _concluded(spec, sample, bench, advice, judged, findings, kept)


def _noted(
    spec: CanarySpec,
    sample: Sample,
    state: dict[str, Any],
    rows: list[str],
    users: UserTests,
    tallies: dict[str, Any],
) -> dict[str, Any]:
    """Let the users' tests take in what is new; return their state, and the log of the run with ``rows`` in it."""
    users.take(sample.readings, sample.now_s)
    taken = users.dump()
    answered = runlog.answered(state, sample.now_s, sample.readings, tallies.get("queries") or {}, taken)
    log = runlog.noted(state, [*rows, *answered])
    return {**tallies, "users": taken, **log, "spec": runlog.spec_of(spec)}


def _concluded(
    spec: CanarySpec,
    sample: Sample,
    bench: Bench,
    advice: Advice,
    judged: list[Finding],
    shown: list[Finding],
    kept: dict[str, Any],
) -> Judgement:
    verdict, message = worst_of(judged)
    missing = fewest(spec, bench.plan.settings) - sample.window.candidate.requests
    level, kept["level"] = guards.level_hold(spec, sample, kept["level"])
    hold = level or guards.share_hold(sample) or _hold(sample, bench, advice, missing)
    if verdict is Verdict.SAFE and missing > 0:
        verdict, message = Verdict.UNDECIDED, _missing(missing, sample)
    follows = int(advice.weight_pct[0]) if sample.weight_pct else _first(bench)
    others = [finding for finding in judged if finding not in shown]
    return Judgement(
        verdict,
        message,
        (*shown, *others, *guards.remarks(sample)),
        kept | {"tests": _closed(bench)},
        hold=hold,
        starved=not sample.window.candidate.requests,
        weight_pct=sample.weight_pct if hold and sample.weight_pct else follows,
        done=bool(advice.done[0]) and verdict is Verdict.SAFE and not hold,
    )


def _first(bench: Bench) -> int:
    """Return the first weight of an adaptive run in percent; 0 while the rate of requests is not known yet."""
    watched = bench.watched
    known_s = watched.dispersion.blocks * SPAN_S + watched.halves_s
    return int(first_weight(bench.plan.settings, watched.rate)[0]) if known_s >= _RATE_KNOWN_S else 0


def _missing(missing: int, sample: Sample) -> str:
    if not sample.window.candidate.requests:
        return f"no request to the candidate yet at this weight; {missing:,} are needed"
    have = count(sample.window.candidate.requests, "request")
    return f"{have} to the candidate at this weight; needed: {count(missing, 'more request')}"


def _hold(sample: Sample, bench: Bench, advice: Advice, missing: int) -> str:
    """Return why the weight must not rise now."""
    if bool(advice.suspicious[0]):
        return "the evidence for harm is being looked into"
    if sample.weight_pct and missing > 0:
        return _missing(missing, sample)
    return ""


def _opened(spec: CanarySpec, sample: Sample, state: dict[str, Any]) -> Bench | None:
    """Return the tests as the state has them, or new ones; None before anything was counted."""
    raw = state.get("tests") or {}
    print_ = fingerprint(spec)
    if raw.get("print") == print_:
        before = Counts.of_row(raw["before"])
        edges = tuple(raw["edges"])
        plan = plan_of(spec, edges, before)
        monitor = monitor_of(plan.settings, plan.rows)
        taken = Evidence(*(Counts.of_row(row) for row in raw["taken"]))
        halves = (tuple(raw["halves"][0]), tuple(raw["halves"][1]))
        return Bench(plan, monitor, record.load(raw["watched"]), edges, before, taken, halves, print_)
    total = sample.total
    before = sample.before if sample.before.requests >= total.stable.requests else total.stable
    if not before.requests and not total.candidate.requests:
        return None
    edges = choose_edges(spec.analysis.latency, before)
    return begun(spec, edges, before, max(0.0, sample.counted_s - 2 * _LEAST_LENGTH_S))


def begun(spec: CanarySpec, edges: tuple[int, ...], before: Counts, now_s: float) -> Bench:
    """Return new tests, that begin at ``now_s`` seconds of the run.

    Args:
        spec: what is tested.
        edges: indices of the latency edges at which both versions are compared.
        before: what stable did before the run.
        now_s: from here on time counts.
    """
    plan = plan_of(spec, edges, before)
    monitor = monitor_of(plan.settings, plan.rows)
    watched = monitor.start(1, _history(plan.rows, before))
    watched.now_s = now_s
    halves = ((0, 0), (0, 0))
    rows = [runlog.started(now_s)]
    return Bench(plan, monitor, watched, edges, before, Evidence(), halves, fingerprint(spec), rows)


def fingerprint(spec: CanarySpec) -> str:
    """Return what tells apart what is tested in another way, by spec or by us: then the tests begin afresh."""
    analysis = spec.analysis.model_dump(mode="json", exclude={"metrics", "prometheus", "interval", "min_requests"})
    if analysis["requests"] is None:  # as before there was a choice
        del analysis["requests"]
    adaptive = spec.strategy.adaptive.model_dump(mode="json") if spec.strategy.adaptive else None
    return sha256(json.dumps([_TESTS, analysis, adaptive], sort_keys=True).encode()).hexdigest()[:12]


def _closed(bench: Bench) -> dict[str, Any]:
    return {
        "print": bench.print,
        "edges": list(bench.edges),
        "before": bench.before.row(),
        "taken": [bench.taken.candidate.row(), bench.taken.stable.row()],
        "halves": [list(half) for half in bench.halves],
        "watched": record.dump(bench.watched),
    }


def _history(rows: tuple[Row, ...], before: Counts) -> Arms:
    """Return what stable did before the run, by row. A long history weighs no more than a fair one."""
    requests = np.array([[float(_requests(before, row))] for row in rows])
    bad = np.array([[float(_bad(before, row))] for row in rows])
    scale = np.minimum(1.0, MOST_HISTORY / np.maximum(requests, 1))
    nothing = np.zeros_like(bad)
    return Arms.of(nothing, nothing, bad * scale, requests * scale)


def _advance(bench: Bench, sample: Sample) -> Readout:
    """Let the tests take in what is new in the sample; too soon after the last time, nothing is."""
    if sample.counted_s - bench.watched.now_s < _LEAST_LENGTH_S:
        return bench.monitor.engine.read(bench.watched.state, bench.watched.now_s)
    new = Evidence(sample.total.candidate - bench.taken.candidate, sample.total.stable - bench.taken.stable)
    bad_1, n_1, bad_2, n_2 = (
        max(0, now - then)
        for half, earlier in zip(sample.halves, bench.halves, strict=True)
        for now, then in ((half[1], earlier[1]), (half[0], earlier[0]))
    )
    pods = sample.candidates, sample.stables
    entry = runlog.Entry(sample.counted_s, sample.weight_pct, *pods, new, (bad_1, n_1, bad_2, n_2))
    bench.rows.append(runlog.row_of(entry))
    bench.halves = sample.halves
    return take_in(bench, entry)


def take_in(bench: Bench, entry: runlog.Entry) -> Readout:
    """Let the tests take in one entry of the log; ``bench`` is changed in place, but for its ``halves``."""
    arms = arms_of(bench.plan.rows, entry.new)
    if entry.weight_pct >= _ALL and not entry.new.stable.requests:
        arms = _beside_memory(arms, bench.watched)
    halves = np.array([[float(number)] for number in entry.halves])
    pods = np.array([float(entry.candidates)]), np.array([float(entry.stables)])
    bench.taken = Evidence(bench.taken.candidate + entry.new.candidate, bench.taken.stable + entry.new.stable)
    return bench.monitor.take(bench.watched, Scrape(arms, halves, *pods), entry.now_s)


def _beside_memory(arms: Arms, watched: Watched) -> Arms:
    """Return the candidate's counts beside what stable is remembered to do: at weight 100 it gets no request.

    No e-value stands behind that comparison; it is for the moments in which a candidate that has passed takes over.
    """
    requests = np.minimum(_BESIDE * arms.n_c, watched.state.known)
    return Arms.of(arms.bad_c, arms.n_c, requests * watched.state.known_bad / watched.state.known, requests)


def arms_of(rows: tuple[Row, ...], counted: Evidence) -> Arms:
    """Return counts of both versions as the engine takes them, for one release."""

    def column(values: list[int]) -> Floats:
        return np.array([[float(value)] for value in values])

    return Arms.of(
        column([_bad(counted.candidate, row) for row in rows]),
        column([_requests(counted.candidate, row) for row in rows]),
        column([_bad(counted.stable, row) for row in rows]),
        column([_requests(counted.stable, row) for row in rows]),
    )


def _bad(counts: Counts, row: Row) -> int:
    if row.edge is not None:
        return slower_than(counts, row.edge)
    return counts.abandoned if row.family == ABANDONED else counts.failures


def _requests(counts: Counts, row: Row) -> int:
    """Return the requests of a row: those with a latency for latency, which answers that never came have not."""
    return counts.requests if row.edge is None else max(sum(counts.buckets), 0)


def _findings(spec: CanarySpec, sample: Sample, bench: Bench, readout: Readout) -> list[Finding]:
    return [
        errors_finding(spec, sample, bench.monitor, bench.watched, readout),
        *latency_finding(spec, sample, bench.monitor, bench.watched, readout),
        *abandoned_finding(sample, bench.monitor, bench.watched, readout),
    ]
