"""Who a proxy is: what the API server says about its token, and nothing that the proxy says about itself.

In order: the token is good, for us; it is a service account's; it is bound to a pod; that pod is there, is the same,
runs as that account and has a sidecar; the name that Envoy gives itself is that pod's.
Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ (bound tokens, TokenReview).
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeVar

from serinus.api import names

Object = dict[str, Any]
Review = Callable[[str], Awaitable[Object]]
GetPod = Callable[[str, str], Awaitable[Object | None]]

_GROUP = "system:serviceaccounts"
_EXTRA = "authentication.kubernetes.io/"
_FALLBACK_LIFE_S = 600.0
_REFUSAL_LIFE_S = 10.0
_MAX_REMEMBERED = 10_000
_MAX_REVIEWS = 16


class Code(StrEnum):
    """gRPC's status for a refusal, by name."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not a defect
    """This proxy gets no configuration. The text is a sentence without anything secret."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Identity:
    """A pod whose sidecar proved itself. ``expires_at`` is the token's end, in seconds since the epoch."""

    namespace: str
    pod: str
    uid: str
    service_account: str
    ip: str
    expires_at: float

    @property
    def node_id(self) -> str:
        """``namespace/pod``, as the sidecar must name itself."""
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a token says, reviewed by the API server."""

    namespace: str
    service_account: str
    pod: str
    uid: str
    expires_at: float


def review_request(token: str) -> Object:
    """Return the TokenReview to create for a token; ``review`` returns what the API server answers to it."""
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [names.TOKEN_AUDIENCE]},
    }


def bearer(authorization: str | None) -> str:
    """Return the token of an ``authorization`` header.

    Raises:
        Refused: there is none.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused(Code.UNAUTHENTICATED, "the request carries no bearer token")
    return token.strip()


def check_node(identity: Identity, node_id: str) -> None:
    """Refuse a proxy that names itself otherwise than its token does.

    Raises:
        Refused: the names differ.
    """
    if node_id != identity.node_id:
        raise Refused(
            Code.PERMISSION_DENIED, f'the proxy names itself "{node_id[:128]}", its token is for "{identity.node_id}"'
        )


async def authenticate(token: str, review: Review, get_pod: GetPod, now: float) -> Identity:
    """Return whose token this is. ``now`` is in seconds since the epoch.

    ``review`` creates the TokenReview and returns it; ``get_pod`` returns a pod by namespace and name, or None. What
    they raise passes through: then nothing is known, and the proxy may come again.

    Raises:
        Refused: a check failed.
    """
    return await _check_pod(_claim(token, await review(token), now), get_pod)


class Authenticator:
    """``authenticate`` with a memory: a token is reviewed once in its life, a refused one once in 10 seconds.

    The pod is looked up every time. Use it from one event loop.
    """

    def __init__(self, review: Review, get_pod: GetPod, clock: Callable[[], float] = time.time) -> None:
        self._review = review
        self._get_pod = get_pod
        self._clock = clock
        self._claims: dict[bytes, tuple[float, _Claim | Refused]] = {}
        self._slots = asyncio.Semaphore(_MAX_REVIEWS)

    async def __call__(self, token: str) -> Identity:
        """Return whose token this is.

        Raises:
            Refused: a check failed.
        """
        digest = sha256(token.encode()).digest()
        until, claim = self._claims.get(digest, (0.0, None))
        if claim is None or until <= self._clock():
            claim = await self._reviewed(token, digest)
        if isinstance(claim, Refused):
            raise Refused(claim.code, str(claim))
        return await _check_pod(claim, self._get_pod)

    async def _reviewed(self, token: str, digest: bytes) -> _Claim | Refused:
        claim: _Claim | Refused
        async with self._slots:
            answer = await self._review(token)
        now = self._clock()
        try:
            claim = _claim(token, answer, now)
            until = claim.expires_at
        except Refused as refused:
            claim, until = refused, now + _REFUSAL_LIFE_S
        if len(self._claims) >= _MAX_REMEMBERED:
            self._claims = {key: kept for key, kept in self._claims.items() if kept[0] > now}
        if len(self._claims) < _MAX_REMEMBERED:
            self._claims[digest] = (until, claim)
        return claim


Result = TypeVar("Result")


def on_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[..., Coroutine[Any, Any, Result]]
) -> Callable[..., Awaitable[Result]]:
    """Return ``function`` as a coroutine function that another thread's loop may await; it runs on ``loop``."""

    async def bridged(*arguments: object) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*arguments), loop))

    return bridged


def _claim(token: str, answer: Object, now: float) -> _Claim:
    status = answer.get("status") or {}
    if status.get("authenticated") is not True or names.TOKEN_AUDIENCE not in (status.get("audiences") or []):
        raise Refused(
            Code.UNAUTHENTICATED, f'the token is not good for the audience "{names.TOKEN_AUDIENCE}", or is out of date'
        )
    user = status.get("user") or {}
    parts = str(user.get("username", "")).split(":")
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or _GROUP not in (user.get("groups") or []):
        raise Refused(Code.PERMISSION_DENIED, "the token is not a service account's")
    extra = user.get("extra") or {}
    pod, uid = ((extra.get(f"{_EXTRA}{field}") or [""])[0] for field in ("pod-name", "pod-uid"))
    if not pod or not uid:
        raise Refused(Code.PERMISSION_DENIED, "the token is not bound to a pod")
    expires_at = _expiry(token, now)
    if expires_at <= now:
        raise Refused(Code.UNAUTHENTICATED, "the token is out of date")
    return _Claim(parts[2], parts[3], pod, uid, expires_at)


async def _check_pod(claim: _Claim, get_pod: GetPod) -> Identity:
    pod = await get_pod(claim.namespace, claim.pod)
    name = f'the pod "{claim.namespace}/{claim.pod}"'
    if pod is None:
        raise Refused(Code.PERMISSION_DENIED, f"{name} does not exist")
    metadata, spec, status = (pod.get(part) or {} for part in ("metadata", "spec", "status"))
    if metadata.get("uid") != claim.uid:
        raise Refused(Code.PERMISSION_DENIED, f"{name} is another one than the token's")
    if spec.get("serviceAccountName", "default") != claim.service_account:
        raise Refused(Code.PERMISSION_DENIED, f"{name} does not run as the token's service account")
    if status.get("phase") in {"Succeeded", "Failed"}:
        raise Refused(Code.PERMISSION_DENIED, f"{name} has ended")
    if names.ANNOTATION_INJECTED not in (metadata.get("annotations") or {}):
        raise Refused(Code.PERMISSION_DENIED, f"{name} has no sidecar of ours")
    return Identity(
        claim.namespace, claim.pod, claim.uid, claim.service_account, status.get("podIP", ""), claim.expires_at
    )


def _expiry(token: str, now: float) -> float:
    """Return ``exp`` of a JWT that the API server has verified; a token that shows none is trusted for ten minutes."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return now + _FALLBACK_LIFE_S
