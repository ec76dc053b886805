"""What sidecars count, and the evidence made of it. ``data/envoy-stats.json`` holds answers of Envoy 1.40.

Each answer is of a fresh sidecar that sent 20 requests (3 where they take long) of one kind to the candidate, with
retries on stable.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Evidence
from serinus.delivery.model import Totals
from serinus.mesh import halves, scrape
from serinus.mesh.ads import Proxy
from serinus.mesh.envoy_stats import ClusterCounters, parse, read_sheet
from serinus.mesh.scrape import EvidenceReader, http_fetch, sample

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "envoy-stats.json").read_text())
SENT_ANEW: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "envoy-endpoints.json").read_text())[
    "sent anew"
]
CANDIDATE, STABLE = "shop|web|80|candidate", "shop|web|80|stable"

EXPECTED = {
    "ok": ((20, 0), (0, 0)),
    "404": ((20, 0), (0, 0)),
    "500": ((20, 20), (0, 0)),
    "500 retried 5xx": ((20, 20), (20, 0)),
    "stable 500 retried 5xx": ((0, 0), (60, 60)),
    "refused GET": ((20, 20), (20, 0)),
    "refused POST": ((20, 20), (20, 0)),
    "refused no retry": ((20, 20), (20, 0)),
    "refused stable only": ((0, 0), (60, 60)),
    "reset GET": ((20, 20), (20, 0)),
    "reset POST": ((20, 20), (0, 0)),
    "unserved": ((20, 20), (20, 0)),
    "partial body": ((20, 20), (0, 0)),
    "timeout": ((3, 3), (0, 0)),
    "per try timeout": ((3, 3), (3, 0)),
    "grpc ok": ((20, 0), (0, 0)),
    "grpc ok stream": ((20, 0), (0, 0)),
    "grpc UNAVAILABLE": ((20, 20), (0, 0)),
    "grpc UNAVAILABLE stream": ((20, 20), (0, 0)),
    "grpc INTERNAL": ((20, 20), (0, 0)),
    "grpc INVALID ARGUMENT": ((20, 0), (0, 0)),
    "grpc client deadline": ((20, 20), (0, 0)),
    "grpc refused": ((20, 20), (20, 0)),
    "grpc killed while active": ((20, 20), (0, 0)),
}


def numbers(counts: Counts) -> tuple[int, int]:
    return counts.requests, counts.failures


def counters(recording: str, cluster: str = CANDIDATE) -> ClusterCounters:
    found = parse(RECORDED[recording])[cluster]
    # The recordings are older than the counter of HTTP/2 connections; gRPC was sent over one.
    return replace(found, http2=1) if recording.startswith("grpc") else found


def test_every_recording_has_an_expectation() -> None:
    assert EXPECTED.keys() == RECORDED.keys()


def test_over_http1_every_request_that_found_no_connection_counts_however_few_connections_were_tried() -> None:
    seen = ClusterCounters(total=160, retried_errors=156, cut=4, ejected=152, connect_failures=150)
    assert seen.counts().failures == 312


@pytest.mark.parametrize("recording", EXPECTED)
def test_each_try_and_each_failed_try_counts_once_for_the_version_that_had_it(recording: str) -> None:
    found = (numbers(counters(recording).counts()), numbers(counters(recording, STABLE).counts()))
    assert found == EXPECTED[recording]


@pytest.mark.parametrize("protocol", ["HTTP/1", "gRPC"])
def test_failures_of_different_kinds_add_up(protocol: str) -> None:
    kinds = [name for name in EXPECTED if name.startswith("grpc") == (protocol == "gRPC")]
    for one, other in combinations(kinds, 2):
        together = (counters(one) + counters(other)).counts()
        apart = counters(one).counts() + counters(other).counts()
        # What Envoy does not tell apart: over HTTP/2 a refused and a cut connection; a connection that was cut in the
        # middle of a good answer, and one that was cut before its answer, which then was a 503.
        hidden = {one, other} == {"grpc refused", "grpc killed while active"} or "partial body" in (one, other)
        if not hidden:
            assert numbers(together) == numbers(apart), f"{one} and {other}"


def test_a_latency_counts_in_its_bucket_and_a_timeout_in_the_last() -> None:
    assert counters("ok").counts().buckets == (20, *[0] * 12)
    assert counters("timeout").counts().buckets == (*[0] * 12, 3)
    assert counters("grpc ok stream").counts().buckets[LATENCY_EDGES_MS.index(100.0)] == 20


@pytest.mark.parametrize(
    ("lower", "width", "edge"),
    [(0, 0, 1.0), (1, 0.1, 1.0), (2, 0.1, 2.5), (10, 1, 10.0), (11, 1, 25.0), (90, 1, 100.0), (110, 10, 250.0)],
)
def test_a_part_of_envoys_histogram_goes_to_the_bucket_of_its_latency(lower: float, width: float, edge: float) -> None:
    totals = [{"lower_bound": lower, "width": width, "count": 4}]
    found = of_histogram(totals).counts().buckets
    assert found[LATENCY_EDGES_MS.index(edge)] == 4


def test_a_latency_beyond_the_last_edge_counts_in_the_open_bucket() -> None:
    assert of_histogram([{"lower_bound": 5500, "width": 100, "count": 1}]).counts().buckets[-1] == 1


def of_histogram(totals: list[dict[str, float]]) -> ClusterCounters:
    histogram = {"name": f"cluster.{CANDIDATE}.upstream_rq_time", "totals": totals}
    value = {"name": f"cluster.{CANDIDATE}.upstream_rq_total", "value": 1}
    return parse({"stats": [value, {"histograms": {"details": [histogram]}}]})[CANDIDATE]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (ClusterCounters(total=5, active=5), (0, 0)),
        (ClusterCounters(total=105, active=5, completed=105), (105, 0)),
        (ClusterCounters(total=100, completed=95), (95, 0)),
        (ClusterCounters(completed=3, errors=3, timeouts=3), (3, 3)),
        (ClusterCounters(completed=3, errors=3, no_host=3), (3, 3)),
        (ClusterCounters(total=110, active=10, completed=110, cut=4), (110, 4)),
    ],
    ids=[
        "requests under way are neither good nor bad",
        "answers that are still being sent are good",
        "clients that went away are nobody's failure",
        "a timeout before there was a connection is a failure",
        "a cluster without a host is a failure",
        "long answers do not hide connections that were cut",
    ],
)
def test_counters_are_read_as(present: ClusterCounters, expected: tuple[int, int]) -> None:
    assert numbers(present.counts()) == expected


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (ClusterCounters(total=125, active=9, closed=116), Counts(116, 0, abandoned=116)),
        (ClusterCounters(total=124, active=8, withdrawn=116, http2=2), Counts(116, 0, abandoned=116)),
        (ClusterCounters(total=116, active=1, completed=115, errors=115, closed=115, timeouts=115), Counts(115, 115)),
        (
            ClusterCounters(total=122, active=4, completed=118, errors=118, withdrawn=118, timeouts=118, http2=2),
            Counts(118, 118),
        ),
        (ClusterCounters(total=113, active=3, closed=110, try_timeouts=110), Counts(110, 110)),
        (ClusterCounters(total=112, active=2, withdrawn=110, try_timeouts=110, http2=2), Counts(110, 110)),
    ],
    ids=["given up", "given up, h2", "time-out", "time-out, h2", "per-try time-out", "per-try time-out, h2"],
)
def test_of_a_candidate_that_never_answers_what_callers_give_up_is_abandoned_and_what_times_out_fails(
    read: ClusterCounters, expected: Counts
) -> None:
    """Read off Envoy 1.40 on a cluster, 50 requests a second at weight 20; callers gave up after a second."""
    slow = (*expected.buckets[:-1], expected.failures)
    assert read.counts() == replace(expected, buckets=slow)


def test_a_cluster_that_is_sent_anew_forgets_failures_and_latencies_but_not_tries_and_only_what_is_new_counts() -> None:
    before, after = (parse(recording)[STABLE] for recording in SENT_ANEW)
    assert (before.completed, before.errors, sum(before.buckets)) == (27, 17, 16)
    assert (after.completed, after.errors, sum(after.buckets)) == (31, 1, 4)
    new = after.since(before).counts()
    assert (numbers(new), sum(new.buckets)) == ((4, 1), 4)


def test_of_a_cluster_that_began_again_all_counts() -> None:
    before = ClusterCounters(total=20, completed=20, errors=2, buckets=(20, *[0] * 12))
    after = ClusterCounters(total=5, completed=5, errors=3, buckets=(5, *[0] * 12))
    assert after.since(before) == after
    assert before.since(before) == ClusterCounters()


@pytest.mark.parametrize("answer", [b"", b"no healthy upstream", b"{}", b'{"stats": [{"value": 1}]}', b"[]"])
def test_an_answer_that_is_no_statistics_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_sheet(answer)


def proxy(name: str = "web-1", namespace: str = "shop") -> Proxy:
    return Proxy(namespace, name, f"uid-{name}", f"ip-{name}", 0.0)


@dataclass
class Sidecar:
    started: float
    clusters: dict[str, ClusterCounters] = field(default_factory=dict)
    endpoints: dict[str, tuple[int, int]] = field(default_factory=dict)
    down: bool = False

    def count(self, cluster: str = CANDIDATE, good: int = 0, bad: int = 0) -> None:
        new = ClusterCounters(total=good + bad, completed=good + bad, errors=bad, buckets=(good + bad, *[0] * 12))
        self.clusters[cluster] = self.clusters.get(cluster, ClusterCounters()) + new

    def call(self, address: str, good: int = 0, bad: int = 0) -> None:
        """Count tries of one endpoint of the stable version."""
        self.count(STABLE, good, bad)
        before = self.endpoints.get(address, (0, 0))
        self.endpoints[address] = (before[0] + good, before[1] + bad)

    def restart(self, now: float) -> None:
        self.started = now
        self.clusters.clear()
        self.endpoints = dict.fromkeys(self.endpoints, (0, 0))


NAMES = {"total": "upstream_rq_total", "completed": "upstream_rq_completed", "errors": "upstream_rq_5xx"}
ENDPOINT_NAMES = ("rq_error", "rq_success", "rq_total", "cx_total", "healthy")


class Mesh:
    """Callers with sidecars, read by one reader; time is virtual."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.sidecars = {f"ip-{name}": Sidecar(0.0) for name in names}
        self.proxies = [proxy(name) for name in names]
        self.reader = EvidenceReader(self.fetch, lambda: self.now)
        self.queries: list[Mapping[str, str]] = []

    async def fetch(self, address: str, query: Mapping[str, str]) -> bytes:
        self.queries.append(query)
        sidecar = self.sidecars[address]
        if sidecar.down:
            raise ConnectionRefusedError(address)
        stats: list[dict[str, Any]] = [{"name": "server.uptime", "value": int(self.now - sidecar.started)}]
        details = []
        for cluster, counted in sidecar.clusters.items():
            stats += [{"name": f"cluster.{cluster}.{NAMES[f]}", "value": getattr(counted, f)} for f in NAMES]
            totals = [{"lower_bound": 0, "width": 0, "count": counted.buckets[0]}]
            details.append({"name": f"cluster.{cluster}.upstream_rq_time", "totals": totals})
        for address, tries in sidecar.endpoints.items():
            at = f"cluster.{STABLE}.endpoint.{address}"
            stats += [{"name": f"{at}.{each}", "value": tries[each == "rq_error"]} for each in ENDPOINT_NAMES]
        stats = [each for each in stats if re.search(query["filter"], each["name"])]
        stats.append({"histograms": {"details": details}})
        return json.dumps({"stats": stats}).encode()

    def watch(self, key: str = "web") -> None:
        self.reader.watch(key, {CANDIDATE}, {STABLE}, lambda: tuple(self.proxies))

    def __getitem__(self, name: str) -> Sidecar:
        return self.sidecars[f"ip-{name}"]

    async def round(self) -> tuple[int, int]:
        self.now += 2
        await self.reader.round()
        return numbers(self.reader.totals("web").evidence.candidate)


