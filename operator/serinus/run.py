"""``serinus operator``: start everything in order, and stop when the lease or any part is lost.

1. Look whether our resource definitions are there; load or make the certificates; serve health and admission.
2. Wait for the Lease. A standby answers admission reviews, so pods start whoever leads.
3. Fill the caches and publish what the persisted statuses imply; only then let sidecars connect.
4. Reconcile, and let Kopf watch. Whichever part ends first ends the process; Kubernetes starts it again.
"""

import asyncio
import base64
import ctypes
import gc
import os
import resource
import signal
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from serinus import __version__, handlers
from serinus.api.names import GROUP, LABEL_ROLE, SYSTEM_NAMESPACE
from serinus.api.release import CanaryStatus
from serinus.api.status import Reason
from serinus.controller import logs, serve
from serinus.controller.controller import Controller
from serinus.controller.evidences import Collector
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed
from serinus.controller.metrics import Metrics
from serinus.controller.policies import Policies
from serinus.controller.promql import MetricReader
from serinus.controller.reconcile import Reconciler
from serinus.controller.workqueue import WorkQueue
from serinus.delivery.model import Decision
from serinus.kube import kinds
from serinus.kube.client import KubeClient
from serinus.kube.errors import Conflict, KubeError, NotFound
from serinus.kube.events import EventPoster
from serinus.kube.lease import Lease
from serinus.kube.requests import Object
from serinus.mesh import ca
from serinus.mesh.admission import review
from serinus.mesh.ads import AdsServer
from serinus.mesh.identity import Authenticator, on_loop, review_request
from serinus.mesh.inject import InjectionSettings, inject
from serinus.mesh.ports import http_ports
from serinus.mesh.render import render_service
from serinus.mesh.scrape import EvidenceReader

