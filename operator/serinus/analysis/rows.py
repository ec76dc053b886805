"""From a Canary's spec to what the engine tests: settings, rows, and the edges that latency is counted at."""

from dataclasses import dataclass, replace
from math import log
from typing import Any

from serinus.analysis.latency import edge_at_least, percentile_ms, slower_than
from serinus.analysis.model import LATENCY_EDGES_MS, Counts
from serinus.analysis.settings import PROFILES, Margin, Profile, Row, Settings, Tolerance
from serinus.api.analysis import Analysis, Latency, Line, SuccessRate
from serinus.api.analysis import Tolerance as ToleranceSpec
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec

ERRORS = "success-rate"
LATENCY = "latency"
ABANDONED = "abandoned"

_SHARES = (0.5, 0.25, 0.1, 0.01, 0.001)
"""Shares of stable's requests that are slower than an edge; the edges that come nearest are tested."""
_NO_HISTORY = (50.0, 100.0, 250.0, 500.0, 1000.0)
_HISTORY_NEEDED = 100
MOST_HISTORY = 50_000
"""What stable did before the run weighs no more than so many requests."""
_NEVER = Margin(1.0, 1.0)
_STRICTEST_MIN = 1e-3
_COMPARED_UP_TO = 100.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tested for one Canary. ``watch_s`` and ``hold_back_pct`` are the profile's."""

    settings: Settings
    rows: tuple[Row, ...]
    watch_s: float
    hold_back_pct: int


def settings_of(spec: CanarySpec) -> Settings:
    """Return the engine's settings: the profile's, and what the spec sets instead."""
    analysis, tuning = spec.analysis, spec.analysis.tuning
    chosen: dict[str, float | int | None] = {
        "alpha": tuning.false_alarm,
        "beta": tuning.wrongly_safe,
        "budget": tuning.budget,
        "growth": tuning.growth,
        "suspicion": tuning.suspicion,
        "cap": tuning.cap,
    }
    times = {
        "warm_up_s": analysis.warm_up,
        "reaction_s": tuning.reaction,
        "dwell_s": tuning.dwell,
        "last_s": tuning.last,
        "shortest_s": tuning.shortest,
        "block_s": tuning.block,
        "memory_s": tuning.memory,
    }
    chosen |= {name: seconds(given) for name, given in times.items() if given is not None}
    if spec.strategy.adaptive:
        chosen["most_pct"] = spec.strategy.adaptive.max_weight
    settings: dict[str, Any] = {name: given for name, given in chosen.items() if given is not None}
    return replace(PROFILES[analysis.profile].settings, **settings)


def fewest(spec: CanarySpec, settings: Settings) -> int:
    """Return how many requests to the candidate a weight needs before another follows."""
    return spec.analysis.min_requests if spec.strategy.steps else settings.fewest


def rows_of(analysis: Analysis, edges: tuple[int, ...], stable: Counts) -> tuple[Row, ...]:
    """Return the rows to test. The first is about failed requests, whether it is limited or not.

    Args:
        analysis: the limits.
        edges: indices of the latency edges at which both versions are compared.
        stable: what stable did before the run; the limit of ``latency.maxIncrease`` comes from it.
    """
    profile = PROFILES[analysis.profile]
    rows = [_errors(analysis.success_rate, profile)]
    if analysis.success_rate.min:  # at 0 there is no limit
        least = max(1 - analysis.success_rate.min / 100, 1e-6)
        safe = max(least, _STRICTEST_MIN) if analysis.success_rate.min == 100 else least
        rows.append(Row(ERRORS, Margin(0.0, least), (Tolerance(0, 0.0, safe),)))
    if analysis.latency.compare and analysis.timed:
        rows += [_slow(analysis.latency, profile, edge) for edge in edges]
    rows += _limited(analysis.latency, stable)
    return (*rows, _abandoned(analysis, profile))