async def test_what_was_counted_before_the_run_is_no_evidence() -> None:
    mesh = Mesh("web-1")
    mesh["web-1"].count(good=500, bad=100)
    mesh.watch()
    assert await mesh.round() == (0, 0)
    mesh["web-1"].count(good=7, bad=3)
    assert await mesh.round() == (10, 3)
    assert await mesh.round() == (10, 3)


async def test_both_versions_of_all_callers_are_added() -> None:
    mesh = Mesh("web-1", "web-2")
    mesh.watch()
    await mesh.round()
    for name in ("web-1", "web-2"):
        mesh[name].count(CANDIDATE, good=1, bad=2)
        mesh[name].count(STABLE, good=9)
    await mesh.round()
    evidence = mesh.reader.totals("web").evidence
    assert numbers(evidence.candidate) == (6, 4)
    assert numbers(evidence.stable) == (18, 0)
    assert evidence.stable.buckets[0] == 18


async def test_a_series_that_begins_during_the_run_counts_from_its_first_failure() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh["web-1"].count(bad=1)
    assert await mesh.round() == (1, 1)


async def test_a_caller_that_starts_during_the_run_counts_whole() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh.sidecars["ip-web-2"] = Sidecar(mesh.now)
    mesh.proxies.append(proxy("web-2"))
    mesh["web-2"].count(bad=5)
    assert await mesh.round() == (5, 5)


