"""What one proxy is sent, and when: the state machine of one Delta xDS stream. No I/O and no clock of its own.

Every key goes through three stages by itself, each begun when the proxy has acknowledged the one before:

1. clusters and endpoints that are new or changed;
2. listeners and routes, which then name only what is there;
3. removals, and the endpoints of pools that became empty, which no route names any more.

A resource is in flight once at most. What changes meanwhile waits, and only the newest of it is sent.
Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol (incremental xDS).
"""

from collections.abc import Iterable, Iterator

from serinus.mesh import ads_wire
from serinus.mesh.ads_catalogue import Catalogue, Entry
from serinus.mesh.ads_kind import Batch, Kind, split
from serinus.mesh.ads_wire import CDS, EDS, LDS, RDS, TYPES, WILDCARD_TYPES, Request
from serinus.mesh.model import Rejection


class Stream:
    """The stream of one proxy.

    ``proxy`` is ``namespace/pod``. ``pending`` holds the keys that the proxy does not have in force, each with the
    time since when. A cluster is removed no sooner than ``drain_s`` seconds after the last removal of a listener,
    because Envoy lets a removed listener's connections live on for its drain time. Times are of any one clock.
    """

    def __init__(self, catalogue: Catalogue, proxy: str, now: float, drain_s: float) -> None:
        self.proxy = proxy
        self.pending: dict[str, float] = dict.fromkeys(catalogue.keys(), now)
        self._catalogue = catalogue
        self._kinds = {type_url: Kind() for type_url in TYPES}
        self._touched: dict[str, None] = {}
        self._drain_s = drain_s
        self._drained_at = now + drain_s
        self._nonce = 0

    def publish(self, key: str, gone: Iterable[tuple[str, str]], now: float) -> None:
        """Take notice that the content of ``key`` changed, and that the resources ``gone`` are no longer in it."""
        for type_url, name in gone:
            kind = self._kinds[type_url]
            if type_url in WILDCARD_TYPES and name in kind.known:
                kind.leftover.add(name)
        self._touch(key, now)

    def receive(self, request: Request, now: float) -> set[str]:
        """Take in what the proxy said; return the keys that it refused. Types that are not served are ignored."""
        kind = self._kinds.get(request.type_url)
        if kind is None:
            return set()
        refused = self._answered(request, kind, now) if request.nonce else set()
        if not kind.requested:
            self._begin(request, kind, now)
        elif request.type_url not in WILDCARD_TYPES:
            self._resubscribe(request, kind, now)
        return refused

    def send(self, now: float) -> tuple[list[bytes], list[str]]:
        """Return the responses that are due, in order, and the keys that the proxy has had in force since now."""
        batches = {type_url: Batch() for type_url in TYPES}
        if not self._kinds[LDS].greeted:
            self._touched = dict.fromkeys(self.pending)
        touched, self._touched = self._touched, {}
        held = {key: self._offer_backends(key, batches) for key in touched}
        if not self._starting():
            for key in touched:
                self._offer_routes(key, held[key], batches)
        self._deny_endpoints(batches[EDS])
        self._remove_listeners(batches[LDS])
        self._remove_clusters(batches[CDS], now)
        settled = [key for key in touched if key in self.pending and self._in_force(key)]
        for key in settled:
            del self.pending[key]
        return [response for type_url in TYPES for response in self._responses(type_url, batches[type_url])], settled

    def wake_at(self, now: float) -> float | None:
        """Return when to call ``send`` again even if nothing happens, None for never."""
        return self._drained_at if self._kinds[CDS].leftover and self._drained_at > now else None

    def rejections(self, key: str) -> tuple[Rejection, ...]:
        """Return what the proxy refused of the present content of ``key``."""
        return tuple(
            Rejection(self.proxy, type_url, kind.rejected[entry.resource.name][1])
            for type_url, kind in self._kinds.items()
            for entry in self._entries(key, type_url)
            if self._refused(kind, entry)
        )

    # What the proxy said

    def _begin(self, request: Request, kind: Kind, now: float) -> None:
        """Take the first request for a type: what a proxy that comes back still has is not sent again."""
        wildcard = request.type_url in WILDCARD_TYPES
        kind.requested = True
        kind.greeted = bool(request.initial_versions) or not wildcard
        kind.subscribed.update(request.subscribe)
        for name, version in request.initial_versions.items():
            if wildcard or name in kind.subscribed:
                kind.known[name] = version
            if wildcard and self._catalogue.entry(request.type_url, name) is None:
                kind.leftover.add(name)
        kind.absent = kind.subscribed - kind.known.keys()
        self._touched.update(dict.fromkeys(self.pending))
        if request.type_url == LDS:
            for name in kind.leftover:
                self._touch_owner(LDS, name, now)

    def _resubscribe(self, request: Request, kind: Kind, now: float) -> None:
        for name in request.unsubscribe:
            kind.subscribed.discard(name)
            kind.forget(name)
            kind.absent.discard(name)
            self._touch_owner(request.type_url, name, now)
        for name in request.subscribe:
            kind.subscribed.add(name)
            kind.forget(name)
            kind.absent.add(name)
            self._touch_owner(request.type_url, name, now)

    def _answered(self, request: Request, kind: Kind, now: float) -> set[str]:
        sent = kind.unanswered.pop(request.nonce, {})
        owners = {self._catalogue.owner(request.type_url, name) for name in sent}
        for name, version in sent.items():
            del kind.in_flight[name]
            if not request.error:
                self._acknowledged(request.type_url, name, version, now)
            elif version is None:
                kind.forget(name)
                kind.leftover.discard(name)
            elif len(owners) > 1:
                kind.suspects.add(name)
                if kind.known.get(name) == version:
                    kind.forced.add(name)
            else:
                kind.rejected[name] = (version, request.error)
                kind.suspects.discard(name)
            self._touch_owner(request.type_url, name, now)
        return {owner for owner in owners if owner is not None and request.error and len(owners) == 1}

    def _acknowledged(self, type_url: str, name: str, version: str | None, now: float) -> None:
        kind = self._kinds[type_url]
        kind.rejected.pop(name, None)
        kind.suspects.discard(name)
        if version is None:
            kind.known.pop(name, None)
            kind.leftover.discard(name)
            if type_url == LDS:
                self._drained_at = now + self._drain_s
            return
        kind.known[name] = version
        if type_url in WILDCARD_TYPES and self._catalogue.entry(type_url, name) is None:
            kind.leftover.add(name)

    # What it is sent

    def _offer_backends(self, key: str, batches: dict[str, Batch]) -> set[str]:
        """Offer clusters and endpoints, but for the clusters whose names are returned: routes must leave them first."""
        service = self._catalogue.service(key)
        held = {entry.resource.name for entry in service.endpoints if self._waits_to_empty(entry)}
        for type_url, entries in ((CDS, service.clusters), (EDS, service.endpoints)):
            for entry in entries:
                if entry.resource.name not in held:
                    self._offer(type_url, entry, batches)
        return held

    def _offer_routes(self, key: str, held: set[str], batches: dict[str, Batch]) -> None:
        """Offer listeners and routes when what they may name is there; when they are in force, what was held back."""
        if not all(self._usable(type_url, self._entries(key, type_url), held) for type_url in (CDS, EDS)):
            return
        for type_url in (LDS, RDS):
            for entry in self._entries(key, type_url):
                self._offer(type_url, entry, batches)
        if not held or not self._routed(key):
            return
        for type_url in (CDS, EDS):
            for entry in self._entries(key, type_url):
                if entry.resource.name in held:
                    self._offer(type_url, entry, batches)

    def _offer(self, type_url: str, entry: Entry, batches: dict[str, Batch]) -> None:
        """Send the entry if the proxy wants it, does not have it, has not refused it and is not being sent it."""
        kind = self._kinds[type_url]
        name = entry.resource.name
        wanted = kind.requested and (type_url in WILDCARD_TYPES or name in kind.subscribed)
        if not wanted or name in kind.in_flight or self._refused(kind, entry):
            return
        if type_url == CDS and not self._endpoints_can_follow(name):
            return
        if kind.known.get(name) == entry.version and name not in kind.forced:
            return
        kind.in_flight[name] = entry.version
        kind.forced.discard(name)
        batches[type_url].upserts.append(entry)
        if type_url == CDS:
            self._kinds[EDS].forced.add(name)

    def _endpoints_can_follow(self, cluster: str) -> bool:
        """Whether endpoints can go with the cluster, in the same turn.

        A cluster that is sent anew warms until its endpoints come again, whether they changed or not. Later they might
        have become none, and would wait for the routes, which wait for the cluster.
        """
        endpoints = self._kinds[EDS]
        if self._catalogue.entry(EDS, cluster) is None:
            return True
        return cluster not in endpoints.in_flight and (endpoints.requested or cluster not in self._kinds[CDS].known)

    def _remove(self, type_url: str, name: str, batch: Batch) -> None:
        kind = self._kinds[type_url]
        if self._catalogue.entry(type_url, name) is not None:
            kind.leftover.discard(name)
        elif name not in kind.in_flight:
            kind.in_flight[name] = None
            batch.removals.append(name)

    def _deny_endpoints(self, batch: Batch) -> None:
        """Answer for clusters that were withdrawn on their way: they warm, and hold all others, until there is one."""
        kind = self._kinds[EDS]
        absent, kind.absent = kind.absent, set()
        for name in absent:
            self._remove(EDS, name, batch)

    def _remove_listeners(self, batch: Batch) -> None:
        for name in tuple(self._kinds[LDS].leftover):
            owner = self._catalogue.owner(LDS, name)
            if owner is None or self._routed(owner):
                self._remove(LDS, name, batch)

    def _remove_clusters(self, batch: Batch, now: float) -> None:
        """Remove clusters that nothing names any more: not the key's routes, and no listener that still drains."""
        listeners = self._kinds[LDS]
        if not listeners.requested or listeners.leftover or now < self._drained_at:
            return
        for name in tuple(self._kinds[CDS].leftover):
            owner = self._catalogue.owner(CDS, name)
            if self._routed(owner) if owner is not None else not self.pending:
                self._remove(CDS, name, batch)

    def _responses(self, type_url: str, batch: Batch) -> Iterator[bytes]:
        kind = self._kinds[type_url]
        greet = kind.requested and not kind.greeted and not (type_url == LDS and self._starting())
        if not batch.upserts and not batch.removals and not greet:
            return
        kind.greeted = True
        messages: list[tuple[list[Entry], list[str]]] = [(group, []) for group in split(batch.upserts, kind.suspects)]
        if batch.removals or not messages:
            messages.append(([], batch.removals))
        for entries, removals in messages:
            self._nonce += 1
            nonce = str(self._nonce)
            sent: dict[str, str | None] = {entry.resource.name: entry.version for entry in entries}
            kind.unanswered[nonce] = {**sent, **dict.fromkeys(removals)}
            yield ads_wire.response(type_url, nonce, (entry.part for entry in entries), removals)

    # What it has

    def _starting(self) -> bool:
        """Whether the first listeners wait: Envoy is ready with the first response, so that one should be complete."""
        return not self._kinds[LDS].greeted and bool(self._kinds[CDS].in_flight or self._kinds[EDS].in_flight)

    def _waits_to_empty(self, endpoints: Entry) -> bool:
        """Whether the proxy still has endpoints of a pool that is empty now, so that routes must change first."""
        known = self._kinds[EDS].known.get(endpoints.resource.name)
        return endpoints.resource.empties and known not in (None, endpoints.version)

    def _usable(self, type_url: str, entries: Iterable[Entry], held: set[str]) -> bool:
        """Whether routes may name these: present content, or what it replaces if the proxy refused it."""
        kind = self._kinds[type_url]
        for entry in entries:
            name = entry.resource.name
            if name in held:
                continue
            if name not in kind.known or name in kind.in_flight or name in kind.forced:
                return False
            if kind.known[name] != entry.version and not self._refused(kind, entry):
                return False
        return True

    def _has(self, key: str, type_url: str) -> bool:
        kind = self._kinds[type_url]
        return all(
            kind.known.get(entry.resource.name) == entry.version
            and entry.resource.name not in kind.in_flight
            and entry.resource.name not in kind.forced
            for entry in self._entries(key, type_url)
        )

    def _routed(self, key: str) -> bool:
        return self._has(key, LDS) and self._has(key, RDS)

    def _in_force(self, key: str) -> bool:
        """Whether the proxy has all present content of the key, and none of its former listeners."""
        gone = any(self._catalogue.owner(LDS, name) == key for name in self._kinds[LDS].leftover)
        return not gone and all(self._has(key, type_url) for type_url in TYPES)

    def _refused(self, kind: Kind, entry: Entry) -> bool:
        refusal = kind.rejected.get(entry.resource.name)
        return refusal is not None and refusal[0] == entry.version and kind.known.get(entry.resource.name) != refusal[0]

    def _entries(self, key: str, type_url: str) -> tuple[Entry, ...]:
        service = self._catalogue.service(key)
        by_type = {CDS: service.clusters, EDS: service.endpoints, LDS: service.listeners, RDS: service.routes}
        return by_type[type_url]

    def _touch(self, key: str, now: float) -> None:
        self._touched[key] = None
        self.pending.setdefault(key, now)

    def _touch_owner(self, type_url: str, name: str, now: float) -> None:
        owner = self._catalogue.owner(type_url, name)
        if owner is not None:
            self._touch(owner, now)
