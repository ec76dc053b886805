"""The ADS server, spoken to over TLS as a sidecar does."""

import asyncio
import queue
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Self

import grpc
import grpc.aio
import pytest

from serinus.mesh.ads import AdsServer
from serinus.mesh.ads_wire import CDS
from serinus.mesh.ca import Bundle, load_or_create
from serinus.mesh.identity import Code, Identity, Refused
from serinus.mesh.model import Resource
from serinus.mesh.schema import message

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
HOST = "serinus.serinus-system.svc"
WAIT_S = 10


def resource(name: str, content: str) -> Resource:
    body = content.encode()
    return Resource(CDS, name, sha256(body).hexdigest(), body)


def certificates() -> Bundle:
    return load_or_create(None, (HOST,), datetime.now(UTC))[0]


class Server:
    """A server whose tokens are ``pod:seconds to live``."""

    def __init__(self) -> None:
        self.bundle = certificates()
        self.changes: queue.Queue[str] = queue.Queue()
        self.ads = AdsServer(self.authenticate, self.bundle.serving, self.changes.put, drain_s=0.0)
        self.port = self.ads.start("127.0.0.1:0")

    async def authenticate(self, token: str) -> Identity:
        pod, _, life = token.partition(":")
        if pod == "stranger":
            raise Refused(Code.UNAUTHENTICATED, "never seen")
        if pod == "broken":
            raise ConnectionError("the API server is away")
        expires_at = datetime.now(UTC).timestamp() + float(life or 3600)
        return Identity("shop", pod, f"uid-{pod}", "web", "10.0.0.7", expires_at)

    async def change(self, wanted: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while await asyncio.to_thread(self.changes.get, timeout=WAIT_S) != wanted:
                pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.ads.stop(1)
    assert not server.ads.running


class Client:
    def __init__(self, server: Server, token: str = "web-1", node: str = "shop/web-1") -> None:
        options = (("grpc.ssl_target_name_override", HOST),)
        credentials = grpc.ssl_channel_credentials(server.bundle.ca_pem)
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options=options)
        call = self.channel.stream_stream(METHOD)
        metadata = (("authorization", f"Bearer {token}"),)
        self.call: Any = call(metadata=metadata, wait_for_ready=True)
        self.node = node

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()
        await self.channel.close()

    async def say(self, type_url: str, **fields: Any) -> None:
        kind = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")
        request: Any = kind(type_url=type_url, **fields)
        request.node.id = self.node
        await asyncio.wait_for(self.call.write(request.SerializeToString()), WAIT_S)

    async def hear(self) -> Any:
        answer = await asyncio.wait_for(self.call.read(), WAIT_S)
        if answer is grpc.aio.EOF:
            return None
        return message("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(answer)

    async def ended(self) -> grpc.StatusCode:
        return await asyncio.wait_for(self.call.code(), WAIT_S)

    async def hello(self) -> Any:
        await self.say(CDS)
        return await self.hear()


async def test_a_change_is_sent_and_is_complete_when_acknowledged(server: Server) -> None:
    server.ads.publish("a", (resource("c", "1"),))
    async with Client(server) as client:
        first = await client.hello()
        assert [(each.name, each.resource.value) for each in first.resources] == [("c", b"1")]
        acks = server.ads.acks("a")
        assert (acks.connected, acks.acknowledged, acks.complete) == (1, 0, False)
        assert [name for name, _ in acks.laggards] == ["shop/web-1"]
        await client.say(CDS, response_nonce=first.nonce)
        await server.change("a")
        assert server.ads.acks("a").complete
        server.ads.publish("a", (resource("c", "2"),))
        assert not server.ads.acks("a").complete
        second = await client.hear()
        assert second.resources[0].resource.value == b"2"
        await client.say(CDS, response_nonce=second.nonce)
        await server.change("a")
        assert server.ads.acks("a").complete


async def test_a_refusal_is_reported_with_the_proxys_own_words(server: Server) -> None:
    async with Client(server) as client:
        await client.hello()
        server.ads.publish("a", (resource("c", "bad"),))
        answer = await client.hear()
        await client.say(CDS, response_nonce=answer.nonce, error_detail={"code": 13, "message": "no such thing"})
        await server.change("a")
        (rejection,) = server.ads.acks("a").rejections
        assert (rejection.proxy, rejection.type_url, rejection.message) == ("shop/web-1", CDS, "no such thing")
        assert not server.ads.acks("a").complete


async def test_a_proxy_that_leaves_is_no_longer_waited_for(server: Server) -> None:
    async with Client(server) as client:
        await client.hello()
        server.ads.publish("a", (resource("c", "1"),))
        assert not server.ads.acks("a").complete
        (proxy,) = server.ads.proxies()
        assert (proxy.name, proxy.uid, proxy.ip) == ("shop/web-1", "uid-web-1", "10.0.0.7")
    await server.change("a")
    assert server.ads.acks("a").complete
    assert server.ads.proxies() == ()


async def test_the_stream_of_a_deleted_pod_is_ended(server: Server) -> None:
    async with Client(server) as client:
        await client.hello()
        server.ads.drop("uid-web-1")
        assert await client.hear() is None
        assert await client.ended() is grpc.StatusCode.OK


async def test_a_stream_ends_with_its_token(server: Server) -> None:
    async with Client(server, token="web-1:0.3") as client:
        await client.hello()
        assert await client.hear() is None


async def test_a_second_stream_of_a_pod_takes_the_place_of_the_first(server: Server) -> None:
    async with Client(server) as first, Client(server) as second:
        await first.hello()
        await second.hello()
        assert await first.hear() is None
        assert len(server.ads.proxies()) == 1


@pytest.mark.parametrize(
    ("token", "node", "code"),
    [
        ("stranger", "shop/web-1", grpc.StatusCode.UNAUTHENTICATED),
        ("", "shop/web-1", grpc.StatusCode.UNAUTHENTICATED),
        ("web-1", "shop/web-2", grpc.StatusCode.PERMISSION_DENIED),
        ("broken", "shop/web-1", grpc.StatusCode.UNAVAILABLE),
    ],
    ids=["a token that is refused", "no token", "the name of another pod", "an API server that is away"],
)
async def test_a_proxy_is_turned_away(server: Server, token: str, node: str, code: grpc.StatusCode) -> None:
    async with Client(server, token=token, node=node) as client:
        if node != "shop/web-1":  # without a good token a proxy is turned away before it says anything
            await client.say(CDS)
        assert await client.ended() is code
    assert server.ads.proxies() == ()


async def test_another_certificate_serves_the_next_connection(server: Server) -> None:
    async with Client(server) as client:
        await client.hello()
    server.bundle = certificates()
    server.ads.replace_certificate(server.bundle.serving)
    async with Client(server) as client:
        await client.hello()


HERD = """
import socket, ssl, threading
from datetime import UTC, datetime
from serinus.mesh.ads import AdsServer
from serinus.mesh.ca import load_or_create

async def nobody(token):
    raise ConnectionError(token)

bundle, _ = load_or_create(None, ("ads.test",), datetime.now(UTC))
ads = AdsServer(nobody, bundle.serving, print)
port = ads.start("127.0.0.1:0")
trust = ssl.create_default_context(cadata=bundle.ca_pem.decode())
trust.set_alpn_protocols(["h2"])
greeted = []

def connect():
    for _ in range(200):
        plain = socket.create_connection(("127.0.0.1", port), 10)
        trust.wrap_socket(plain, server_hostname="ads.test").close()
        greeted.append(None)

threads = [threading.Thread(target=connect) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
ads.stop(0)
print(len(greeted), "handshakes")
"""
"""In a process of its own, because a defect of the server's library ends it."""


def test_many_proxies_that_connect_at_once_do_not_end_the_process() -> None:
    herd = subprocess.run([sys.executable, "-c", HERD], capture_output=True, text=True, timeout=60)
    assert (herd.returncode, herd.stdout.splitlines()[-1:]) == (0, ["1600 handshakes"]), herd.stderr


def test_an_address_in_use_is_said_in_a_sentence(server: Server) -> None:
    second = AdsServer(server.authenticate, server.bundle.serving, server.changes.put)
    with pytest.raises(OSError, match=rf"cannot listen at 127\.0\.0\.1:{server.port}"):
        second.start(f"127.0.0.1:{server.port}")


async def test_a_server_can_be_started_again(server: Server) -> None:
    server.ads.publish("a", (resource("c", "1"),))
    await asyncio.to_thread(server.ads.stop, 1)
    server.port = server.ads.start("127.0.0.1:0")
    async with Client(server) as client:
        assert (await client.hello()).resources


def test_a_service_that_nobody_listens_to_is_complete(server: Server) -> None:
    server.ads.publish("a", (resource("c", "1"),))
    assert server.ads.acks("a").complete
    server.ads.withdraw("a")
    assert server.ads.acks("a").connected == 0


async def test_a_listeners_defect_ends_no_stream() -> None:
    server = Server()

    def broken(key: str) -> None:
        raise ValueError(key)

    server.ads._on_change = broken
    try:
        async with Client(server) as client:
            assert await client.hello() is not None
    finally:
        await asyncio.to_thread(server.ads.stop, 1)
