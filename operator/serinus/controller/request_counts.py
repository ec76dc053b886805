"""Requests of both versions as Prometheus has them, in the place of the callers' sidecars: one query, one moment.

All that is asked for goes into one query, so that Prometheus answers it as of one moment: a failure is never read
before the request that failed. Differences are taken here, per series, of raw counters: ``rate()`` would miss the first
failures of a new series, and a sum over pods falls when one of them goes.

What the first answer shows is not evidence, it is where counting starts: a restart of the operator counts nothing
twice. After it, a series of the candidate's that is new counts in full, for its pods were made for this run. So does
one of a pod that is known. A pod of the stable version that comes later may be old, and only its discovery new: it
starts where it is first seen. A counter that fell began again at 0.
"""

import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence, Outcome, Reading, Series
from serinus.analysis.promql import render_query
from serinus.analysis.questions import unanswered
from serinus.api.analysis import RequestQueries
from serinus.delivery.model import Totals
from serinus.mesh.envoy_stats import EndpointCounters
from serinus.mesh.halves import Halves

NAME = "requests"
"""Name of the query's readings."""
_PART = "serinus_part"
_VERSIONS = ("candidate", "stable")
_FIELDS = ("total", "failed", "durations")
_POD_LABELS = ("pod", "instance")
_ROUNDING = 1e-9


def combined(queries: RequestQueries, names: Mapping[str, str]) -> str:
    """Return one query for all that is counted of both versions; a label tells its parts apart.

    Args:
        queries: one revision's queries.
        names: what is filled in; ``revision`` is the candidate's, ``stableRevision`` the stable version's.
    """
    parts = []
    for version in _VERSIONS:
        own = {**names, "revision": names["revision" if version == "candidate" else "stableRevision"]}
        for name in _FIELDS:
            if template := getattr(queries, name):
                query = render_query(template, **own)
                parts.append(f'label_replace(\n{query}\n, "{_PART}", "{version}/{name}", "", "")')
    return " or ".join(parts)


@dataclass(slots=True)
class _Version:
    """What one version's series rose by since counting began. ``below`` are durations, cumulative, by upper edge."""

    total: float = 0.0
    failed: float = 0.0
    below: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, part: str, labels: Mapping[str, str], rose: float) -> None:
        if part == "total":
            self.total += rose
        elif part == "failed":
            self.failed += rose
        else:
            self.below[float(labels["le"])] += rose

    def counts(self) -> Counts:
        """Return the same in whole requests, durations by ``LATENCY_EDGES_MS``.

        A bucket whose upper edge is none of ours is part of the next greater one; so is it for the other version.
        """
        buckets = [0.0] * (len(LATENCY_EDGES_MS) + 1)
        for (_, low), (edge, high) in pairwise([(0.0, 0.0), *sorted(self.below.items())]):
            buckets[_bucket(edge)] += max(0.0, high - low)
        total = round(self.total)
        return Counts(total, min(total, round(self.failed)), tuple(round(each) for each in buckets))


def _bucket(edge_s: float) -> int:
    within = (index for index, edge in enumerate(LATENCY_EDGES_MS) if edge_s * 1000 <= edge * (1 + _ROUNDING))
    return next(within, len(LATENCY_EDGES_MS))


Key = tuple[tuple[str, str], ...]


