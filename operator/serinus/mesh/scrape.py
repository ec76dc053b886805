"""Evidence: what the callers' sidecars counted about a candidate and its stable version, gathered every two seconds.

Differences are taken per pod and cluster, of Envoy's raw counters: a rate of a sum would miss the first failures of a
new series, and would take a sidecar's restart for a drop. A scrape that fails is no data; the next one covers it.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from re import escape

import aiohttp
import structlog

from serinus.analysis.model import Evidence
from serinus.delivery.model import Totals, Unread
from serinus.mesh.ads import Proxy
from serinus.mesh.envoy_stats import ClusterCounters, Sheet, parse, read_sheet
from serinus.mesh.halves import Halves, Rota
from serinus.mesh.sidecar import STATS_PORT

__all__ = ["ClusterCounters", "EvidenceReader", "http_fetch", "parse", "sample"]

log = structlog.get_logger()

INTERVAL_S = 2.0
DEADLINE_S = 1.0
MAX_CALLERS = 200
"""Beyond so many callers a sample of them is read; both versions are then seen by the same ones."""

_MAX_AT_ONCE = 32
_APART_S, _WITHIN_S = 0.005, 0.5
"""Callers are asked so long after one another, the last of a round at most so late. Reading ten answers at one time
would keep a decision waiting for as long as it takes to put a weight in force."""
_MAX_ANSWER_BYTES = 4 << 20
_MAX_FIRST = 16
"""Clusters whose endpoints one answer lists for the first time, before it is known how many they are."""
_ROUNDING_S = 1.0
UNREAD_S = 10.0
"""A caller that gave no answer for so long is told of: what its pod sends is not counted."""
_FLUSH = {"format": "json", "filter": "^server[.]uptime$"}

Fetch = Callable[[str, Mapping[str, str]], Awaitable[bytes]]
"""Returns a sidecar's answer to ``GET /stats``, by its address and the query's parameters."""


@dataclass(slots=True)
class _Seen:
    """The last good answer of one pod's sidecar: when, since when it runs, and what it had counted."""

    at: float
    counters: dict[str, ClusterCounters] = field(default_factory=dict)


@dataclass(slots=True)
class _Watch:
    candidate: frozenset[str]
    stable: frozenset[str]
    proxies: Callable[[], Iterable[Proxy]]
    since: float
    seen: dict[str, _Seen] = field(default_factory=dict)
    sums: tuple[ClusterCounters, ClusterCounters] = (ClusterCounters(), ClusterCounters())
    evidence: Evidence = field(default_factory=Evidence)
    history: ClusterCounters = field(default_factory=ClusterCounters)
    halves: Halves = field(default_factory=Halves)
    arms: Callable[[], Mapping[str, int]] | None = None
    arm_of: Mapping[str, int] = field(default_factory=dict)
    called: dict[str, int] = field(default_factory=dict)
    calls: list[int] = field(default_factory=lambda: [0, 0])
    asked: tuple[Proxy, ...] = ()

    @property
    def clusters(self) -> frozenset[str]:
        return self.candidate | self.stable


async def http_fetch(address: str, query: Mapping[str, str]) -> bytes:
    """Return what the sidecar at this address answers on its statistics port.

    A question makes Envoy merge its threads' latencies, but is answered before that is done. So a small one goes first.

    Raises:
        OSError, TimeoutError, aiohttp.ClientError: there is no good answer within the deadline.
    """
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{STATS_PORT}/stats"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session:
        await _get(session, url, _FLUSH)
        return await _get(session, url, query)


async def _get(session: aiohttp.ClientSession, url: str, query: Mapping[str, str]) -> bytes:
    async with session.get(url, params=query) as response:
        response.raise_for_status()
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > _MAX_ANSWER_BYTES:
                raise ValueError(f"the sidecar's statistics are larger than {_MAX_ANSWER_BYTES} bytes")
    return bytes(body)