async def test_a_caller_that_is_old_but_connects_during_the_run_starts_at_its_own_count() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh.sidecars["ip-web-2"] = Sidecar(0.0)
    mesh.proxies.append(replace(proxy("web-2"), connected_since=mesh.now))
    mesh["web-2"].count(bad=50)
    assert await mesh.round() == (0, 0)
    mesh["web-2"].count(bad=1)
    assert await mesh.round() == (1, 1)


async def test_a_sidecar_that_restarts_counts_from_zero_again() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    mesh["web-1"].count(good=10)
    await mesh.round()
    mesh["web-1"].count(good=10)
    await mesh.round()
    mesh["web-1"].restart(mesh.now + 1.5)
    mesh["web-1"].count(good=30, bad=1)
    assert await mesh.round() == (41, 1)


async def test_a_cluster_that_is_removed_and_comes_back_counts_from_zero_again() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh["web-1"].count(good=10)
    await mesh.round()
    mesh["web-1"].clusters.clear()
    mesh["web-1"].count(good=4)
    assert await mesh.round() == (14, 0)


async def test_a_scrape_that_fails_is_no_data_and_the_next_one_covers_it() -> None:
    mesh = Mesh("web-1", "web-2")
    mesh.watch()
    await mesh.round()
    mesh["web-1"].down = True
    mesh["web-1"].count(good=3)
    assert await mesh.round() == (0, 0)
    mesh["web-1"].down = False
    mesh["web-1"].count(good=4)
    assert await mesh.round() == (7, 0)