class RequestCounts:
    """What was counted in one run. It takes the query's readings as they come, and never falls."""

    def __init__(self, queries: RequestQueries, clock_s: float) -> None:
        """Begin at ``clock_s``, seconds of any clock that goes on evenly."""
        self.queries = queries
        self._reader = secrets.token_hex(6)
        self._read_at_s = clock_s
        self._sequence = 0
        self._begun = False
        self._seen: dict[Key, float] = {}
        self._pods: set[str] = set()
        self._sums = (_Version(), _Version())
        self._of_pods: dict[str, list[float]] = {}
        self._evidence = Evidence()
        self._before = Counts()
        self._halves = Halves()
        self._outcome, self._trouble = "", ""

    def take(self, reading: Reading | None, now_s: float) -> None:
        """Take in the last answer, at ``now_s`` of the clock. One that was taken before does not count twice."""
        if reading is None or reading.sequence == self._sequence:
            return
        self._sequence = reading.sequence
        self._outcome, self._trouble = _trouble(reading, timed=self.queries.durations is not None)
        if self._outcome:
            return
        self._read_at_s = now_s
        history = _Version()
        for each in reading.series:
            self._count(each, history)
        self._begun = True
        self._pods |= {_pod(each) for each in reading.series}
        candidate, stable = (version.counts() for version in self._sums)
        self._before += history.counts()
        self._evidence = Evidence(self._evidence.candidate.risen(candidate), self._evidence.stable.risen(stable))
        pods = {
            f"{pod}_": EndpointCounters(round(total - min(total, failed)), round(min(total, failed)))
            for pod, (total, failed) in self._of_pods.items()
        }
        self._halves.take(NAME, {"stable": pods}, newborn=True)

    def _count(self, series: Series, history: _Version) -> None:
        """Add by how much one series rose."""
        version, _, part = series.labels[_PART].partition("/")
        index = _VERSIONS.index(version)
        key = tuple(sorted(series.labels.items()))
        earlier = self._seen.get(key)
        self._seen[key] = series.value
        if earlier is not None:
            rose = series.value - earlier if series.value >= earlier else series.value
        elif self._begun and (version == "candidate" or _pod(series) in self._pods):
            rose = series.value
        else:
            if version == "stable":
                history.add(part, series.labels, series.value)
            return
        self._sums[index].add(part, series.labels, rose)
        if version == "stable" and part in ("total", "failed"):
            self._of_pods.setdefault(_pod(series), [0.0, 0.0])[part == "failed"] += rose

    def totals(self, now_s: float) -> Totals:
        """Return what was counted, at ``now_s`` of the clock."""
        return Totals(
            self._reader,
            self._evidence,
            halves=self._halves.sums,
            before=self._before,
            stable_pods=len(self._halves.tried),
            age_s=now_s - self._read_at_s,
            outcome=self._outcome,
            trouble=self._trouble,
        )


def _pod(series: Series) -> str:
    return next(series.labels[label] for label in _POD_LABELS if label in series.labels)


def _trouble(reading: Reading, *, timed: bool) -> tuple[str, str]:
    """Return the outcome's name and a sentence when an answer cannot be counted; two empty texts when it can.

    ``timed`` tells that durations were asked for.
    """
    if reading.outcome is not Outcome.VALUE:
        return reading.outcome.value, f"requests cannot be counted: {unanswered(reading)}"
    parts = defaultdict(list)
    for each in reading.series:
        part = each.labels.get(_PART, "")
        parts[part].append(each)
        if not any(label in each.labels for label in _POD_LABELS):
            return _refused(
                f"requests.{part.partition('/')[2]} gives series without a label pod or instance; keep one of them, for"
                " a sum over pods falls when one of them goes"
            )
    for version in _VERSIONS:
        buckets = parts[f"{version}/durations"]
        edges = [each.labels.get("le", "") for each in buckets]
        if not all(map(_is_edge, edges)):
            return _refused("requests.durations gives series without a label le; write the buckets of a histogram")
        if buckets and inf not in map(float, edges):
            return _refused('requests.durations gives no bucket with le="+Inf"; do not leave it out')
        if timed and not buckets and any(each.value for each in parts[f"{version}/total"]):
            return _refused(
                f"requests.durations gives nothing of the {version} version, which has requests; correct it"
            )
    return "", ""


def _refused(words: str) -> tuple[str, str]:
    return Outcome.QUERY_ERROR.value, f"requests cannot be counted: {words}"


def _is_edge(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False
