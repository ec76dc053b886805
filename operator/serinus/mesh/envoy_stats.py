"""What Envoy counts about a cluster, as its administration tells it, and the tries and failures behind that. Pure.

Envoy has no counter for "tries that failed". What each kind of try leaves behind was run against Envoy 1.40, with
retries that go to another cluster (``refresh_cluster_on_retry``); the first cluster's counters then show:

==============================  ==================================================================================
an answer                       ``total``, ``completed``, ``5xx`` if it is one, a latency
an answer that is retried       ``total``, ``retry.completed``, ``retry.5xx``; no latency
no connection, HTTP/1 or 2      ``pending_failure_eject``; ``connect_fail`` counts connections, so one for many tries
a connection cut, HTTP/1        ``total``, ``destroy_remote_with_active_rq``
a connection cut, HTTP/2        ``total``, ``pending_failure_eject``
a reset of the stream, HTTP/2   ``total``, ``rx_reset``
a try that takes too long       ``total``, ``timeout`` or ``per_try_timeout``; no latency
the client goes away, HTTP/1    ``total``, ``destroy_local_with_active_rq``
the client goes away, HTTP/2    ``total``, ``tx_reset``
==============================  ==================================================================================

A try that takes too long is also cut by the sidecar, so it leaves behind what a client that goes away does. Whatever of
these is not retried is also ``completed`` and ``5xx``, by Envoy's own reply. A gRPC status is counted once
per request, for the cluster of its first try.

A cluster with ``track_cluster_stats: {per_endpoint_stats: true}`` also shows its endpoints, whatever the list of kept
statistics says. They count each try that ended once, retried or not: ``rq_error`` is a 5xx, a reset, no connection, a
time-out, or a gRPC status that means a 5xx, UNIMPLEMENTED among them and RESOURCE_EXHAUSTED not; ``rq_success`` is any
other answer, one that broke off after its headers too. An endpoint that leaves, and any when its cluster is sent anew,
begins at 0 again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import add, attrgetter, lt, sub
from sys import intern
from typing import Any, NamedTuple

from serinus.analysis.model import LATENCY_EDGES_MS, Counts

_FIELDS = {
    "upstream_rq_total": "total",
    "upstream_rq_active": "active",
    "upstream_rq_completed": "completed",
    "upstream_rq_5xx": "errors",
    "retry.upstream_rq_5xx": "retried_errors",
    "upstream_rq_pending_failure_eject": "ejected",
    "upstream_cx_connect_fail": "connect_failures",
    "upstream_cx_destroy_remote_with_active_rq": "cut",
    "upstream_rq_rx_reset": "reset",
    "upstream_cx_destroy_local_with_active_rq": "closed",
    "upstream_rq_tx_reset": "withdrawn",
    "upstream_rq_timeout": "timeouts",
    "upstream_rq_per_try_timeout": "try_timeouts",
    "upstream_cx_none_healthy": "no_host",
    "upstream_cx_http2_total": "http2",
    "upstream_rq_pending_overflow": "overflow",
}
_ON_DEMAND = ("errors", "retried_errors", "grpc_faults")
_SERVER_FAULTS = frozenset({2, 4, 8, 13, 14, 15})
"""gRPC's UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS: not the caller's doing."""
_UPTIME = "server.uptime"
_STAGED = "http.stage.downstream_rq_total"
_PREFIX = "cluster."
_ENDPOINT = ".endpoint."
_LATENCY = ".upstream_rq_time"
_NO_BUCKETS = (0,) * (len(LATENCY_EDGES_MS) + 1)


@dataclass(frozen=True, slots=True)
class ClusterCounters:
    """Envoy's counters of one cluster, since the sidecar started or as a difference; ``active`` is a gauge.

    ``buckets`` holds latencies by ``LATENCY_EDGES_MS``, not cumulative.
    """

    total: int = 0
    active: int = 0
    completed: int = 0
    errors: int = 0
    retried_errors: int = 0
    ejected: int = 0
    connect_failures: int = 0
    cut: int = 0
    reset: int = 0
    closed: int = 0
    withdrawn: int = 0
    timeouts: int = 0
    try_timeouts: int = 0
    no_host: int = 0
    overflow: int = 0
    http2: int = 0
    grpc_faults: int = 0
    buckets: tuple[int, ...] = _NO_BUCKETS

    def __add__(self, other: "ClusterCounters") -> "ClusterCounters":
        return _combined(add, self, other)

    def __sub__(self, other: "ClusterCounters") -> "ClusterCounters":
        return _combined(sub, self, other)

    def since(self, earlier: "ClusterCounters") -> "ClusterCounters":
        """Return what was counted since ``earlier``: all of it, if a counter fell, as the cluster then began again.

        A cluster that is sent anew under its name keeps its counters, but for those that Envoy makes when they are
        first needed: codes of answers, gRPC's, and latencies. These begin again by themselves.
        """
        if any(map(lt, _kept(self), _kept(earlier))):
            return self
        change = self - earlier
        anew: dict[str, Any] = {name: getattr(self, name) for name in _ON_DEMAND if getattr(change, name) < 0}
        if min(change.buckets) < 0:
            anew["buckets"] = self.buckets
        return replace(change, **anew) if anew else change

    def counts(self) -> Counts:
        """Return tries, failed and abandoned tries, and latencies.

        Failures are what was begun and not answered well, which is exact but for answers that are still being sent;
        so it is held between the least and the most that the counters of failures allow. A try that took too long
        counts in the last bucket. Abandoned is what was begun and neither answered nor failed, as far as the sidecar
        itself ended it.
        """
        well = self.completed - self.errors
        answered = self.errors + self.retried_errors
        refused = self.no_host + self.overflow
        other = self.reset + self.try_timeouts + refused
        connected = max(0, self.total - self.active - well)
        unconnected = self.ejected + refused
        if self.http2:  # then what was ejected may have been connected, and is in the total too
            unconnected = max(min(self.connect_failures, self.ejected), self.ejected - connected) + refused
        least = max(connected + unconnected, answered, max(self.ejected, self.cut) + other)
        failed = min(least, answered + self.ejected + self.cut + other)
        requests = max(failed, min(well + failed, self.total + unconnected))
        faults = min(well, max(0, self.grpc_faults - self.errors))
        slow = self.timeouts + self.try_timeouts
        ended = max(0, self.closed + self.withdrawn - slow)
        abandoned = min(ended, max(0, connected - max(0, failed - unconnected)))
        buckets = (*self.buckets[:-1], self.buckets[-1] + slow)
        return Counts(requests + abandoned, min(requests, failed + faults), buckets, abandoned)


_NAMES = tuple(each.name for each in fields(ClusterCounters) if each.name != "buckets")
_numbers = attrgetter(*_NAMES)
"""Returns all that are numbers, in their order."""
_kept = attrgetter(*(name for name in _NAMES if name != "active" and name not in _ON_DEMAND))
"""Returns the counters that go on when a cluster is sent anew."""


class EndpointCounters(NamedTuple):
    """Envoy's counters of one endpoint, since it became part of its cluster or as a difference: tries that ended."""

    successes: int = 0
    errors: int = 0

    def since(self, earlier: "EndpointCounters") -> "EndpointCounters":
        """Return what was counted since ``earlier``: all of it, if a counter fell, as the endpoint then came anew."""
        if self.successes < earlier.successes or self.errors < earlier.errors:
            return self
        return EndpointCounters(self.successes - earlier.successes, self.errors - earlier.errors)