HTTP_PORT = 8080
WEBHOOK_PORT = 9443
ADS_PORT = 15010
RENEWAL_S = 600.0
TIDY_S = 20.0
"""How often it is looked at whether there is freed memory to give back to the system."""
TIDY_BYTES = 4 << 20
"""By so much memory has grown then."""
ANEW = 1.25
"""So many times what was set aside is memory when all objects are looked through anew."""
RETURN_S = 5.0
"""Sidecars have this long to come back after a start before their number is believed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says: our pod and namespace, and the sidecars' image."""

    pod: str
    pod_uid: str
    namespace: str
    proxy_image: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read ``POD_NAME``, ``POD_UID``, ``POD_NAMESPACE`` and ``SERINUS_PROXY_IMAGE``."""
        pod = os.environ.get("POD_NAME", "")
        return cls(
            pod=pod,
            pod_uid=os.environ.get("POD_UID", uuid.uuid4().hex),
            namespace=os.environ.get("POD_NAMESPACE", SYSTEM_NAMESPACE),
            proxy_image=os.environ.get("SERINUS_PROXY_IMAGE", "serinus-proxy:dev"),
        )

    def names(self) -> tuple[str, ...]:
        """The DNS names by which admission and ADS are reached."""
        services = ("serinus-webhook", "serinus-xds")
        return tuple(f"{service}.{self.namespace}.svc" for service in services)


class Operator:
    """All parts of one process, and the order in which they start."""

    def __init__(self, settings: Settings, kube: KubeClient, metrics: Metrics, main: "asyncio.Task[None]"):
        self._main = main
        self._settings = settings
        self._kube = kube
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._queue = WorkQueue(observer=metrics.reconciled)
        metrics.queue_depth.set_function(lambda: self._queue.depth)
        self._lag = serve.LoopLag(on_sample=metrics.loop_lag_seconds.set)
        self._lease = Lease(kube, f"{settings.pod}_{settings.pod_uid}", namespace=settings.namespace)
        self._events = EventPoster(kube, settings.pod)
        self._certificate = serve.Certificate()
        self._ready = ""
        self._feed: Feed | None = None
        self._ads: AdsServer | None = None

    async def run(self) -> None:
        """Run until a part ends.

        Raises:
            KubeError: the API server cannot be reached, or our resource definitions are missing.
        """
        await self._check_definitions()
        bundle = await self._certificates()
        self._certificate.replace(bundle.serving.certificate, bundle.serving.key)
        health = {
            "loop": self._lag.check,
            "queue": lambda: serve.check_queue(self._queue) if self._leads else "",
            "sidecars": lambda: "" if self._ads is None or self._ads.running else "the ADS server has ended",
        }
        plain = serve.Server(serve.http_app(self._metrics, health, {"start": lambda: self._ready}), HTTP_PORT)
        injection = InjectionSettings(
            image=self._settings.proxy_image,
            xds_address=f"serinus-xds.{self._settings.namespace}.svc:{ADS_PORT}",
            ca_pem=bundle.ca_pem.decode(),
        )
        hooks = serve.webhook_app({"/inject": lambda body: self._inject(body, injection)})
        secure = serve.Server(hooks, WEBHOOK_PORT, certificate=self._certificate)
        async with plain, secure, asyncio.TaskGroup() as parts:
            _part(parts, self._lag.run(), "loop lag")
            _part(parts, self._renewals(bundle), "certificates")
            await self._lead_label(leads=False)  # of the process before us in this pod
            await self._lease.acquire()
            _part(parts, self._lease.hold(lambda: None), "lease")
            await self._lead(parts, bundle)

    def stop(self) -> None:
        """Close the sidecars' streams, so that they look for the next leader at once."""
        if self._ads is not None:
            self._ads.stop(1.0)

    @property
    def _leads(self) -> bool:
        return self._ads is not None

    async def _lead(self, parts: asyncio.TaskGroup, bundle: ca.Bundle) -> None:
        self._metrics.leader.set(1)
        authenticator = Authenticator(self._review_token, self._get_pod)
        feed: Feed
        controller: Controller

        def changed(key: str) -> None:
            self._loop.call_soon_threadsafe(touched, key)

        def touched(key: str) -> None:
            self._metrics.ads_proxies.set(len(ads.proxies()))
            if key:
                controller.touched(key)

        pushed = self._metrics.ads_pushes_total.inc
        ads = AdsServer(on_loop(self._loop, authenticator.__call__), bundle.serving, changed, on_sent=pushed)
        feed = Feed(ads, render_service)
        faults = Faults(ads, feed)
        self._metrics.faults_active.set_function(lambda: faults.active)
        policies = Policies(self._kube, feed, faults, self._post_policy)
        controller = Controller(self._kube, feed, self._queue, policies, faults, ads.drop)
        reader = EvidenceReader()
        answers = MetricReader()
        controller.reconciler = Reconciler(
            self._kube,
            feed,
            faults,
            Collector(feed, reader, answers, ads.proxies),
            rival=controller.rival,
            post=self._post,
            seen=lambda namespace, name, status, written: self._seen(controller, namespace, name, status, written),
        )
        await controller.prime()
        self._feed = feed
        ads.start(f"[::]:{ADS_PORT}")
        self._ads = ads
        await self._lead_label(leads=True)
        self._loop.call_later(RETURN_S, setattr, feed, "settled", True)
        _part(parts, reader.run(lambda owner: self._queue.add(f"canary:{owner}")), "scrape")
        _part(parts, self._events.run(), "events")
        _part(parts, controller.run(), "controller")
        _part(parts, handlers.watch(controller, self._main.cancel), "kopf")
        _part(parts, _tidy(), "memory")
        log.info("leading", version=__version__)

    async def _check_definitions(self) -> None:
        try:
            for kind in (kinds.CANARY, kinds.TRAFFIC_POLICY):
                await self._kube.list(kind, page=1)
        except NotFound as problem:
            raise KubeError(f"the resource definitions of {GROUP} are missing; kubectl apply -f crds/") from problem

    async def _certificates(self) -> ca.Bundle:
        """Load the certificates, or make and keep them; and tell the API server whom to trust for admission."""
        for _ in range(5):
            secret = await self._secret()
            bundle, data = ca.load_or_create(secret, self._settings.names(), datetime.now(UTC))
            meta = {"name": "serinus-certificates", "namespace": self._settings.namespace}
            try:
                if secret is None:
                    await self._kube.create(kinds.SECRET, {"metadata": meta, "data": data})
                elif (secret.get("data") or {}) != data:
                    await self._kube.replace(kinds.SECRET, {**secret, "data": data})
            except Conflict:
                continue  # another replica was quicker: take what it made
            await self._trust(data["ca.crt"])
            return bundle
        raise KubeError("the Secret serinus-certificates changes all the time; look who else writes it")

    async def _secret(self) -> Object | None:
        try:
            return await self._kube.get(kinds.SECRET, "serinus-certificates", self._settings.namespace)
        except NotFound:
            return None

    async def _trust(self, ca_bundle: str) -> None:
        """Write the CA into the webhook's configuration: one field, which Git leaves out."""
        name = "serinus-injection"
        try:
            present = await self._kube.get(kinds.MUTATING_WEBHOOK_CONFIGURATION, name)
        except NotFound:
            log.warning("no webhook configuration, so no pod gets a sidecar", name=name)
            return
        change = [
            {"op": "add", "path": f"/webhooks/{index}/clientConfig/caBundle", "value": ca_bundle}
            for index, webhook in enumerate(present.get("webhooks") or [])
            if webhook["clientConfig"].get("caBundle") != ca_bundle
        ]
        if change:
            await self._kube.patch(kinds.MUTATING_WEBHOOK_CONFIGURATION, name, None, change)

    async def _renewals(self, bundle: ca.Bundle) -> None:
        """Renew the certificates in time, and put the CA back into a webhook configuration that was made anew."""
        while True:
            await asyncio.sleep(RENEWAL_S)
            try:
                await self._trust(base64.b64encode(bundle.ca_pem).decode())
                if datetime.now(UTC) < bundle.renew_at:
                    continue
                bundle = await self._certificates()
            except (KubeError, ValueError) as problem:
                log.warning("certificates not looked after, trying again", error=str(problem))
                continue
            self._certificate.replace(bundle.serving.certificate, bundle.serving.key)
            if self._ads:
                self._ads.replace_certificate(bundle.serving)

    async def _inject(self, body: Object, settings: InjectionSettings) -> Object:
        services = await self._services((body.get("request") or {}).get("namespace", ""))
        return review(body, lambda pod: inject(pod, settings, http_ports(pod, services)))

    async def _services(self, namespace: str) -> list[Object]:
        if self._feed is not None:
            return [service for key, service in self._feed.services.items() if key.startswith(f"{namespace}/")]
        return await self._kube.list(kinds.SERVICE, namespace)

    async def _review_token(self, token: str) -> Object:
        return await self._kube.create(kinds.TOKEN_REVIEW, review_request(token))

    async def _get_pod(self, namespace: str, name: str) -> Object | None:
        try:
            return await self._kube.get(kinds.POD, name, namespace)
        except NotFound:
            return None

    async def _lead_label(self, *, leads: bool) -> None:
        """Let the Service of the ADS server select this pod, or not."""
        if not self._settings.pod:
            return
        change = {"metadata": {"labels": {LABEL_ROLE: "leader" if leads else None}}}
        await self._kube.patch(kinds.POD, self._settings.pod, self._settings.namespace, change)

    def _post(self, canary: Object, decision: Decision) -> None:
        about = {**canary, "apiVersion": kinds.CANARY.api_version, "kind": kinds.CANARY.name}
        for event in decision.events:
            self._events.post(about, event.reason.value, event.message, kind="Warning" if event.warning else "Normal")

    def _post_policy(self, policy: Object, reason: Reason, message: str, warning: bool) -> None:
        about = {**policy, "apiVersion": kinds.TRAFFIC_POLICY.api_version, "kind": kinds.TRAFFIC_POLICY.name}
        self._events.post(about, reason.value, message, kind="Warning" if warning else "Normal")

    def _seen(
        self, controller: Controller, namespace: str, name: str, status: CanaryStatus | None, written: str
    ) -> None:
        controller.remember(namespace, name, status, written)
        if status is None:
            self._metrics.forget(namespace, name)
        else:
            self._metrics.canary(namespace, name, status.phase.value if status.phase else "", status.weight)