async def test_a_caller_that_vanishes_keeps_what_it_counted() -> None:
    mesh = Mesh("web-1", "web-2")
    mesh.watch()
    await mesh.round()
    mesh["web-1"].count(good=3)
    await mesh.round()
    del mesh.proxies[0]
    assert await mesh.round() == (3, 0)
    assert mesh.reader.totals("web").asked == 1


async def test_a_sidecar_that_never_answers_ends_its_scrape_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh("web-1", "web-2")
    monkeypatch.setattr(scrape, "DEADLINE_S", 0.01)
    answers = mesh.fetch

    async def fetch(address: str, query: Mapping[str, str]) -> bytes:
        if address == "ip-web-1":
            await asyncio.Event().wait()
        return await answers(address, query)

    mesh.reader = EvidenceReader(fetch, lambda: mesh.now)
    mesh.watch()
    await mesh.round()
    mesh["web-2"].count(good=2)
    assert await mesh.round() == (2, 0)


async def test_who_gives_no_answer_for_a_while_is_told_with_the_reason_until_it_answers() -> None:
    mesh = Mesh("web-1", "web-2", "web-3")
    mesh["web-1"].down = True
    mesh.proxies[1] = replace(mesh.proxies[1], ip="")
    mesh.watch()
    for _ in range(5):
        await mesh.round()
    assert mesh.reader.totals("web").unread == ()
    await mesh.round()
    totals = mesh.reader.totals("web")
    assert totals.asked == 3
    assert sorted(totals.unread) == [
        ("shop/web-1", "no connection to port 15090"),
        ("shop/web-2", "its pod has no address"),
    ]
    mesh["web-1"].down = False
    await mesh.round()
    assert [pod for pod, _ in mesh.reader.totals("web").unread] == ["shop/web-2"]
    del mesh.proxies[1]
    await mesh.round()
    assert (mesh.reader.totals("web").asked, mesh.reader.totals("web").unread) == (2, ())


