"""One connected sidecar: reads what it says, writes what its stream wants sent."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from grpc import StatusCode
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from serinus.mesh.ads_stream import Stream
from serinus.mesh.ads_wire import Request
from serinus.mesh.gates import Gates, Layer

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Proxy:
    """A connected sidecar. ``connected_since`` is in seconds since the epoch."""

    namespace: str
    pod: str
    uid: str
    ip: str
    connected_since: float

    @property
    def name(self) -> str:
        """``namespace/pod``."""
        return f"{self.namespace}/{self.pod}"


class Context(Protocol):
    """The part of ``grpc.aio.ServicerContext`` that is used here."""

    async def read(self) -> Any:
        """Return the next request, or ``EOF``."""

    async def write(self, message: bytes) -> None:
        """Send one response."""

    async def abort(self, code: StatusCode, details: str) -> None:
        """End the call with an error."""

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata."""

    def peer(self) -> str:
        """Return the caller's address."""


class Connection:
    """The conversation with one proxy. ``lock`` guards its stream, its layer and what ``gates`` returns.

    ``complete`` returns, under the lock, which of the keys that this proxy now has are in force everywhere; ``notify``
    is called with these, and with keys that the proxy refused; ``sent`` is called after each response.
    """

    def __init__(
        self,
        proxy: Proxy,
        stream: Stream,
        layer: Layer,
        gates: Callable[[], Gates],
        lock: threading.Lock,
        complete: Callable[[list[str]], list[str]],
        notify: Callable[[str], None],
        sent: Callable[[], None] = lambda: None,
    ) -> None:
        self._sent = sent
        self.proxy = proxy
        self.stream = stream
        self.layer = layer
        self._gates = gates
        self._lock = lock
        self._complete = complete
        self._notify = notify
        self._wake = asyncio.Event()
        self._closing = False

    def wake(self) -> None:
        """Have what is due sent. Call it in the server's loop."""
        self._wake.set()

    def close(self) -> None:
        """End the conversation; the proxy connects again. Call it in the server's loop."""
        self._closing = True
        self._wake.set()

    async def run(self, first: Request, context: Context, age_s: float) -> None:
        """Converse until the proxy leaves, ``close`` is called, or ``age_s`` seconds are over."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(age_s, self.close)
        reader = loop.create_task(self._read(first, context), name=f"ads read {self.proxy.name}")
        try:
            await self._write(context)
        finally:
            timer.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, first: Request, context: Context) -> None:
        request = first
        try:
            while request is not EOF:
                with self._lock:
                    refused = self.stream.receive(request, time.monotonic())
                    no_faults = self.layer.receive(request)
                if no_faults:
                    log.warning("a proxy refused the faults", proxy=self.proxy.name, error=no_faults)
                for key in refused:
                    log.warning("a proxy refused a resource", proxy=self.proxy.name, key=key, error=request.error)
                    self._notify(key)
                self._wake.set()
                request = await context.read()
        finally:
            self.close()

    async def _write(self, context: Context) -> None:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        try:
            while not self._closing:
                self._wake.clear()
                now = time.monotonic()
                with self._lock:
                    layer = self.layer.send(self._gates(), now)
                    responses, settled = self.stream.send(now)
                    wake_at = self.stream.wake_at(now)
                    complete = self._complete(settled)
                for key in complete:
                    self._notify(key)
                for response in [*([layer] if layer else []), *responses]:
                    await context.write(response)
                    self._sent()
                if timer is not None:
                    timer.cancel()
                timer = None if wake_at is None else loop.call_later(wake_at - now, self._wake.set)
                await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()
