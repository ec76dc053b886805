"""The client against a small API server on the loopback that can also answer badly."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
import yaml
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from serinus.kube import client as client_module
from serinus.kube import config, kinds
from serinus.kube.client import KubeClient
from serinus.kube.errors import Conflict, KubeError, NotFound, Rejected, Transient, error_from
from serinus.kube.requests import PatchType


class FakeApi:
    """Remembers requests; answers from ``answers`` in turn, then with ``{}``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], str, object]] = []
        self.answers: list[web.Response | Callable[[], object]] = []
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.headers: list[str | None] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append((request.method, request.path, dict(request.query), request.content_type, body))
        self.headers.append(request.headers.get("Authorization"))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.at_once -= 1
        return self.answers.pop(0) if self.answers else web.json_response({})


def refusal(status: int, reason: str = "", message: str = "", headers: dict[str, str] | None = None, **details):
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details}
    return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    fake = FakeApi()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def kube(api) -> AsyncIterator[KubeClient]:
    async with KubeClient(config.Access(Configuration(host=api.url)), timeout_s=2) as client:
        yield client


CANARY = {"metadata": {"name": "shop", "namespace": "demo", "managedFields": [{}]}, "spec": {"suspend": True}}
BASE = "/apis/serinus.dev/v1alpha1/namespaces/demo/canaries"
STAMP = {"apiVersion": "serinus.dev/v1alpha1", "kind": "Canary"}
OWN = {"fieldManager": "serinus"}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        pytest.param(
            lambda k: k.get(kinds.CANARY, "shop", "demo"),
            ("GET", f"{BASE}/shop", {}, None),
            id="get of a custom resource",
        ),
        pytest.param(
            lambda k: k.get(kinds.POD, "shop-1", "demo"),
            ("GET", "/api/v1/namespaces/demo/pods/shop-1", {}, None),
            id="get of a core kind",
        ),
        pytest.param(
            lambda k: k.get(kinds.NAMESPACE, "demo", "ignored"),
            ("GET", "/api/v1/namespaces/demo", {}, None),
            id="get of a kind without namespaces",
        ),
        pytest.param(
            lambda k: k.create(kinds.CANARY, CANARY),
            ("POST", BASE, OWN, {**STAMP, **CANARY}),
            id="create fills in apiVersion and kind",
        ),
        pytest.param(
            lambda k: k.create(kinds.TOKEN_REVIEW, {"spec": {"token": "t"}}),
            (
                "POST",
                "/apis/authentication.k8s.io/v1/tokenreviews",
                OWN,
                {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "t"}},
            ),
            id="create of a review, which has no name",
        ),
        pytest.param(
            lambda k: k.apply(kinds.CANARY, CANARY, force=False),
            (
                "PATCH application/apply-patch+yaml",
                f"{BASE}/shop",
                {**OWN, "force": "false"},
                {**STAMP, "metadata": {"name": "shop", "namespace": "demo"}, "spec": {"suspend": True}},
            ),
            id="apply without force, and without managedFields, which the server refuses",
        ),
        pytest.param(
            lambda k: k.apply_status(kinds.CANARY, {"metadata": {"name": "shop", "namespace": "demo"}, "status": {}}),
            (
                "PATCH application/apply-patch+yaml",
                f"{BASE}/shop/status",
                {**OWN, "force": "true"},
                {**STAMP, "metadata": {"name": "shop", "namespace": "demo"}, "status": {}},
            ),
            id="apply of a status",
        ),
        pytest.param(
            lambda k: k.patch(kinds.DEPLOYMENT, "shop", "demo", {"spec": {"replicas": 3}}, subresource="scale"),
            (
                "PATCH application/merge-patch+json",
                "/apis/apps/v1/namespaces/demo/deployments/shop/scale",
                OWN,
                {"spec": {"replicas": 3}},
            ),
            id="a dict is a merge patch, of a subresource",
        ),
        pytest.param(
            lambda k: k.patch(kinds.DEPLOYMENT, "shop", "demo", [{"op": "test", "path": "/a", "value": 1}]),
            (
                "PATCH application/json-patch+json",
                "/apis/apps/v1/namespaces/demo/deployments/shop",
                OWN,
                [{"op": "test", "path": "/a", "value": 1}],
            ),
            id="a list is a JSON patch",
        ),
        pytest.param(
            lambda k: k.patch(
                kinds.POD,
                "p",
                "demo",
                {"status": {"conditions": [{"type": "serinus.dev/in-service", "status": "True"}]}},
                patch_type=PatchType.STRATEGIC,
                subresource="status",
            ),
            (
                "PATCH application/strategic-merge-patch+json",
                "/api/v1/namespaces/demo/pods/p/status",
                OWN,
                {"status": {"conditions": [{"type": "serinus.dev/in-service", "status": "True"}]}},
            ),
            id="a strategic patch sets one condition of a pod",
        ),
        pytest.param(
            lambda k: k.replace(kinds.CANARY, CANARY),
            ("PUT", f"{BASE}/shop", OWN, {**STAMP, **CANARY}),
            id="replace",
        ),
        pytest.param(
            lambda k: k.patch_status(kinds.CANARY, "shop", "demo", {"weight": 5}, resource_version="7"),
            (
                "PATCH application/merge-patch+json",
                f"{BASE}/shop/status",
                OWN,
                {"status": {"weight": 5}, "metadata": {"resourceVersion": "7"}},
            ),
            id="patch_status merges, from one version only",
        ),
        pytest.param(
            lambda k: k.replace_status(kinds.CANARY, "shop", "demo", {"weight": 5}, resource_version="7"),
            (
                "PATCH application/json-patch+json",
                f"{BASE}/shop/status",
                OWN,
                [
                    {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                    {"op": "add", "path": "/status", "value": {"weight": 5}},
                ],
            ),
            id="replace_status leaves nothing of the old status",
        ),
        pytest.param(
            lambda k: k.delete(
                kinds.REPLICA_SET, "twin", "demo", propagation="Foreground", uid="u", resource_version="7"
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/demo/replicasets/twin",
                {},
                {
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "propagationPolicy": "Foreground",
                    "preconditions": {"uid": "u", "resourceVersion": "7"},
                },
            ),
            id="delete with preconditions",
        ),
    ],
)
async def test_what_is_asked(api, kube, call, expected):
    await call(kube)
    [(method, path, query, content_type, body)] = api.asked
    shown = f"{method} {content_type}" if method == "PATCH" else method
    assert (shown, path, query, body) == expected


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda k: k.get(kinds.CANARY, "shop"), id="get without a namespace"),
        pytest.param(lambda k: k.apply(kinds.CANARY, {"metadata": {}}), id="apply without a name"),
        pytest.param(lambda k: k.create(kinds.POD, {"metadata": {"name": "p"}}), id="create without a namespace"),
        pytest.param(
            lambda k: k.patch(kinds.POD, "p", "demo", {}, patch_type=PatchType.JSON), id="a JSON patch that is no list"
        ),
    ],
)
async def test_a_request_that_makes_no_sense_is_not_sent(api, kube, call):
    with pytest.raises(ValueError, match=r"\w"):
        await call(kube)
    assert api.asked == []


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        pytest.param(
            refusal(404, "NotFound", 'canaries "shop" not found'),
            NotFound,
            'get canaries demo/shop: canaries "shop" not found (404)',
            id="not found",
        ),
        pytest.param(refusal(409, "Conflict", "modified"), Conflict, "modified (409)", id="conflict"),
        pytest.param(refusal(422, "Invalid", "spec.x: bad"), Rejected, "spec.x: bad (422)", id="invalid"),
        pytest.param(refusal(403, "Forbidden", "exceeded quota"), Rejected, "exceeded quota (403)", id="forbidden"),
        pytest.param(refusal(500, "InternalError", "etcd"), Transient, "etcd (500)", id="internal error"),
        pytest.param(refusal(401, "Unauthorized", "expired"), Transient, "expired (401)", id="token just expired"),
        pytest.param(
            web.Response(status=502, text="<html>bad gateway</html>"), Transient, "bad gateway", id="a proxy's own page"
        ),
        pytest.param(web.Response(status=503), Transient, "no explanation (503)", id="an empty answer"),
        pytest.param(web.Response(text="<html>"), Transient, "the answer is not JSON", id="a good answer of no sense"),
    ],
)
async def test_answers_become_errors_with_the_servers_words(api, kube, answer, error, words):
    api.answers.append(answer)
    with pytest.raises(error) as caught:
        await kube.get(kinds.CANARY, "shop", "demo")
    assert words in str(caught.value)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("header", "details", "wish"),
    [
        pytest.param("7", {}, 7.0, id="the header is honoured"),
        pytest.param(None, {"retryAfterSeconds": 3}, 3.0, id="the details are, without a header"),
        pytest.param("soon", {}, None, id="a header that is no number is not"),
        pytest.param("-4", {}, None, id="nor is one that is negative"),
        pytest.param("99999999", {}, None, id="nor one of many years"),
    ],
)
def test_the_time_after_which_the_server_wants_to_be_asked_again(header, details, wish):
    problem = error_from(429, "get pods demo/p", {"details": details}, header)
    assert isinstance(problem, Transient)
    assert problem.retry_after_s == wish


