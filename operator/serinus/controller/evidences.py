"""What a run is judged by, kept coming: the callers' counters every 2 s, queries at their interval."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from serinus.analysis.model import Reading
from serinus.analysis.promql import render_query
from serinus.analysis.questions import questions
from serinus.api.analysis import RequestQueries
from serinus.api.base import seconds
from serinus.api.release import Phase, RunStatus
from serinus.controller.feed import Feed, protocol_of
from serinus.controller.promql import Query
from serinus.controller.request_counts import NAME as REQUESTS
from serinus.controller.request_counts import RequestCounts, combined
from serinus.delivery import plan
from serinus.delivery.arms import arm_hashes
from serinus.delivery.model import ArmTotals, Snapshot, Totals
from serinus.mesh.ads import Proxy
from serinus.mesh.model import cluster_name
from serinus.mesh.scrape import EvidenceReader


class Queries(Protocol):
    """What is needed of the reader of users' queries, ``serinus.controller.promql.MetricReader``."""

    def watch(self, key: str, queries: list[Query], address: str) -> None:
        """Begin to ask."""

    def unwatch(self, key: str) -> None:
        """Stop, and forget."""

    def reading(self, key: str, metric: str) -> Reading | None:
        """Return the last answer."""


class Collector:
    """Starts and stops collecting as runs come and go. One run per Canary; another run starts from nothing."""

    def __init__(
        self,
        feed: Feed,
        counters: EvidenceReader,
        queries: Queries,
        proxies: Callable[[], Iterable[Proxy]],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._feed = feed
        self._counters = counters
        self._queries = queries
        self._connected = proxies
        self._clock = clock
        self._runs: dict[str, str] = {}
        self._requests: dict[str, RequestCounts] = {}
        self._asked: dict[str, tuple[str, ...]] = {}
        self._experiments: set[str] = set()

    def follow(self, owner: str, snapshot: Snapshot, service_key: str) -> None:
        """Collect for the snapshot's run as long as it is judged."""
        status, spec = snapshot.status, snapshot.spec
        run = status.run if plan.effective_phase(status) in (*plan.IN_RUN, Phase.PROMOTING) else None
        if run is None:
            self.stop(owner)
            return
        if spec is None or snapshot.problems:
            return  # what is collected goes on: counts that began again would be taken for the same ones
        begun = self._runs.get(owner) == run.id
        if not begun:
            self.stop(owner)
        if service_key in self._feed.services:
            self._count(owner, spec.analysis.requests, service_key, begun=begun)
            self._runs[owner] = run.id
        if self._runs.get(owner) == run.id:
            self._experiment(owner, run, service_key)
            self._ask(owner, snapshot, service_key)  # the queries or their server may have been mended

    def _count(self, owner: str, queries: RequestQueries | None, service_key: str, *, begun: bool) -> None:
        """Let requests be counted by whom the spec says. Whoever takes over counts on top of what was counted."""
        present = self._requests.get(owner)
        if begun and queries == (present.queries if present else None):
            return
        self._counters.unwatch(owner)
        if queries is None:
            self._requests.pop(owner, None)
            candidate, stable = (self._clusters(service_key, version) for version in ("candidate", "stable"))
            self._counters.watch(owner, candidate, stable, self._proxies)
        else:
            self._requests[owner] = RequestCounts(queries, self._clock())
            self._counters.watch(owner, (), (), lambda: ())  # no sidecar is read, but the run is looked at as often

    def _proxies(self) -> list[Proxy]:
        """Return the connected sidecars. One that connected before its pod's address was known has the present one."""
        return [
            proxy if proxy.ip else replace(proxy, ip=self._feed.address_of(proxy.namespace, proxy.pod, proxy.uid))
            for proxy in self._connected()
        ]

    def _clusters(self, service_key: str, variant: str) -> tuple[str, ...]:
        namespace, name = service_key.split("/")
        ports = self._feed.services[service_key]["spec"].get("ports") or []
        return tuple(cluster_name(namespace, name, port["port"], variant) for port in ports if protocol_of(port))

    def _experiment(self, owner: str, run: RunStatus, service_key: str) -> None:
        """Count what an experiment's two groups answer, and what they call, as long as there is one."""
        if run.stage not in plan.EXPERIMENT or service_key not in self._feed.services:
            if owner in self._experiments:
                self._experiments.discard(owner)
                self._counters.unwatch(f"{owner}|arms")
            return
        namespace, hashes = owner.split("/")[0], arm_hashes(run)

        def arms() -> dict[str, int]:
            pods = self._feed.pods_of(namespace, lambda pod: pod.pod_hash in hashes)
            return {pod.uid: hashes.index(pod.pod_hash) for pod in pods}

        candidate, stable = (self._clusters(service_key, f"{version}-fault") for version in ("candidate", "stable"))
        self._counters.watch(f"{owner}|arms", candidate, stable, self._proxies, arms)
        self._experiments.add(owner)

    def arms(self, owner: str) -> ArmTotals | None:
        """Return what was counted of the two groups of the Canary's experiment; None without one."""
        if owner not in self._experiments:
            return None
        totals = self._counters.totals(f"{owner}|arms")
        calls = self._counters.calls(f"{owner}|arms")
        return ArmTotals(totals.reader, totals.evidence, calls, totals.age_s)

    def _ask(self, owner: str, snapshot: Snapshot, service_key: str) -> None:
        spec = snapshot.spec
        assert spec is not None  # noqa: S101 - the caller has seen to it
        analysis = spec.analysis
        if not analysis.prometheus or not (analysis.metrics or analysis.requests):
            if self._asked.pop(owner, None) is not None:
                self._queries.unwatch(owner)
            return
        names = self._names(snapshot, service_key)
        of_stable = names | {"revision": names["stableRevision"]}
        interval_s = seconds(analysis.interval)
        asked = [
            Query(each.name, render_query(each.template, **(of_stable if each.stable else names)), interval_s)
            for metric in analysis.metrics
            for each in questions(metric)
        ]
        self._asked[owner] = tuple(query.name for query in asked)
        if analysis.requests:
            asked.append(Query(REQUESTS, combined(analysis.requests, names), interval_s, many=True))
        self._queries.watch(owner, asked, analysis.prometheus.address)

    @staticmethod
    def _names(snapshot: Snapshot, service_key: str) -> dict[str, str]:
        """Return what is filled in in queries."""
        status, spec = snapshot.status, snapshot.spec
        assert spec is not None  # noqa: S101 - the caller has seen to it
        assert status.run is not None  # noqa: S101 - the caller has seen to it
        namespace, name = service_key.split("/")
        return {
            "namespace": namespace,
            "target": spec.target_ref.name,
            "service": name,
            "revision": status.run.pod_hash,
            "stableRevision": _stable_hash(snapshot),
            "interval": spec.analysis.interval,
        }

    def totals(self, owner: str) -> Totals | None:
        """Return what was counted for the Canary's run; None when nothing is collected."""
        if counts := self._requests.get(owner):
            now_s = self._clock()
            counts.take(self._queries.reading(owner, REQUESTS), now_s)
            return counts.totals(now_s)
        return self._counters.totals(owner) if owner in self._runs else None

    def readings(self, owner: str) -> tuple[Reading, ...]:
        """Return the last answer to each of the run's queries."""
        found = (self._queries.reading(owner, metric) for metric in self._asked.get(owner, ()))
        return tuple(reading for reading in found if reading)

    def stop(self, owner: str) -> None:
        """Stop collecting for a Canary."""
        if self._runs.pop(owner, None):
            self._counters.unwatch(owner)
        if owner in self._experiments:
            self._experiments.discard(owner)
            self._counters.unwatch(f"{owner}|arms")
        self._requests.pop(owner, None)
        if self._asked.pop(owner, None) is not None:
            self._queries.unwatch(owner)


def _stable_hash(snapshot: Snapshot) -> str:
    """Return the ``pod-template-hash`` label of the stable version's pods, which queries tell them by.

    It is the Deployment controller's own and not the revision; that stands in where no ReplicaSet is known.
    """
    stable = snapshot.status.stable
    if stable is None:
        return ""
    own = [replicaset for replicaset in snapshot.targets_own if replicaset.revision == stable.revision]
    most = max(own, key=lambda replicaset: replicaset.pods, default=None)
    return most.pod_hash if most is not None and most.pod_hash else stable.revision