async def test_a_caller_that_answers_now_and_then_is_read() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    for each in range(12):
        mesh["web-1"].down = each % 4 < 3
        await mesh.round()
        assert mesh.reader.totals("web").unread == ()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer on port 15090 within 1 s"),
        (OSError(113, "No route to host"), "no connection to port 15090"),
        (aiohttp.ServerDisconnectedError(), "no connection to port 15090"),
        (
            ValueError("the statistics cannot be read"),
            "its answer on port 15090 is none: the statistics cannot be read",
        ),
    ],
    ids=["late", "no route", "cut", "nonsense"],
)
async def test_why_a_sidecar_is_not_read_is_told_in_words(error: Exception, words: str) -> None:
    async def fetch(_: str, __: Mapping[str, str]) -> bytes:
        raise error

    mesh = Mesh("web-1")
    mesh.reader = EvidenceReader(fetch, lambda: mesh.now)
    mesh.watch()
    for _ in range(6):
        await mesh.round()
    assert mesh.reader.totals("web").unread == (("shop/web-1", words),)


async def calling(mesh: Mesh) -> None:
    """Let the callers' endpoints be known, and counted from here on."""
    for sidecar in mesh.sidecars.values():
        for pod in PODS:
            sidecar.call(pod, good=50, bad=5)
    mesh.watch()
    await mesh.round()
    await mesh.round()


PODS = ("10.0.0.1_8080", "10.0.0.2_8080")


async def test_what_stable_did_before_the_run_is_history_and_each_callers_is_told_once() -> None:
    mesh = Mesh("web-1", "web-2")
    await calling(mesh)
    mesh["web-1"].call(PODS[0], good=10)
    mesh.sidecars["ip-web-3"] = Sidecar(mesh.now)
    mesh.proxies.append(proxy("web-3"))
    mesh["web-3"].count(STABLE, good=7)
    await mesh.round()
    totals = mesh.reader.totals("web")
    assert numbers(totals.before) == (220, 20)
    assert totals.before.buckets[0] == 220
    assert numbers(totals.evidence.stable) == (17, 0)


async def test_history_is_of_the_stable_version_alone() -> None:
    mesh = Mesh("web-1")
    mesh["web-1"].count(CANDIDATE, good=10)
    mesh.watch()
    await mesh.round()
    assert mesh.reader.totals("web").before == Counts()


async def test_the_two_pods_of_the_stable_version_are_told_apart() -> None:
    mesh = Mesh("web-1", "web-2")
    await calling(mesh)
    assert mesh.reader.totals("web").halves == ((0, 0), (0, 0))
    assert mesh.reader.totals("web").stable_pods == 0
    mesh["web-1"].call(PODS[0], good=8, bad=2)
    mesh["web-2"].call(PODS[0], good=5)
    mesh["web-2"].call(PODS[1], good=29, bad=1)
    await mesh.round()
    totals = mesh.reader.totals("web")
    assert sorted(totals.halves) == [(15, 2), (30, 1)]
    assert totals.stable_pods == 2
    await mesh.round()
    assert mesh.reader.totals("web").halves == totals.halves


