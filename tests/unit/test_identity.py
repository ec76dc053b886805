"""Who a proxy is."""

import asyncio
import base64
import json
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from serinus.api import names
from serinus.mesh.identity import (
    Authenticator,
    Code,
    Identity,
    Refused,
    authenticate,
    bearer,
    check_node,
    on_loop,
    review_request,
)

NOW = 1_000.0
MISSING = object()


def jwt(expires_at: float = NOW + 3600) -> str:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


def review(**changes: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:shop:web",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {
            "authentication.kubernetes.io/pod-name": ["web-1"],
            "authentication.kubernetes.io/pod-uid": ["u1"],
        },
    }
    status: dict[str, Any] = {"authenticated": True, "audiences": [names.TOKEN_AUDIENCE], "user": user}
    for path, value in changes.items():
        holder = user if path in user else status
        holder[path] = value
    return {"status": status}


def pod(uid: str = "u1", account: str = "web", phase: str = "Running", injected: bool = True) -> dict[str, Any]:
    annotations = {names.ANNOTATION_INJECTED: "1"} if injected else {}
    return {
        "metadata": {"uid": uid, "annotations": annotations},
        "spec": {"serviceAccountName": account},
        "status": {"podIP": "10.0.0.7", "phase": phase},
    }


@dataclass
class Cluster:
    answer: dict[str, Any] = field(default_factory=review)
    pods: dict[str, dict[str, Any]] = field(default_factory=lambda: {"shop/web-1": pod()})
    reviews: int = 0
    now: float = NOW

    async def review(self, token: str) -> dict[str, Any]:
        assert token
        self.reviews += 1
        return self.answer

    async def get_pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        return self.pods.get(f"{namespace}/{name}")

    def authenticator(self) -> Authenticator:
        return Authenticator(self.review, self.get_pod, lambda: self.now)


async def test_a_token_of_a_pod_with_a_sidecar_names_the_pod() -> None:
    cluster = Cluster()
    identity = await authenticate(jwt(), cluster.review, cluster.get_pod, NOW)
    assert identity == Identity("shop", "web-1", "u1", "web", "10.0.0.7", NOW + 3600)
    assert identity.node_id == "shop/web-1"


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (review(authenticated=False), Code.UNAUTHENTICATED, "not good for the audience"),
        (review(audiences=["https://kubernetes.default.svc"]), Code.UNAUTHENTICATED, "not good for the audience"),
        (review(audiences=None), Code.UNAUTHENTICATED, "not good for the audience"),
        ({}, Code.UNAUTHENTICATED, "not good for the audience"),
        (review(username="system:node:worker"), Code.PERMISSION_DENIED, "not a service account's"),
        (review(username="system:serviceaccount:a:b:c"), Code.PERMISSION_DENIED, "not a service account's"),
        (review(groups=["system:authenticated"]), Code.PERMISSION_DENIED, "not a service account's"),
        (review(extra={}), Code.PERMISSION_DENIED, "not bound to a pod"),
        (
            review(extra={"authentication.kubernetes.io/pod-name": ["web-1"]}),
            Code.PERMISSION_DENIED,
            "not bound to a pod",
        ),
    ],
    ids=[
        "a token that the API server does not know",
        "a token for the API server",
        "an answer without audiences",
        "an empty answer",
        "a node's token",
        "a user with a name of five parts",
        "a user outside the group",
        "a token of no pod",
        "a token with the pod's name but no uid",
    ],
)
async def test_a_token_is_refused(answer: dict[str, Any], code: Code, reason: str) -> None:
    cluster = Cluster(answer)
    with pytest.raises(Refused, match=reason) as refusal:
        await authenticate(jwt(), cluster.review, cluster.get_pod, NOW)
    assert refusal.value.code is code


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (None, "does not exist"),
        (pod(uid="u2"), "another one"),
        (pod(account="admin"), "does not run as"),
        (pod(phase="Succeeded"), "has ended"),
        (pod(injected=False), "no sidecar"),
    ],
    ids=[
        "no pod",
        "a pod of the same name that came later",
        "another account",
        "a finished pod",
        "a pod without sidecar",
    ],
)
async def test_a_pod_that_does_not_fit_its_token_is_refused(there: dict[str, Any] | None, reason: str) -> None:
    cluster = Cluster(pods={"shop/web-1": there} if there else {})
    with pytest.raises(Refused, match=reason) as refusal:
        await authenticate(jwt(), cluster.review, cluster.get_pod, NOW)
    assert refusal.value.code is Code.PERMISSION_DENIED


async def test_a_token_past_its_end_is_refused_even_if_the_api_server_still_takes_it() -> None:
    cluster = Cluster()
    with pytest.raises(Refused, match="out of date"):
        await authenticate(jwt(NOW - 1), cluster.review, cluster.get_pod, NOW)


async def test_a_token_that_does_not_show_its_end_is_trusted_for_ten_minutes() -> None:
    cluster = Cluster()
    assert (await authenticate("opaque", cluster.review, cluster.get_pod, NOW)).expires_at == NOW + 600


async def test_a_good_token_is_reviewed_once_in_its_life() -> None:
    cluster = Cluster()
    authenticator = cluster.authenticator()
    await authenticator(jwt())
    cluster.now += 3599
    await authenticator(jwt())
    assert cluster.reviews == 1
    cluster.now += 2
    with pytest.raises(Refused):
        await authenticator(jwt())
    assert cluster.reviews == 2


async def test_the_pod_of_a_remembered_token_is_looked_up_again() -> None:
    cluster = Cluster()
    authenticator = cluster.authenticator()
    await authenticator(jwt())
    cluster.pods.clear()
    with pytest.raises(Refused, match="does not exist"):
        await authenticator(jwt())


async def test_a_refused_token_is_not_reviewed_again_for_ten_seconds() -> None:
    cluster = Cluster(review(authenticated=False))
    authenticator = cluster.authenticator()
    for _ in range(5):
        with pytest.raises(Refused):
            await authenticator(jwt())
    assert cluster.reviews == 1
    cluster.now += 11
    cluster.answer = review()
    assert (await authenticator(jwt())).pod == "web-1"


async def test_an_api_server_that_is_away_is_neither_remembered_nor_a_refusal() -> None:
    cluster = Cluster()

    async def away(token: str) -> dict[str, Any]:
        raise ConnectionError(len(token))

    authenticator = Authenticator(away, cluster.get_pod)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await authenticator(jwt())


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic abc"])
def test_a_header_without_a_bearer_token_is_refused(header: str | None) -> None:
    with pytest.raises(Refused) as refusal:
        bearer(header)
    assert refusal.value.code is Code.UNAUTHENTICATED


def test_a_bearer_token_is_taken_from_its_header() -> None:
    assert bearer("Bearer abc") == "abc"


@pytest.mark.parametrize("claimed", ["", "web-1", "shop/web-2", "admin/web-1"])
def test_a_proxy_that_takes_another_name_is_denied(claimed: str) -> None:
    with pytest.raises(Refused, match="names itself") as refusal:
        check_node(Identity("shop", "web-1", "u1", "web", "", 0), claimed)
    assert refusal.value.code is Code.PERMISSION_DENIED


def test_the_review_asks_for_our_audience() -> None:
    assert review_request("t")["spec"] == {"token": "t", "audiences": [names.TOKEN_AUDIENCE]}


def test_a_call_from_another_loop_runs_on_its_own() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def where(suffix: str) -> str:
        assert asyncio.get_running_loop() is loop
        return f"there{suffix}"

    async def call() -> str:
        return await on_loop(loop, where)("!")

    try:
        assert asyncio.run(call()) == "there!"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