_NO_TRIES = EndpointCounters()

Endpoints = dict[str, EndpointCounters]
"""Counters by an endpoint's address as Envoy writes it in names: ``10.0.0.1_8080``, ``[fd00__1]_8080``."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One answer of a sidecar: counters by cluster, and how long it has been running (None: it did not say).

    ``endpoints`` are those of the clusters that show them, by cluster; ``staged`` are requests by way of a stage.
    """

    clusters: dict[str, ClusterCounters]
    uptime_s: float | None
    endpoints: dict[str, Endpoints] = field(default_factory=dict)
    staged: int = 0


def parse(stats: bytes | Mapping[str, Any]) -> dict[str, ClusterCounters]:
    """Return the counters by cluster in an answer to ``/stats?format=json&histogram_buckets=detailed``.

    Raises:
        ValueError: it is no such answer.
    """
    return read_sheet(stats).clusters


def read_sheet(stats: bytes | Mapping[str, Any]) -> Sheet:
    """Return ``parse``'s counters, those of the endpoints, and the sidecar's age.

    Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/admin (``/stats``).

    Raises:
        ValueError: it is no such answer.
    """
    values: dict[str, dict[str, int]] = {}
    buckets: dict[str, tuple[int, ...]] = {}
    endpoints: dict[str, Endpoints] = {}
    uptime_s: float | None = None
    staged = 0
    try:
        entries = (json.loads(stats) if isinstance(stats, bytes) else stats)["stats"]
        for entry in entries:
            if "histograms" in entry:
                buckets.update(_latencies(entry["histograms"]["details"]))
            elif entry["name"] == _UPTIME:
                uptime_s = float(entry["value"])
            elif entry["name"] == _STAGED:
                staged = int(entry["value"])
            elif _ENDPOINT in entry["name"]:
                _add_endpoint(endpoints, entry["name"], int(entry["value"]))
            elif (place := _place(entry["name"])) is not None:
                cluster, counter = place
                of_cluster = values.setdefault(cluster, {})
                of_cluster[counter] = of_cluster.get(counter, 0) + int(entry["value"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the sidecar's statistics cannot be read: {error!r}") from error
    clusters = {name: _counters(found, buckets.get(name, _NO_BUCKETS)) for name, found in values.items()}
    return Sheet(clusters, uptime_s, endpoints, staged)


def _counters(found: Mapping[str, int], buckets: tuple[int, ...]) -> ClusterCounters:
    values: dict[str, Any] = {**found, "buckets": buckets}
    return ClusterCounters(**values)


def _add_endpoint(endpoints: dict[str, Endpoints], name: str, value: int) -> None:
    """Note one counter of an endpoint; its address has dots, and is the same string for all sidecars."""
    cluster, _, rest = name.removeprefix(_PREFIX).partition(_ENDPOINT)
    address, _, statistic = rest.rpartition(".")
    of_cluster = endpoints.setdefault(cluster, {})
    successes, errors = of_cluster.get(address, _NO_TRIES)
    if statistic == "rq_success":
        of_cluster[intern(address)] = EndpointCounters(value, errors)
    elif statistic == "rq_error":
        of_cluster[intern(address)] = EndpointCounters(successes, value)


def _place(name: str) -> tuple[str, str] | None:
    """Return cluster and field for a statistic's name; clusters of ours have no dots."""
    if not name.startswith(_PREFIX):
        return None
    cluster, _, statistic = name.removeprefix(_PREFIX).partition(".")
    if statistic in _FIELDS:
        return cluster, _FIELDS[statistic]
    code = statistic.removeprefix("grpc.")
    if code.isdecimal() and code != statistic and int(code) in _SERVER_FAULTS:
        return cluster, "grpc_faults"
    return None


def _latencies(details: list[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for histogram in details:
        name = histogram["name"]
        if not name.startswith(_PREFIX) or not name.endswith(_LATENCY):
            continue
        cluster = name.removeprefix(_PREFIX).removesuffix(_LATENCY)
        buckets = list(_NO_BUCKETS)
        for part in histogram["totals"]:
            buckets[_bucket(part["lower_bound"], part["width"])] += int(part["count"])
        found[cluster] = tuple(buckets)
    return found


def _bucket(lower: float, width: float) -> int:
    """Return the bucket of a part of Envoy's histogram. Latencies are whole milliseconds, so narrow parts are exact."""
    value = lower if width <= 1 else lower + width / 2
    return next((index for index, edge in enumerate(LATENCY_EDGES_MS) if value <= edge), len(LATENCY_EDGES_MS))


def _combined(by: Callable[[int, int], int], one: ClusterCounters, other: ClusterCounters) -> ClusterCounters:
    values: list[Any] = [*map(by, _numbers(one), _numbers(other)), tuple(map(by, one.buckets, other.buckets))]
    return ClusterCounters(*values)
