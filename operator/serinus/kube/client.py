# ruff: noqa: D102 - the methods of KubeClient are documented on Kube
"""One thin asynchronous client of the API server: dicts in, dicts out, four kinds of errors.

It stands on ``kubernetes.aio``'s ``ApiClient`` for configuration, authentication and transport, and leaves the typed
models and API classes alone: they cost 24 MiB and refuse fields that are newer than they are. It never watches; Kopf
does. Every call ends within ``TIMEOUT_S``, and at most ``IN_FLIGHT`` run at a time, which is our only rate limit: the
API server's own (priority and fairness, 429 with ``Retry-After``) is passed on as ``Transient``.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Literal, Protocol, Self

import aiohttp
import structlog
from kubernetes.aio.client.api_client import ApiClient

from serinus import __version__
from serinus.kube import config, requests
from serinus.kube.errors import KubeError, Transient, error_from
from serinus.kube.kinds import Kind
from serinus.kube.requests import Change, Object, PatchType, Request

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
IN_FLIGHT = 32
PAGE = 100

log = structlog.get_logger()

MetricsHook = Callable[[str, str, str], None]
"""Called after each request with verb, kind and outcome: ``ok`` or the error's name in lower case."""

Propagation = Literal["Background", "Foreground", "Orphan"]


class Kube(Protocol):
    """What we ask of the API server. Every method raises ``serinus.kube.errors`` and nothing else on purpose."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """Return one object."""

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        page: int = PAGE,
        slim: bool = False,
    ) -> list[Object]:
        """Return all objects that the selectors match, in one namespace or (``None``) in all.

        ``slim`` leaves out who manages which field, which is half of many an object.
        """

    async def create(self, kind: Kind, body: Object, namespace: str | None = None, *, subresource: str = "") -> Object:
        """Create an object and return it. ``Conflict.exists`` when it is there."""

    async def apply(self, kind: Kind, body: Object, *, force: bool = True, subresource: str = "") -> Object:
        """Apply server-side as field manager ``serinus``; with ``force=False``, ``Conflict`` on others' fields."""

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Change,
        *,
        patch_type: PatchType | None = None,
        subresource: str = "",
    ) -> Object:
        """Patch: a dict merges, a list is a JSON patch. A JSON patch whose ``test`` fails is ``Rejected`` (422)."""

    async def replace(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        """Write the whole object, guarded by the ``resourceVersion`` in it."""

    async def apply_status(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        """Apply the status of ``body`` server-side."""

    async def patch_status(
        self, kind: Kind, name: str, namespace: str | None, status: Object, *, resource_version: str | None = None
    ) -> Object:
        """Merge into the status; ``Conflict`` when ``resource_version`` is given and not the present one."""

    async def replace_status(
        self, kind: Kind, name: str, namespace: str | None, status: Object, *, resource_version: str
    ) -> Object:
        """Make ``status`` the whole status, keys that it lacks included; ``Conflict`` from a stale version."""

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete an object. ``Conflict`` when a precondition does not hold, ``NotFound`` when it is gone."""


class KubeClient:
    """``Kube`` over the network. Use as ``async with await KubeClient.connect() as kube:``."""

    def __init__(
        self,
        access: config.Access,
        *,
        metrics: MetricsHook | None = None,
        timeout_s: float = TIMEOUT_S,
    ):
        self.namespace = access.namespace
        """The namespace of the kubeconfig's context, or of our own pod."""
        self._api = ApiClient(access.configuration)
        self._api.user_agent = f"serinus/{__version__}"
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._metrics = metrics
        self._refresh = access.refresh

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        metrics: MetricsHook | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Return a client for the cluster that ``serinus.kube.config.load`` finds.

        Raises:
            KubeError: there is no usable configuration; the sentence says what to set.
        """
        access = await config.load(kubeconfig, context)
        return cls(access, metrics=metrics, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        return await self.perform(requests.get(kind, name, namespace))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        page: int = PAGE,
        slim: bool = False,
    ) -> list[Object]:
        found: list[Object] = []
        token, restarted = "", False
        while True:
            try:
                answer = await self.perform(requests.list_page(kind, namespace, labels, fields, page, token))
            except Transient as problem:
                if problem.status != 410 or restarted:
                    raise
                found, token, restarted = [], "", True  # the continue token has expired: from the start, once
                continue
            for item in answer.get("items") or ():
                if slim:
                    item["metadata"].pop("managedFields", None)
                found.append(requests.stamped(kind, item))
            token = (answer.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    async def create(self, kind: Kind, body: Object, namespace: str | None = None, *, subresource: str = "") -> Object:
        return await self.perform(requests.create(kind, body, namespace, subresource))

    async def apply(self, kind: Kind, body: Object, *, force: bool = True, subresource: str = "") -> Object:
        return await self.perform(requests.apply(kind, body, force, subresource))

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Change,
        *,
        patch_type: PatchType | None = None,
        subresource: str = "",
    ) -> Object:
        return await self.perform(requests.patch(kind, name, namespace, change, patch_type, subresource))

    async def replace(self, kind: Kind, body: Object, *, subresource: str = "") -> Object:
        return await self.perform(requests.replace(kind, body, subresource))

    async def apply_status(self, kind: Kind, body: Object, *, force: bool = True) -> Object:
        return await self.perform(requests.apply(kind, body, force, "status"))

    async def patch_status(
        self, kind: Kind, name: str, namespace: str | None, status: Object, *, resource_version: str | None = None
    ) -> Object:
        return await self.perform(requests.merge_status(kind, name, namespace, status, resource_version))

    async def replace_status(
        self, kind: Kind, name: str, namespace: str | None, status: Object, *, resource_version: str
    ) -> Object:
        return await self.perform(requests.replace_status(kind, name, namespace, status, resource_version))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        await self.perform(requests.delete(kind, name, namespace, propagation, uid, resource_version))

    async def perform(self, request: Request) -> Object:
        """Perform one request and return the answer's body.

        Raises:
            KubeError: one of its branches, see ``serinus.kube.errors``.
        """
        outcome, started = "cancelled", time.monotonic()
        try:
            async with self._slots:
                answer = await self._sent(request)
            outcome = "ok"
        except KubeError as problem:
            outcome = type(problem).__name__.lower()
            raise
        else:
            return answer
        finally:
            if self._metrics:
                self._metrics(request.verb, request.kind.name, outcome)
            if request.writes:
                log.debug("wrote", request=request.doing, outcome=outcome, seconds=round(time.monotonic() - started, 3))

    async def _sent(self, request: Request) -> Object:
        try:
            return await self._once(request)
        except Transient as problem:
            if problem.status != 401 or not self._refresh:
                raise
        await self._refresh()  # the user's credentials come from a plugin and have expired
        return await self._once(request)

    async def _once(self, request: Request) -> Object:
        try:
            prepared = await self._api.param_serialize(
                request.method,
                request.path,
                query_params=list(request.query),
                header_params={"Accept": "application/json", "Content-Type": str(request.content_type)},
                body=request.body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*prepared, _request_timeout=self._timeout)
            text = await response.read()
        except TimeoutError as problem:
            raise Transient(f"{request.doing}: no answer within {self._timeout.total:g} s") from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise Transient(f"{request.doing}: the API server cannot be reached: {problem}") from problem
        return _answer(request, response.status, text, response.headers.get("Retry-After"))


def _answer(request: Request, status: int, text: bytes, retry_after: str | None) -> Object:
    try:
        document = json.loads(text) if text else {}
    except ValueError as problem:
        if status < 400:
            raise Transient(f"{request.doing}: the answer is not JSON", status=status) from problem
        document = {}
    if status >= 400:
        raise error_from(status, request.doing, document, retry_after, text.decode(errors="replace"))
    return document if isinstance(document, dict) else {"items": document}