async def test_too_many_requests_carry_the_servers_wish(api, kube):
    api.answers.append(refusal(429, "TooManyRequests", "slow down", headers={"Retry-After": "2"}))
    with pytest.raises(Transient) as caught:
        await kube.get(kinds.CANARY, "shop", "demo")
    assert caught.value.retry_after_s == 2
    assert len(api.asked) == 1


async def test_create_tells_an_object_that_exists_from_a_stale_view(api, kube):
    api.answers += [refusal(409, "AlreadyExists", "exists"), refusal(409, "Conflict", "modified")]
    seen = []
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            await kube.create(kinds.CANARY, CANARY)
        seen.append(caught.value.exists)
    assert seen == [True, False]


async def test_a_server_that_does_not_answer_costs_the_timeout_and_no_more(api):
    api.delay_s = 5
    async with KubeClient(config.Access(Configuration(host=api.url)), timeout_s=0.2) as kube:
        start = asyncio.get_running_loop().time()
        with pytest.raises(Transient, match=r"get canaries demo/shop: no answer within 0\.2 s"):
            await kube.get(kinds.CANARY, "shop", "demo")
        assert asyncio.get_running_loop().time() - start < 2


async def test_a_server_that_is_not_there_is_transient():
    async with KubeClient(config.Access(Configuration(host="http://127.0.0.1:9"))) as kube:
        with pytest.raises(Transient, match="cannot be reached"):
            await kube.get(kinds.CANARY, "shop", "demo")


