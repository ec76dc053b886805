"""Latency from the counts in the sidecars' buckets: exact at an edge, interpolated between edges for people."""

from serinus.analysis.model import LATENCY_EDGES_MS, Counts

_RARELY = 0.01
_ENOUGH = 100
_UNKNOWN_MS = 500.0
_APART = 3.9


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


def slow_edges(counts: Counts, floor_ms: float) -> tuple[int, ...]:
    """Return the indices of the edges beyond which an answer is slow for a version that answers as counted.

    The first is the lowest, not below the floor, that at most one answer in a hundred took longer than; the others
    follow at about four times the one before. Where fewer than a hundred answers were counted the first is 500 ms.
    """
    total = sum(counts.buckets)
    chosen: list[int] = []
    for index, edge in enumerate(LATENCY_EDGES_MS):
        rare = slower_than(counts, index) <= _RARELY * total if total >= _ENOUGH else edge >= _UNKNOWN_MS
        if edge >= floor_ms - 1e-9 and rare and (not chosen or edge >= _APART * LATENCY_EDGES_MS[chosen[-1]]):
            chosen.append(index)
    return tuple(chosen)


def edge_at_least(limit_ms: float) -> int | None:
    """Return the index of the first edge that is not below a limit; None above the last."""
    return next((index for index, edge in enumerate(LATENCY_EDGES_MS) if edge >= limit_ms - 1e-9), None)
