"""Latency at one percentile, from the counts in the sidecars' buckets.

A limit is judged at a bucket's edge, the first one that is not below the limit: "more than one in a hundred took longer
than that" can be counted exactly, a percentile between two edges is only interpolated, for people. So a limit within a
bucket is judged as if it stood at the bucket's upper edge, and the words say so.
"""

from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Finding, Verdict
from serinus.analysis.sequential import FEWEST_BAD, STABLE_NEEDED, harm_log, log_e_difference, log_e_share
from serinus.analysis.words import count, milliseconds, percent
from serinus.api.base import seconds
from serinus.api.canary import Latency


def percentile_ms(counts: Counts, percentile: float) -> float | None:
    """Return the latency at a percentile in milliseconds, interpolated in its bucket; None without counts.

    In the last, open bucket it is the last edge: "at least that".
    """
    total = sum(counts.buckets)
    if not total:
        return None
    rank, below = total * percentile / 100, 0
    for index, edge in enumerate(LATENCY_EDGES_MS):
        inside = counts.buckets[index]
        if inside and below + inside >= rank:
            lower = LATENCY_EDGES_MS[index - 1] if index else 0.0
            return lower + (edge - lower) * (rank - below) / inside
        below += inside
    return LATENCY_EDGES_MS[-1]


def slower_than(counts: Counts, edge: int) -> int:
    """Return how many tries took longer than the edge of this index."""
    return sum(counts.buckets[edge + 1 :])


def edge_at_least(limit_ms: float) -> int | None:
    """Return the index of the first edge that is not below a limit; None above the last."""
    return next((index for index, edge in enumerate(LATENCY_EDGES_MS) if edge >= limit_ms - 1e-9), None)


def show_latency(window: Evidence) -> Finding | None:
    """Return the latency of both versions where nothing limits it: shown, never judged."""
    candidate = percentile_ms(window.candidate, 99)
    if candidate is None:
        return None
    words = f"99th percentile {milliseconds(candidate)}; no limit is set, so it is not judged"
    return Finding("latency", Verdict.UNDECIDED, candidate, percentile_ms(window.stable, 99), "", message=words)


def judge_latency(spec: Latency, min_requests: int, window: Evidence) -> Finding:
    """Return what the latency says: against ``max``, and against the stable version's plus ``maxIncrease``.

    Harm against ``max`` is a share of tries beyond its edge that is greater than the percentile allows, beyond chance.
    Harm against the stable version is that, at the first edge beyond stable's own bucket and the increase, and a share
    greater than stable's at that edge, too; the edge follows the data, so its chance is shared among all edges.

    Args:
        spec: percentile and limits.
        min_requests: so many requests of the candidate are needed to be safe.
        window: what both versions did.
    """
    candidate, stable = window.candidate, window.stable
    allowed = 1 - spec.percentile / 100
    number, stable_number = percentile_ms(candidate, spec.percentile), percentile_ms(stable, spec.percentile)
    total, stable_total = sum(candidate.buckets), sum(stable.buckets)
    name = f"{spec.percentile:g}th percentile of latency"
    comparable = stable_total >= min(min_requests, STABLE_NEEDED)
    limits = [limit for limit in (_fixed(spec), _relative(spec, stable, allowed) if comparable else None) if limit]
    words = " and ".join(text for _, text, _ in limits)

    def finding(verdict: Verdict, message: str, limit: str = words) -> Finding:
        return Finding("latency", verdict, number, stable_number, limit, message=message)

    if number is None:
        return finding(Verdict.UNDECIDED, f"no request to the candidate yet; {min_requests:,} are needed")
    at_least = "at least " if slower_than(candidate, len(LATENCY_EDGES_MS) - 1) > allowed * total else ""
    seen = f"{name} {at_least}{milliseconds(number)} of {count(total, 'request')}"

    for edge, text, relative in limits:
        if edge is None:
            continue
        slow = slower_than(candidate, edge)
        harm = slow >= FEWEST_BAD and log_e_share(slow, total, allowed) >= harm_log(2)
        if harm and relative:
            evidence = log_e_difference(slow, total, slower_than(stable, edge), stable_total, 0.0)
            harm = evidence >= harm_log(2 * len(LATENCY_EDGES_MS))
        if harm:
            share = percent(100 * slow / total)
            message = f"{seen}, {share} took longer than {milliseconds(LATENCY_EDGES_MS[edge])}; the limit is {text}"
            return finding(Verdict.HARM, message, text)

    if (missing := min_requests - total) > 0:
        return finding(Verdict.UNDECIDED, f"{seen}; needed: {count(missing, 'more request')} to the candidate")
    if spec.max_increase is not None and not comparable and (stable_total or spec.max is None):
        return finding(Verdict.UNDECIDED, f"{seen}; too few requests to the stable version to compare with")
    for edge, text, _ in limits:
        if edge is None:
            return finding(Verdict.UNDECIDED, f"{seen}; {text}")
        if slower_than(candidate, edge) > allowed * total + 1e-9:
            message = f"{seen} is above the limit of {text}, by no more than chance may do; waiting for more"
            return finding(Verdict.UNDECIDED, message)
    against = f" (stable {milliseconds(stable_number)})" if stable_number is not None else ""
    return finding(Verdict.SAFE, f"{seen}{against}")


Limit = tuple[int | None, str, bool]
"""Index of the edge that is judged, the limit in words, whether it comes from the stable version."""


def _fixed(spec: Latency) -> Limit | None:
    if spec.max is None:
        return None
    limit_ms = seconds(spec.max) * 1000
    edge = edge_at_least(limit_ms)
    if edge is None:
        return (
            None,
            f"latency.max is beyond the {milliseconds(LATENCY_EDGES_MS[-1])} that are counted; write less",
            False,
        )
    return edge, milliseconds(limit_ms) + _counted_at(edge, limit_ms), False


def _relative(spec: Latency, stable: Counts, allowed: float) -> Limit | None:
    total = sum(stable.buckets)
    if spec.max_increase is None or not total:
        return None
    indices = range(len(LATENCY_EDGES_MS))
    own = next((index for index in indices if slower_than(stable, index) <= allowed * total + 1e-9), None)
    limit_ms = LATENCY_EDGES_MS[own] * (1 + spec.max_increase / 100) if own is not None else float("inf")
    edge = edge_at_least(limit_ms)
    if own is None or edge is None:
        beyond = milliseconds(LATENCY_EDGES_MS[-1])
        return None, f"stable's own and {spec.max_increase:g} % is beyond the {beyond} that are counted", True
    stable_words = f"stable's {milliseconds(LATENCY_EDGES_MS[own])} + {spec.max_increase:g} %"
    return edge, f"{milliseconds(limit_ms)} ({stable_words})" + _counted_at(edge, limit_ms), True


def _counted_at(edge: int, limit_ms: float) -> str:
    exact = abs(LATENCY_EDGES_MS[edge] - limit_ms) < 1e-9
    return "" if exact else f", counted at {milliseconds(LATENCY_EDGES_MS[edge])}"