async def test_a_list_is_read_page_by_page_and_its_items_know_what_they_are(api, kube):
    api.answers += [
        web.json_response({"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}),
        web.json_response({"metadata": {}, "items": [{"metadata": {"name": "b"}}]}),
    ]
    found = await kube.list(kinds.POD, "demo", labels="app=shop", page=1)
    assert found == [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}},
    ]
    assert [query for _, _, query, _, _ in api.asked] == [
        {"labelSelector": "app=shop", "limit": "1"},
        {"labelSelector": "app=shop", "limit": "1", "continue": "more"},
    ]


async def test_a_list_of_all_namespaces(api, kube):
    api.answers.append(web.json_response({"items": None}))
    assert await kube.list(kinds.CANARY) == []
    assert api.asked[0][1] == "/apis/serinus.dev/v1alpha1/canaries"


async def test_a_list_whose_token_expires_starts_again_once(api, kube):
    page = {"metadata": {"continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
    api.answers += [
        web.json_response(page),
        refusal(410, "Expired", "too old"),
        web.json_response({"metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}),
    ]
    assert [item["metadata"]["name"] for item in await kube.list(kinds.POD, "demo")] == ["a", "b"]
    api.answers += [web.json_response(page), refusal(410, "Expired"), web.json_response(page), refusal(410, "Expired")]
    with pytest.raises(Transient):
        await kube.list(kinds.POD, "demo")


async def test_no_more_than_the_limit_are_in_flight(api, monkeypatch):
    monkeypatch.setattr(client_module, "IN_FLIGHT", 5)
    api.delay_s = 0.02
    async with KubeClient(config.Access(Configuration(host=api.url))) as kube:
        await asyncio.gather(*(kube.get(kinds.CANARY, f"c{i}", "demo") for i in range(20)))
    assert api.most_at_once == 5


async def test_requests_are_counted_by_verb_kind_and_outcome(api):
    seen = []
    async with KubeClient(config.Access(Configuration(host=api.url)), metrics=lambda *what: seen.append(what)) as kube:
        await kube.get(kinds.CANARY, "shop", "demo")
        api.answers += [refusal(404), refusal(409)]
        with pytest.raises(NotFound):
            await kube.delete(kinds.POD, "p", "demo")
        with pytest.raises(Conflict):
            await kube.apply(kinds.CANARY, CANARY)
    assert seen == [("get", "Canary", "ok"), ("delete", "Pod", "notfound"), ("apply", "Canary", "conflict")]


async def test_expired_credentials_of_a_plugin_are_fetched_again_once(api):
    configuration = Configuration(host=api.url)
    configuration.api_key["BearerToken"] = "Bearer old"

    async def fetch() -> None:
        configuration.api_key["BearerToken"] = "Bearer new"

    api.answers.append(refusal(401, "Unauthorized", "expired"))
    async with KubeClient(config.Access(configuration, refresh=fetch)) as kube:
        await kube.get(kinds.CANARY, "shop", "demo")
    assert api.headers == ["Bearer old", "Bearer new"]


def kubeconfig(tmp_path, url: str) -> str:
    def context(name: str, namespace: str) -> dict[str, object]:
        return {"name": name, "context": {"cluster": "c", "user": "u", "namespace": namespace}}

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [context("one", "first"), context("two", "second")],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def test_a_kubeconfig_gives_address_token_and_namespace(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, api.url))
    async with await KubeClient.connect() as kube:
        assert kube.namespace == "first"
        await kube.get(kinds.CANARY, "shop", "demo")
    assert api.headers == ["Bearer secret"]
    async with await KubeClient.connect(context="two") as kube:
        assert kube.namespace == "second"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(None, "there is no file", id="no file"),
        pytest.param("", "cannot be used", id="an empty file"),
        pytest.param("{{", "cannot be used", id="a file that is not YAML"),
        pytest.param("current-context: x", "cannot be used", id="a file without contexts"),
    ],
)
async def test_a_kubeconfig_that_is_of_no_use_is_named_in_a_sentence(tmp_path, monkeypatch, text, words):
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(KubeError, match=words) as caught:
        await KubeClient.connect()
    assert "Set KUBECONFIG" in str(caught.value)
