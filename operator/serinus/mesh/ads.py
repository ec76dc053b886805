"""The ADS server: Delta xDS to all sidecars, in a thread and an event loop of its own.

What is sent when is ``serinus.mesh.ads_stream``'s; here are the connections. Everything public is thread-safe. One
lock guards the catalogue and all streams, so what ``acks`` says after ``publish`` is about what was published.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from serinus.mesh import ads_wire
from serinus.mesh.ads_catalogue import Catalogue
from serinus.mesh.ads_connection import Connection, Context, Proxy
from serinus.mesh.ads_stream import Stream
from serinus.mesh.ads_wire import Request
from serinus.mesh.ca import Pair
from serinus.mesh.gates import Caller, Gate, Gates, Layer
from serinus.mesh.identity import Identity, Refused, bearer, check_node
from serinus.mesh.model import Acks, Resource

__all__ = ["AdsServer", "Proxy"]

log = structlog.get_logger()

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_METHOD = "DeltaAggregatedResources"
_MAX_REJECTIONS = 20
_HELLO_S = 10.0
_MAX_AGE_S = (1500.0, 2100.0)
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # By default new streams are cancelled when a thousand wait, as after a restart in a large mesh.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


class AdsServer:
    """Sends every proxy the resources of all keys, and knows how far each has come.

    ``authenticate`` returns whose a token is (``serinus.mesh.identity``); it is awaited in the server's own loop, so
    wrap what belongs to another loop with ``identity.on_loop``. ``on_change`` is called in the server's thread, never
    under its lock: with a key when all proxies have what was published, or when one refused it, and with ``""`` when
    the set of proxies changed. It must return at once; ``loop.call_soon_threadsafe`` is meant.
    ``drain_s`` is the sidecars' drain time: clusters of removed listeners stay that much longer.
    ``on_sent`` is called in the server's thread after each response.
    """

    def __init__(
        self,
        authenticate: Callable[[str], Awaitable[Identity]],
        certificate: Pair,
        on_change: Callable[[str], None],
        drain_s: float = 45.0,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_sent = on_sent
        self._authenticate = authenticate
        self._certificate = certificate
        self._on_change = on_change
        self._drain_s = drain_s
        self._lock = threading.Lock()
        self._catalogue = Catalogue()
        self._gates = Gates()
        self._connections: dict[str, Connection] = {}
        self._awaited: set[str] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._grace_s = 0.0

    @property
    def running(self) -> bool:
        """Whether proxies are served now."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, address: str) -> int:
        """Serve at ``host:port``; return the port. Blocks for the moment that binding takes.

        Raises:
            OSError: the address cannot be had.
            RuntimeError: it runs already.
        """
        if self.running:
            raise RuntimeError("the ADS server runs already")
        bound: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(address, bound), name="ads", daemon=True)
        self._thread.start()
        return bound.result(timeout=30)

    def stop(self, grace_s: float) -> None:
        """End all streams and wait for the thread, at most ``grace_s`` and five more seconds. Blocks."""
        thread, stopping = self._thread, self._stopping
        if thread is None or stopping is None:
            return
        self._grace_s = grace_s
        self._call(self._close_all)
        self._call(stopping.set)
        thread.join(grace_s + 5)
        self._thread = None

    def replace_certificate(self, certificate: Pair) -> None:
        """Use another certificate for connections from now on."""
        self._certificate = certificate

    def publish(self, key: str, resources: tuple[Resource, ...]) -> None:
        """Make ``resources`` the whole present content of ``key``, for all proxies.

        Raises:
            ValueError: a type that is not served, a name given twice, or one of another key.
        """
        with self._lock:
            gone = self._catalogue.publish(key, resources)
            if gone is None:
                return
            now = time.monotonic()
            for connection in self._connections.values():
                connection.stream.publish(key, gone, now)
            self._awaited.add(key)
        self._call(self._wake_all)

    def withdraw(self, key: str) -> None:
        """Take away all that ``key`` has; ``acks`` tells when its listeners are gone."""
        self.publish(key, ())

    def set_gates(self, gates: tuple[Gate, ...], valid_s: float) -> None:
        """Open these gates and no others, in the sidecars that they admit, for ``valid_s`` seconds at most.

        Without another call within that time they close by themselves, in every sidecar, whatever becomes of us.
        """
        with self._lock:
            if not gates and not self._gates.gates:
                return
            self._gates = Gates(gates, time.monotonic() + valid_s, self._gates.serial + 1)
        self._call(self._wake_all)

    def injecting(self, gate: str) -> int:
        """Return in how many sidecars the gate of this name is open, by their last answers."""
        with self._lock:
            return sum(gate in connection.layer.acknowledged for connection in self._connections.values())

    def acks(self, key: str) -> Acks:
        """Return how many proxies have all present content of ``key`` in force, and who lags, longest first."""
        with self._lock:
            now = time.monotonic()
            connections = tuple(self._connections.values())
            lags = [
                (each.proxy.name, now - each.stream.pending[key]) for each in connections if key in each.stream.pending
            ]
            rejections = tuple(
                rejection
                for each in connections
                if key in each.stream.pending
                for rejection in each.stream.rejections(key)
            )
            if lags:
                self._awaited.add(key)
        laggards = tuple(sorted(lags, key=lambda lag: -lag[1]))
        return Acks(len(connections), len(connections) - len(lags), laggards, rejections[:_MAX_REJECTIONS])

    def proxies(self) -> tuple[Proxy, ...]:
        """Return the connected sidecars."""
        with self._lock:
            return tuple(connection.proxy for connection in self._connections.values())

    def drop(self, uid: str) -> None:
        """End the stream of the pod with this uid, because it is gone."""
        with self._lock:
            connection = self._connections.get(uid)
        if connection is not None:
            self._call(connection.close)

    # The thread

    def _call(self, function: Callable[[], Any]) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:
            log.debug("the ADS server has ended", call=function.__name__)

    def _run(self, address: str, bound: "Future[int]") -> None:
        try:
            asyncio.run(self._main(address, bound))
        except Exception as error:  # the thread's end of the line
            log.exception("the ADS server failed", address=address)
            if not bound.done():
                bound.set_exception(error)

    async def _main(self, address: str, bound: "Future[int]") -> None:
        self._stopping = asyncio.Event()
        handler = grpc.stream_stream_rpc_method_handler(self._serve, request_deserializer=ads_wire.read_request)
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        try:
            port = server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            port, reason = 0, str(error)
        else:
            reason = "nothing was bound"
        if not port:
            bound.set_exception(OSError(f"the ADS server cannot listen at {address}: {reason}"))
            return
        await server.start()
        self._loop = asyncio.get_running_loop()
        bound.set_result(port)
        log.info("the ADS server listens", address=address, port=port)
        await self._stopping.wait()
        self._loop = None
        await server.stop(self._grace_s)

    def _credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow ``replace_certificate``.

        Every handshake asks, and an answer makes gRPC replace what other handshakes may be using at that moment, which
        can end the process (https://github.com/grpc/grpc/issues/36693). So there is one only after a replacement.
        """
        served = self._certificate

        def replaced() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            if served == self._certificate:
                return None
            served = self._certificate
            return _configuration(served)

        return grpc.dynamic_ssl_server_credentials(_configuration(served), replaced)  # type: ignore[arg-type]  # may be None

    def _wake_all(self) -> None:
        for connection in tuple(self._connections.values()):
            connection.wake()

    def _close_all(self) -> None:
        for connection in tuple(self._connections.values()):
            connection.close()

    # One stream

    async def _serve(self, _: AsyncIterator[Request], context: Context) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                header = dict(context.invocation_metadata() or ()).get("authorization")
                identity = await self._authenticate(bearer(header))
                first = await context.read()
            if first is EOF:
                return
            check_node(identity, first.node_id)
        except Refused as refused:
            log.warning("a proxy was refused", peer=context.peer(), reason=str(refused))
            await context.abort(grpc.StatusCode[refused.code], str(refused))
            return
        except Exception as error:  # noqa: BLE001 - an API server that is away, above all: the proxy comes again
            log.warning("a proxy could not be authenticated", peer=context.peer(), error=repr(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "its identity cannot be checked now")
            return
        connection = self._join(identity)
        age_s = min(random.uniform(*_MAX_AGE_S), max(0.0, identity.expires_at - time.time()))  # noqa: S311 - jitter
        try:
            await connection.run(first, context, age_s)
        finally:
            self._leave(connection)

    def _join(self, identity: Identity) -> Connection:
        proxy = Proxy(identity.namespace, identity.pod, identity.uid, identity.ip, time.time())
        with self._lock:
            stream = Stream(self._catalogue, proxy.name, time.monotonic(), self._drain_s)
            layer = Layer(Caller(identity.namespace, identity.service_account, identity.uid))
            connection = Connection(
                proxy, stream, layer, lambda: self._gates, self._lock, self._complete, self._notify, self._on_sent
            )
            previous = self._connections.pop(proxy.uid, None)
            self._connections[proxy.uid] = connection
        if previous is not None:
            previous.close()
        log.debug("a proxy connected", proxy=proxy.name, address=proxy.ip)
        self._notify("")
        return connection

    def _leave(self, connection: Connection) -> None:
        with self._lock:
            if self._connections.get(connection.proxy.uid) is not connection:
                return
            del self._connections[connection.proxy.uid]
            complete = self._complete(list(connection.stream.pending))
        log.debug("a proxy disconnected", proxy=connection.proxy.name)
        for key in ("", *complete):
            self._notify(key)

    def _complete(self, keys: list[str]) -> list[str]:
        """Return which of the keys somebody waits for and no proxy lacks any more. The lock is held."""
        complete = [
            key
            for key in keys
            if key in self._awaited and not any(key in each.stream.pending for each in self._connections.values())
        ]
        self._awaited.difference_update(complete)
        return complete

    def _notify(self, key: str) -> None:
        try:
            self._on_change(key)
        except Exception:  # a listener's defect must not end a stream
            log.exception("a listener for acknowledgements failed", key=key)


def _configuration(certificate: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificate.key, certificate.certificate)])