async def test_halves_go_on_after_a_restart_a_scrape_that_failed_and_a_pod_that_came() -> None:
    mesh = Mesh("web-1")
    await calling(mesh)
    mesh["web-1"].down = True
    mesh["web-1"].call(PODS[0], good=3)
    await mesh.round()
    mesh["web-1"].down = False
    mesh["web-1"].call("10.0.0.3_8080", good=4)
    await mesh.round()
    assert sum(half[0] for half in mesh.reader.totals("web").halves) == 7
    mesh["web-1"].restart(mesh.now + 1.5)
    mesh["web-1"].call(PODS[0], good=60)
    await mesh.round()
    await mesh.round()
    assert sum(half[0] for half in mesh.reader.totals("web").halves) == 67
    assert mesh.reader.totals("web").stable_pods == 2


async def test_endpoints_are_asked_for_only_where_a_caller_has_called() -> None:
    mesh = Mesh("web-1", "web-2")
    mesh["web-1"].call(PODS[0], good=1)
    mesh["web-2"].count(STABLE)
    mesh.watch()
    await mesh.round()
    assert not any("endpoint" in query["filter"] for query in mesh.queries)
    mesh.queries.clear()
    await mesh.round()
    assert sorted("endpoint" in query["filter"] for query in mesh.queries) == [False, True]


async def test_many_endpoints_are_read_in_turns_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "MAX_LISTED", 10)
    mesh = Mesh(*(f"web-{i}" for i in range(20)))
    await calling(mesh)
    await mesh.round()
    for sidecar in mesh.sidecars.values():
        sidecar.call(PODS[0], good=9, bad=1)
    mesh.queries.clear()
    asked = []
    for _ in range(4):
        await mesh.round()
        asked.append(sum("endpoint" in query["filter"] for query in mesh.queries))
        mesh.queries.clear()
    assert sum(asked) == 20
    assert max(asked) < 20
    assert (200, 20) in mesh.reader.totals("web").halves
    assert numbers(mesh.reader.totals("web").evidence.stable) == (200, 20)


def test_a_question_names_the_endpoints_counters_and_none_of_their_others() -> None:
    wanted = re.compile(scrape._query({CANDIDATE, STABLE}, {STABLE})["filter"])
    assert wanted.search(f"cluster.{STABLE}.endpoint.[fd00__1]_8080.rq_success")
    assert wanted.search(f"cluster.{STABLE}.endpoint.10.0.0.1_8080.rq_error")
    assert not wanted.search(f"cluster.{STABLE}.endpoint.10.0.0.1_8080.rq_total")
    assert not wanted.search(f"cluster.{CANDIDATE}.endpoint.10.0.0.1_8080.rq_error")
    own = ("upstream_rq_total", "retry.upstream_rq_5xx", "grpc.14", "upstream_cx_connect_fail")
    assert all(wanted.search(f"cluster.{STABLE}.{each}") for each in own)
    assert wanted.search("server.uptime")


async def test_watching_the_same_clusters_again_goes_on_and_others_start_again() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh["web-1"].count(good=5)
    await mesh.round()
    mesh.watch()
    assert numbers(mesh.reader.totals("web").evidence.candidate) == (5, 0)
    mesh.reader.watch("web", {"another"}, {STABLE}, lambda: mesh.proxies)
    assert numbers(mesh.reader.totals("web").evidence.candidate) == (0, 0)


async def test_a_key_that_is_not_watched_has_nothing() -> None:
    mesh = Mesh("web-1")
    mesh.watch()
    await mesh.round()
    mesh.reader.unwatch("web")
    assert mesh.reader.totals("web") == mesh.reader.totals("other")
    assert mesh.reader.totals("web") == Totals(mesh.reader.reader_id, Evidence())


async def test_one_scrape_of_a_caller_serves_all_runs_and_names_only_their_clusters() -> None:
    mesh = Mesh("web-1")
    mesh.watch("one")
    mesh.reader.watch("two", {"shop|cart|80|candidate"}, {"shop|cart|80|stable"}, lambda: mesh.proxies)
    await mesh.round()
    (query,) = mesh.queries
    assert r"shop\|cart\|80\|candidate" in query["filter"]
    assert r"shop\|web\|80\|stable" in query["filter"]


