"""What the operator serves: health, readiness and metrics over HTTP, admission webhooks over HTTPS.

``/healthz`` answers 503 with a sentence when one of its checks has a complaint, so that the kubelet restarts a process
that runs and does nothing. (A loop that stands still altogether does not answer, which is the same to the kubelet.)
``/readyz`` does so with the checks of readiness.
"""

import asyncio
import ssl
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import structlog
from aiohttp import web

from serinus.controller.metrics import CONTENT_TYPE, Metrics
from serinus.controller.workqueue import WorkQueue

HTTP_PORT = 8080
WEBHOOK_PORT = 9443
STALL_S = 60.0
SAMPLE_S = 0.5
REVIEW_LIMIT_BYTES = 8 * 1024 * 1024
REVIEW_TIMEOUT_S = 8.0

log = structlog.get_logger()

Check = Callable[[], str]
"""Returns a sentence that says what is wrong, or nothing."""
Review = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers an ``AdmissionReview`` with an ``AdmissionReview``."""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class LoopLag:
    """Measures by how much the event loop is late. ``worst_s`` is the worst of the last minute."""

    def __init__(self, *, clock: Callable[[], float] = _loop_time, on_sample: Callable[[float], None] | None = None):
        self._clock = clock
        self._on_sample = on_sample
        self._lags: deque[float] = deque(maxlen=int(60 / SAMPLE_S))
        self._sampled_at: float | None = None

    @property
    def worst_s(self) -> float:
        """Seconds by which the loop was late at its worst in the last minute."""
        return max(self._lags, default=0.0)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            before = self._clock()
            await asyncio.sleep(SAMPLE_S)
            self._sampled_at = self._clock()
            self._lags.append(max(self._sampled_at - before - SAMPLE_S, 0.0))
            if self._on_sample:
                self._on_sample(self.worst_s)

    def check(self, limit_s: float = STALL_S) -> str:
        """Complain when no sample came for ``limit_s``."""
        if self._sampled_at is None:
            return ""
        age_s = self._clock() - self._sampled_at
        return f"the event loop has stood still for {age_s:.0f} s" if age_s > limit_s else ""


def check_queue(queue: WorkQueue, limit_s: float = STALL_S) -> str:
    """Complain when the queue, once running, has not looked at its keys, or leaves a due one waiting, for too long."""
    age_s = queue.tick_age_s
    if age_s is None:
        return ""
    if age_s > limit_s:
        return f"the queue has not looked at its keys for {age_s:.0f} s"
    if queue.oldest_due_s > limit_s:
        return f"a key has been due for {queue.oldest_due_s:.0f} s and no worker takes it; {queue.running} are running"
    return ""


def http_app(metrics: Metrics, health: Mapping[str, Check], ready: Mapping[str, Check]) -> web.Application:
    """Return the application with ``/healthz``, ``/readyz`` and ``/metrics``."""
    app = web.Application()

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=metrics.rendered(), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/healthz", _probe(health))
    app.router.add_get("/readyz", _probe(ready))
    app.router.add_get("/metrics", show)
    return app


def webhook_app(reviews: Mapping[str, Review]) -> web.Application:
    """Return the application that answers admission reviews, by path: ``{"/inject": inject}``.

    A review that fails is answered 500, so that the webhook's own ``failurePolicy`` decides.
    """
    app = web.Application(client_max_size=REVIEW_LIMIT_BYTES)
    for path, review in reviews.items():
        app.router.add_post(path, _admission(path, review))
    return app


class Certificate:
    """The webhooks' server certificate, which may be replaced while connections are served."""

    def __init__(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def replace(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """Use this certificate chain and key for connections from now on.

        Raises:
            ssl.SSLError: they are no PEM, or do not belong together; the former ones stay.
        """
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory(
            prefix="serinus-tls-"
        ) as folder:  # made with mode 0700; OpenSSL reads files only
            chain, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
            chain.write_bytes(certificate_pem)
            key.write_bytes(key_pem)
            for context in (probe, self.context):
                context.load_cert_chain(chain, key)


class Server:
    """One listening application, on every address unless ``host`` names one.

    Use ``start`` and ``stop``, or ``async with``.
    """

    def __init__(
        self, app: web.Application, port: int, *, host: str | None = None, certificate: Certificate | None = None
    ):
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=3.0)
        self._host = host
        self._wanted = port
        self._certificate = certificate

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        await self._runner.setup()
        context = self._certificate.context if self._certificate else None
        await web.TCPSite(self._runner, self._host, self._wanted, ssl_context=context, reuse_address=True).start()

    async def stop(self) -> None:
        """Answer what was asked, then close."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _probe(checks: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        complaints = [f"{name}: {said}" for name, check in checks.items() if (said := check())]
        if complaints:
            return web.Response(status=503, text="\n".join(complaints) + "\n")
        return web.Response(text="ok\n")

    return answer


def _admission(path: str, review: Review) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            asked = await request.json()
        except ValueError:
            return web.Response(status=400, text="the body is not JSON; send an AdmissionReview\n")
        if not isinstance(asked, dict) or not isinstance(asked.get("request"), dict):
            return web.Response(status=400, text="the body is not an AdmissionReview with a request\n")
        try:
            async with asyncio.timeout(REVIEW_TIMEOUT_S):
                return web.json_response(await review(asked))
        except Exception as problem:
            log.error("admission review failed", path=path, error=repr(problem), exc_info=problem)
            return web.Response(status=500, text=f"the review failed: {problem!r}\n")

    return answer