async def _tidy() -> None:
    """Give memory back that the start and later bursts have left behind: glibc keeps freed pages unless it is asked.

    Python looks through all objects for unused ones again and again, which keeps decisions waiting for 50 ms and more.
    So those that stay are set aside, and are looked through only when memory has grown by a quarter.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    left = aside = 0
    while trim is not None:
        await asyncio.sleep(TIDY_S)
        present = _resident()
        if present <= left + TIDY_BYTES:
            continue
        anew = present > aside * ANEW
        if anew:
            gc.unfreeze()
        gc.collect()
        if anew:
            gc.freeze()
        await asyncio.to_thread(trim, 0)
        left = _resident()
        aside = left if anew else aside
    await asyncio.Event().wait()


def _resident() -> int:
    """Return how many bytes of memory this process has. Source: proc(5), ``/proc/pid/statm``."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _part(parts: asyncio.TaskGroup, coroutine: Coroutine[Any, Any, None], name: str) -> None:
    """Start a part. One that ends takes the process with it: half an operator is worse than none."""

    async def guarded() -> None:
        await coroutine
        raise RuntimeError(f"{name} ended")

    parts.create_task(guarded(), name=name)


async def _main() -> None:
    logs.configure()
    metrics = Metrics()
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - we are one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    async with await KubeClient.connect(metrics=metrics.api_request) as kube:
        operator = Operator(Settings.from_environment(), kube, metrics, main)
        try:
            await operator.run()
        finally:
            operator.stop()


def run() -> int:
    """Run the operator; return the process' exit status."""
    try:
        asyncio.run(_main())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 0
    except KubeError as problem:
        log.error("stopped", error=str(problem))
        return 1
    except BaseException as problem:
        log.error("stopped", error=str(problem), exc_info=problem)
        return 1
    return 0