def _errors(limits: SuccessRate, profile: Profile) -> Row:
    promise, tolerances = _margins(limits.promise, limits.tolerances, profile.promise, profile.tolerances)
    if limits.max_drop is not None:
        drop = limits.max_drop / 100
        promise, tolerances = Margin(1.0, drop), (Tolerance(0, 1.0, max(drop, 1e-6)),)
        if limits.max_drop >= _COMPARED_UP_TO:
            return Row(ERRORS, _NEVER, ())
    return Row(ERRORS, promise, tolerances, outage=True)


def _slow(limits: Latency, profile: Profile, edge: int) -> Row:
    promise, tolerances = _margins(
        limits.promise, limits.tolerances, profile.promise_latency, profile.tolerances_latency
    )
    return Row(LATENCY, promise, tolerances, edge=edge)


def _abandoned(analysis: Analysis, profile: Profile) -> Row:
    """Return the row of requests that callers gave up: as many as of slow ones, if failures or latency are compared.

    A candidate that hangs shows in these alone. They can roll it back, but need not be shown to be few.
    """
    promise, _ = _margins(analysis.latency.promise, None, profile.promise_latency, ())
    compared = analysis.latency.compare or (analysis.success_rate.max_drop or 0) < _COMPARED_UP_TO
    return Row(ABANDONED, promise if compared else _NEVER, ())


def _margins(
    line: Line | None, given: list[ToleranceSpec] | None, promise: Margin, tolerances: tuple[Tolerance, ...]
) -> tuple[Margin, tuple[Tolerance, ...]]:
    if line is not None:
        promise = Margin(line.ratio, line.points / 100)
    if given is not None:
        tolerances = tuple(Tolerance(seconds(each.after), each.ratio, each.points / 100) for each in given)
    return promise, tolerances


def _limited(limits: Latency, stable: Counts) -> list[Row]:
    """Return the rows of ``max`` and ``maxIncrease``.

    Slower than ``max`` may be as many requests as the percentile leaves. Slower than stable's own latency plus the
    increase may be as many more than of stable's.
    """
    allowed = 1 - limits.percentile / 100
    rows = []
    if limits.max is not None:
        edge = edge_at_least(seconds(limits.max) * 1000)
        if edge is not None:
            rows.append(Row(LATENCY, Margin(0.0, allowed), (Tolerance(0, 0.0, allowed),), edge=edge))
    if limits.max_increase is not None:
        own = percentile_ms(stable, limits.percentile)
        edge = edge_at_least((own or 0.0) * (1 + limits.max_increase / 100)) if own is not None else None
        if edge is not None:
            rows.append(Row(LATENCY, Margin(1.0, allowed), (Tolerance(0, 1.0, allowed),), edge=edge))
    return rows


def choose_edges(limits: Latency, stable: Counts) -> tuple[int, ...]:
    """Return up to five latency edges: those at which stable's shares of slower requests are nearest to ``_SHARES``.

    They are chosen from what stable did before the candidate's first request. Edges below the floor are left out.
    """
    floor = seconds(limits.floor) * 1000
    possible = [index for index, edge in enumerate(LATENCY_EDGES_MS) if edge >= floor]
    total = sum(stable.buckets)
    if total < _HISTORY_NEEDED:
        return tuple(index for index in possible if LATENCY_EDGES_MS[index] in _NO_HISTORY)
    shares = {index: (slower_than(stable, index) + 0.5) / (total + 1) for index in possible}
    chosen = {
        min(possible, key=lambda index: abs(_logit(shares[index]) - _logit(target))) for target in _SHARES if possible
    }
    return tuple(sorted(chosen))


def _logit(share: float) -> float:
    return log(share / (1 - share))


def plan_of(spec: CanarySpec, edges: tuple[int, ...], stable: Counts) -> Plan:
    """Return all that is tested for a Canary."""
    profile = PROFILES[spec.analysis.profile]
    return Plan(settings_of(spec), rows_of(spec.analysis, edges, stable), profile.watch_s, profile.hold_back_pct)