class EvidenceReader:
    """Reads the callers' sidecars for all watched keys. Use it from one event loop; ``run`` is its only task.

    What a sidecar had counted when its pod was first seen is not evidence, it is where counting starts. Only if the
    sidecar itself started after ``watch``, or had answered after ``watch`` without the cluster, all of it counts.
    """

    def __init__(self, fetch: Fetch = http_fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self.reader_id = secrets.token_hex(6)
        self._fetch = fetch
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._rota = Rota()
        self._read_at = clock()
        self._silent: dict[str, tuple[float, str]] = {}

    def watch(
        self,
        key: str,
        candidate_clusters: Iterable[str],
        stable_clusters: Iterable[str],
        proxies: Callable[[], Iterable[Proxy]],
        arms: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        """Count for ``key`` from now on. ``proxies`` tells the callers anew each round.

        A key that is watched with the same clusters goes on; with others it starts again. ``arms`` tells which pods, by
        UID, belong to which of an experiment's two groups, 0 or 1: ``calls`` are what these pods themselves have sent
        by way of a stage.
        """
        fresh = _Watch(frozenset(candidate_clusters), frozenset(stable_clusters), proxies, self._clock(), arms=arms)
        present = self._watches.get(key)
        if present is not None and (present.candidate, present.stable) == (fresh.candidate, fresh.stable):
            present.proxies, present.arms = proxies, arms
        else:
            self._watches[key] = fresh

    def unwatch(self, key: str) -> None:
        """Forget the key and what was counted for it."""
        self._watches.pop(key, None)

    def totals(self, key: str) -> Totals:
        """Return what was counted since ``watch``, and before. It never falls. A key not watched has nothing."""
        watch = self._watches.get(key)
        if watch is None:
            return Totals(self.reader_id, Evidence())
        return Totals(
            self.reader_id,
            watch.evidence,
            halves=watch.halves.sums,
            before=watch.history.counts(),
            stable_pods=len(watch.halves.tried),
            age_s=self._clock() - self._read_at,
            asked=len(watch.asked),
            unread=tuple(self._unread(watch.asked)),
        )

    def _unread(self, asked: Iterable[Proxy]) -> Iterable[Unread]:
        """Return which of these sidecars have given no answer for long."""
        for proxy in asked:
            since, why = self._silent.get(proxy.uid, (math.inf, ""))
            if self._read_at - since >= UNREAD_S:
                yield Unread(proxy.name, why)

    def calls(self, key: str) -> tuple[int, int]:
        """Return how many calls the pods of an experiment's two groups have sent by way of a stage, since ``watch``."""
        watch = self._watches.get(key)
        return (watch.calls[0], watch.calls[1]) if watch else (0, 0)

    async def run(self, told: Callable[[str], None] = lambda key: None) -> None:
        """Read every two seconds, until cancelled; after each round every key is ``told``, so that it is judged."""
        while True:
            started = self._clock()
            try:
                await self.round()
            except Exception:  # whatever it is, evidence must go on
                log.exception("a round of scraping failed")
            for key in self._watches:
                told(key)
            await asyncio.sleep(max(0.0, started + INTERVAL_S - self._clock()))

    async def round(self) -> None:
        """Read every caller of every watched key once."""
        callers: dict[str, Proxy] = {}
        wanted: dict[str, list[_Watch]] = {}
        watches = dict(self._watches)
        for key, watch in watches.items():
            try:
                everyone = tuple(watch.proxies())
            except Exception:  # one key's defect is no other key's
                log.exception("the callers of a key cannot be told", key=key)
                everyone = ()
            watch.arm_of = watch.arms() if watch.arms else {}
            own = [proxy for proxy in everyone if proxy.uid in watch.arm_of]
            watch.asked = tuple({*sample(everyone, MAX_CALLERS), *own})
            for proxy in watch.asked:
                callers[proxy.uid] = proxy
                wanted.setdefault(proxy.uid, []).append(watch)
        self._rota.turn()
        slots = asyncio.Semaphore(_MAX_AT_ONCE)
        apart_s = min(_APART_S, _WITHIN_S / max(1, len(callers)))
        reads = (self._read(proxy, wanted[uid], slots, apart_s * n) for n, (uid, proxy) in enumerate(callers.items()))
        answered = await asyncio.gather(*reads)
        now = self._clock()
        silent = {uid: why for uid, why in zip(callers, answered, strict=True) if why}
        self._silent = {uid: (self._silent.get(uid, (now,))[0], why) for uid, why in silent.items()}
        self._read_at = now

    async def _read(self, proxy: Proxy, watches: Sequence[_Watch], slots: asyncio.Semaphore, after_s: float) -> str:
        """Read a caller after so many seconds; return why it gave no answer, empty when it did."""
        if not proxy.ip:
            return "its pod has no address"
        await asyncio.sleep(after_s)
        clusters = frozenset().union(*(watch.clusters for watch in watches))
        listing = self._listing(proxy.uid, watches)
        async with slots:
            try:
                async with asyncio.timeout(DEADLINE_S):
                    calls = any(watch.arms for watch in watches)
                    sheet = read_sheet(await self._fetch(proxy.ip, _query(clusters, listing, calls=calls)))
            except (OSError, ValueError, aiohttp.ClientError) as error:
                log.debug("a sidecar gave no statistics", proxy=proxy.name, error=repr(error))
                return _why(error)
        now = self._clock()
        for watch in watches:
            _take_calls(watch, proxy.uid, sheet)
            _take(watch, proxy.uid, sheet, now, listing & watch.stable)
        return ""

    def _listing(self, uid: str, watches: Sequence[_Watch]) -> frozenset[str]:
        """Return the stable clusters whose endpoints this caller is asked for now: of those that it has called."""
        due, first = set(), []
        for watch in watches:
            counters = watch.seen[uid].counters if uid in watch.seen else {}
            for cluster in watch.stable & counters.keys():
                if not counters[cluster].total:
                    continue
                listed = watch.halves.listed(uid, cluster)
                if listed is None:
                    first.append(cluster)
                elif self._rota.due(uid, cluster, listed):
                    due.add(cluster)
        return frozenset(due.union(first[:_MAX_FIRST]))


def _why(error: Exception) -> str:
    """Return in words why a sidecar gave no statistics; the same words for the same reason."""
    if isinstance(error, TimeoutError):
        return f"no answer on port {STATS_PORT} within {DEADLINE_S:g} s"
    if isinstance(error, (OSError, aiohttp.ClientConnectionError)):
        return f"no connection to port {STATS_PORT}"
    return f"its answer on port {STATS_PORT} is none: {error}"


def _take_calls(watch: _Watch, uid: str, sheet: Sheet) -> None:
    """Add what one pod of an experiment has called; its sidecar is new with it, so all that it counted is."""
    arm = watch.arm_of.get(uid)
    if arm is None:
        return
    before = watch.called.get(uid, 0)
    watch.calls[arm] += sheet.staged - before if sheet.staged >= before else sheet.staged
    watch.called[uid] = sheet.staged


def _take(watch: _Watch, uid: str, sheet: Sheet, now: float, listing: frozenset[str]) -> None:
    """Add what is new in one answer, and remember the answer."""
    before = watch.seen.get(uid)
    started = None if sheet.uptime_s is None else now - sheet.uptime_s
    started_since = started is not None and started > watch.since + _ROUNDING_S
    newborn = before is not None or started_since
    known: dict[str, ClusterCounters] = {}
    if before is not None:
        if started is None or started <= before.at + _ROUNDING_S:
            known = before.counters
        else:
            watch.halves.restarted(uid)
    watch.halves.take(uid, {each: sheet.endpoints.get(each, {}) for each in listing}, newborn=started_since)
    candidate, stable = watch.sums
    for cluster in watch.clusters & sheet.clusters.keys():
        counters = sheet.clusters[cluster]
        earlier = known.get(cluster)
        if counters == earlier:
            continue
        if earlier is not None:
            change = counters.since(earlier)
        elif newborn:
            change = counters
        else:
            watch.history += counters if cluster in watch.stable else ClusterCounters()
            continue
        candidate += change if cluster in watch.candidate else ClusterCounters()
        stable += change if cluster in watch.stable else ClusterCounters()
    watch.seen[uid] = _Seen(now, {**known, **sheet.clusters})
    if (candidate, stable) == watch.sums:
        return
    watch.sums = (candidate, stable)
    evidence = watch.evidence
    watch.evidence = Evidence(
        evidence.candidate.risen(candidate.counts()),
        evidence.stable.risen(stable.counts()),
    )


def sample(callers: Iterable[Proxy], limit: int) -> list[Proxy]:
    """Return about ``limit`` callers at most: of each workload its share, at least one, and the same pods each time."""
    everyone = list(callers)
    if len(everyone) <= limit:
        return everyone
    workloads: dict[tuple[str, str], list[Proxy]] = {}
    for proxy in everyone:
        workloads.setdefault((proxy.namespace, proxy.pod.rsplit("-", 1)[0]), []).append(proxy)
    share = limit / len(everyone)
    return [
        proxy
        for pods in workloads.values()
        for proxy in sorted(pods, key=lambda each: sha256(each.uid.encode()).digest())[
            : max(1, math.floor(len(pods) * share))
        ]
    ]


def _query(clusters: Iterable[str], listing: Iterable[str], *, calls: bool = False) -> dict[str, str]:
    """Return what to ask for: the clusters' own statistics, none of which begins with e, and of some the endpoints'."""
    wanted = [f"cluster[.]({_either(clusters)})[.][^e]", "server[.]uptime$"]
    if calls:
        wanted.append("http[.]stage[.]downstream_rq_total$")
    if listing:
        wanted.append(f"cluster[.]({_either(listing)})[.]endpoint[.].+[.]rq_(success|error)$")
    return {"format": "json", "histogram_buckets": "detailed", "filter": f"^({'|'.join(wanted)})"}


def _either(names: Iterable[str]) -> str:
    return "|".join(escape(name) for name in sorted(names))