def test_another_reader_has_another_id() -> None:
    assert EvidenceReader().reader_id != EvidenceReader().reader_id


def test_evidence_never_falls_when_an_inferred_failure_is_taken_back() -> None:
    assert Counts(10, 3).risen(Counts(10, 2)) == Counts(10, 3)
    assert Counts(10, 3).risen(Counts(12, 4)) == Counts(12, 4)


def test_a_sample_has_pods_of_every_workload_and_the_same_ones_each_time() -> None:
    callers = [proxy(f"web-{i}") for i in range(900)] + [proxy(f"cart-{i}") for i in range(90)] + [proxy("job-1")]
    taken = sample(callers, 200)
    workloads = [each.pod.partition("-")[0] for each in taken]
    assert (workloads.count("web"), workloads.count("cart"), workloads.count("job")) == (181, 18, 1)
    assert sample(list(reversed(callers)), 200) != []
    assert {each.uid for each in sample(list(reversed(callers)), 200)} == {each.uid for each in taken}


async def test_of_very_many_callers_no_more_than_a_sample_is_asked() -> None:
    mesh = Mesh(*(f"web-{i}" for i in range(400)))
    mesh.watch()
    await mesh.round()
    assert mesh.reader.totals("web").asked == len(mesh.queries) == 200


async def test_a_key_whose_callers_cannot_be_told_harms_no_other() -> None:
    mesh = Mesh("web-1")
    unknown: dict[str, list[Proxy]] = {}
    mesh.reader.watch("broken", {"x"}, {"y"}, lambda: unknown["callers"])
    mesh.watch()
    await mesh.round()
    assert mesh.reader.totals("web").asked == len(mesh.queries) == 1


async def test_the_reader_runs_until_it_is_cancelled_and_survives_a_bad_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "INTERVAL_S", 0.0)
    mesh = Mesh("web-1")
    calls = 0

    def proxies() -> list[Proxy]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("a defect")
        return mesh.proxies

    mesh.reader = EvidenceReader(mesh.fetch, lambda: mesh.now)
    mesh.reader.watch("web", {CANDIDATE}, {STABLE}, proxies)
    mesh.now += 2
    told: list[str] = []
    task = asyncio.create_task(mesh.reader.run(told.append))
    async with asyncio.timeout(5):
        while len(told) < 2:
            mesh.now += 2
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mesh.reader.totals("web").asked == 1
    assert told[:2] == ["web", "web"], "of both rounds, the bad one too"


async def test_while_a_round_is_under_way_what_the_one_before_has_shown_is_told() -> None:
    mesh = Mesh("web-1", "web-2")
    mesh["web-1"].down = True
    mesh.watch()
    for _ in range(6):
        await mesh.round()
    under_way = asyncio.create_task(mesh.round())
    await asyncio.sleep(0)
    assert [pod for pod, _ in mesh.reader.totals("web").unread] == ["shop/web-1"]
    await under_way


async def test_a_sidecar_is_asked_over_http_first_to_merge_and_then_for_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def stats(request: web.Request) -> web.Response:
        asked.append(request.query["filter"])
        return web.Response(body=b'{"stats": []}' if len(asked) < 3 else b"x" * 100)

    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/stats", stats)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(scrape, "STATS_PORT", runner.addresses[0][1])
    try:
        assert await http_fetch("127.0.0.1", {"filter": "a|b (c) [.]"}) == b'{"stats": []}'
        assert asked == ["^server[.]uptime$", "a|b (c) [.]"]
        monkeypatch.setattr(scrape, "_MAX_ANSWER_BYTES", 50)
        with pytest.raises(ValueError, match="larger"):
            await http_fetch("127.0.0.1", {"filter": "x"})
    finally:
        await runner.cleanup()
    with pytest.raises(aiohttp.ClientError):
        await http_fetch("127.0.0.1", {"filter": "x"})
