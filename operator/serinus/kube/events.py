"""Events for people: what happened to an object, in ``kubectl describe`` and ``kubectl events``.

Posting is a courtesy and never a duty: ``post`` returns at once and never raises, and what cannot be posted is dropped
and logged. In the mould of client-go's recorder, the same reason and message about the same object within ``SERIES_S``
count up one Event's series instead of making another; each object has a bucket of ``BURST`` tokens and gets one back
every ``REFILL_S``; the queue holds ``QUEUE`` at most.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

import structlog

from serinus.kube.client import Kube
from serinus.kube.errors import KubeError, NotFound, Transient
from serinus.kube.kinds import EVENT
from serinus.kube.requests import Object

SERIES_S = 600.0
BURST = 25
REFILL_S = 60.0
QUEUE = 256
REMEMBERED = 2048
RETRY_S = 2.0
NOTE_BYTES = 1024
CONTROLLER = "serinus.dev/operator"

log = structlog.get_logger()

EventType = Literal["Normal", "Warning"]
_Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Series:
    """One Event: how often it happened, and how often the API server knows of."""

    regarding: Object
    kind: EventType
    reason: str
    note: str
    action: str
    name: str
    namespace: str
    count: int = 0
    posted: int = 0
    last_at: float = 0.0
    waits: bool = False


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _utc() -> datetime:
    return datetime.now(UTC)


class EventPoster:
    """Posts Events while ``run`` runs. ``instance`` names this process, for example its pod."""

    def __init__(
        self,
        kube: Kube,
        instance: str,
        *,
        clock: Callable[[], float] = _loop_time,
        wall: Callable[[], datetime] = _utc,
    ):
        self._kube = kube
        self._instance = instance[:128] or "serinus"
        self._clock = clock
        self._wall = wall
        self._series: OrderedDict[_Key, _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._queue: asyncio.Queue[_Series] = asyncio.Queue(QUEUE)
        self.dropped = 0
        """Events that were not posted: too many, or refused."""

    def post(
        self, about: Object, reason: str, message: str, *, kind: EventType = "Normal", action: str = "Reconcile"
    ) -> None:
        """Say that something happened to ``about``, an object as the API server returned it. Never raises.

        Args:
            about: needs ``kind``, ``apiVersion`` and ``metadata``.
            reason: one CamelCase word, see ``serinus.api.status.Reason``.
            message: a sentence; cut to the 1,024 bytes that the API server takes.
            kind: the Event's type.
            action: one word for what we did.
        """
        try:
            series = self._counted(about, reason, message, kind, action)
        except (KeyError, TypeError, AttributeError) as problem:
            self._drop("the object has no identity", reason=reason, error=repr(problem))
            return
        if series.waits:
            return
        if not self._allowed(f"{series.namespace}/{series.regarding['kind']}/{series.regarding['name']}"):
            self._drop("too many about one object", reason=reason, about=series.regarding["name"])
            return
        try:
            self._queue.put_nowait(series)
            series.waits = True
        except asyncio.QueueFull:
            self._drop("too many in all", reason=reason, about=series.regarding["name"])

    async def run(self) -> None:
        """Post what is queued, one by one, until cancelled."""
        while True:
            series = await self._queue.get()
            series.waits = False
            await self._sent(series)

    async def drain(self, timeout_s: float = 3.0) -> None:
        """Post what is still queued, for at most ``timeout_s``; for a clean stop, after ``run`` was cancelled."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._queue.empty():
                    await self._sent(self._queue.get_nowait())
        except TimeoutError:
            self._drop("no time left at the end", waiting=self._queue.qsize())

    def _counted(self, about: Object, reason: str, message: str, kind: EventType, action: str) -> _Series:
        meta = about["metadata"]
        note = _cut(message)
        key: _Key = (str(meta.get("uid") or f"{meta.get('namespace')}/{meta['name']}"), kind, reason, note)
        now = self._clock()
        series = self._series.get(key)
        if series is None or now - series.last_at > SERIES_S:
            series = self._series[key] = self._new(about, kind, reason, note, action)
        series.count += 1
        series.last_at = now
        self._series.move_to_end(key)
        while len(self._series) > REMEMBERED:
            self._series.popitem(last=False)
        return series

    def _new(self, about: Object, kind: EventType, reason: str, note: str, action: str) -> _Series:
        meta = about["metadata"]
        regarding = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta.get("namespace", ""),
            "uid": meta.get("uid", ""),
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        return _Series(
            regarding={key: value for key, value in regarding.items() if value},
            kind=kind,
            reason=str(reason)[:128],
            note=note,
            action=action[:128],
            name=f"{meta['name'][:200]}.{uuid4().hex[:16]}",
            namespace=meta.get("namespace") or "default",
        )

    def _allowed(self, owner: str) -> bool:
        now = self._clock()
        bucket = self._buckets.setdefault(owner, _Bucket(BURST, now))
        self._buckets.move_to_end(owner)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        bucket.tokens = min(bucket.tokens + (now - bucket.at) / REFILL_S, BURST)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _sent(self, series: _Series) -> None:
        try:
            try:
                await self._write(series)
            except Transient as problem:
                await asyncio.sleep(min(problem.retry_after_s or RETRY_S, 10.0))
                await self._write(series)
        except KubeError as problem:
            self._drop("refused", reason=series.reason, about=series.regarding["name"], error=str(problem))
        except Exception as problem:  # noqa: BLE001 - an Event that cannot be posted must not stop the others
            self._drop("failed", reason=series.reason, about=series.regarding["name"], error=repr(problem))

    async def _write(self, series: _Series) -> None:
        count = series.count
        if series.posted:
            change = {"series": {"count": count, "lastObservedTime": self._stamp()}}
            try:
                await self._kube.patch(EVENT, series.name, series.namespace, change)
            except NotFound:
                series.name = f"{series.name.rsplit('.', 1)[0]}.{uuid4().hex[:16]}"  # it has expired: a new one
                await self._kube.create(EVENT, self._body(series), series.namespace)
        else:
            await self._kube.create(EVENT, self._body(series), series.namespace)
        series.posted = count

    def _body(self, series: _Series) -> Object:
        now = self._stamp()
        body: Object = {
            "metadata": {"name": series.name, "namespace": series.namespace},
            "eventTime": now,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": series.action,
            "reason": series.reason,
            "type": series.kind,
            "note": series.note,
            "regarding": series.regarding,
        }
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": now}
        return body

    def _stamp(self) -> str:
        return self._wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _drop(self, why: str, **about: object) -> None:
        self.dropped += 1
        log.warning("event not posted", why=why, **about)


def _cut(message: str) -> str:
    encoded = message.encode()
    if len(encoded) <= NOTE_BYTES:
        return message
    return encoded[: NOTE_BYTES - 3].decode(errors="ignore") + "…"
