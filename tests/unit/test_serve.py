"""Health, metrics and admission, asked over the loopback."""

import asyncio
import io
import re
import ssl
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from serinus.controller.metrics import Metrics
from serinus.controller.serve import Certificate, LoopLag, Server, check_queue, http_app, webhook_app
from serinus.controller.workqueue import Result, WorkQueue

HOST = "127.0.0.1"


def pair(common_name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


async def answer(server: Server, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{server.port}{path}") as response:
        return response.status, await response.text()


async def test_health_fails_with_the_sentences_of_the_checks_that_complain():
    wrong = {"loop": "", "queue": ""}
    app = http_app(
        Metrics(), {name: lambda name=name: wrong[name] for name in wrong}, {"leader": lambda: "standing by"}
    )
    async with Server(app, 0, host=HOST) as server:
        assert await answer(server, "/healthz") == (200, "ok\n")
        assert await answer(server, "/readyz") == (503, "leader: standing by\n")
        wrong["queue"] = "the queue has not looked at its keys for 90 s"
        assert await answer(server, "/healthz") == (503, "queue: the queue has not looked at its keys for 90 s\n")


async def test_metrics_are_served_in_prometheus_text_format():
    metrics = Metrics()
    metrics.leader.set(1)
    async with (
        Server(http_app(metrics, {}, {}), 0, host=HOST) as server,
        aiohttp.ClientSession() as session,
        session.get(f"http://{HOST}:{server.port}/metrics") as response,
    ):
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "serinus_leader 1.0" in await response.text()


def test_a_queue_that_runs_is_healthy_and_one_that_stands_is_not(in_virtual_time):
    async def scenario():
        queue = WorkQueue()
        assert check_queue(queue) == ""
        task = asyncio.create_task(queue.run(lambda _: asyncio.sleep(0, Result()), 1))
        await asyncio.sleep(300)
        assert check_queue(queue) == ""
        asyncio.get_running_loop().jump.now += 75  # as when something blocks the loop
        assert re.fullmatch("the queue has not looked at its keys for 7[56] s", check_queue(queue))
        await asyncio.sleep(1)
        assert check_queue(queue) == ""
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    in_virtual_time(scenario())


def test_a_queue_whose_workers_never_return_is_not_healthy(in_virtual_time):
    async def scenario():
        queue = WorkQueue(deadline_s=10_000)
        task = asyncio.create_task(queue.run(lambda _: asyncio.sleep(5000), 1))
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("b")
        await asyncio.sleep(61)
        assert check_queue(queue) == "a key has been due for 61 s and no worker takes it; 1 are running"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    in_virtual_time(scenario())


def test_loop_lag_is_the_worst_of_the_last_minute(in_virtual_time):
    async def scenario():
        samples = []
        lag = LoopLag(on_sample=samples.append)
        assert lag.check() == ""
        task = asyncio.create_task(lag.run())
        await asyncio.sleep(1.1)
        asyncio.get_running_loop().jump.now += 3
        await asyncio.sleep(0.5)
        assert lag.worst_s == pytest.approx(2.6, abs=0.5)
        assert samples[-1] == lag.worst_s
        await asyncio.sleep(61)
        assert lag.worst_s == pytest.approx(0, abs=1e-6)
        asyncio.get_running_loop().jump.now += 61
        assert re.fullmatch("the event loop has stood still for 6[12] s", lag.check())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    in_virtual_time(scenario())


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def shown_name(port: int) -> str:
    _, writer = await asyncio.open_connection(HOST, port, ssl=trusting())
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def test_the_certificate_is_replaced_while_serving():
    certificate = Certificate()
    certificate.replace(*pair("first"))
    async with Server(webhook_app({}), 0, host=HOST, certificate=certificate) as server:
        assert await shown_name(server.port) == "CN=first"
        certificate.replace(*pair("second"))
        assert await shown_name(server.port) == "CN=second"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param((b"nonsense", b"nonsense"), id="no PEM"),
        pytest.param((pair("a")[0], pair("b")[1]), id="a key of another certificate"),
    ],
)
async def test_a_bad_certificate_is_refused_and_the_former_stays(bad):
    certificate = Certificate()
    certificate.replace(*pair("first"))
    with pytest.raises(ssl.SSLError):
        certificate.replace(*bad)
    async with Server(webhook_app({}), 0, host=HOST, certificate=certificate) as server:
        assert await shown_name(server.port) == "CN=first"


async def broken(_: dict) -> dict:
    raise RuntimeError("no template")


async def echo(review: dict) -> dict:
    return {"response": {"uid": review["request"]["uid"], "allowed": True}}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        pytest.param("/inject", b'{"request": {"uid": "7"}}', (200, '{"response"'), id="a review is answered"),
        pytest.param("/broken", b'{"request": {}}', (500, "the review failed: RuntimeError"), id="a defect is 500"),
        pytest.param("/inject", b"{", (400, "the body is not JSON"), id="no JSON"),
        pytest.param("/inject", b'{"kind": "Pod"}', (400, "the body is not an AdmissionReview"), id="no review"),
        pytest.param("/other", b"{}", (404, ""), id="an unknown path"),
        pytest.param("/inject", b'"' + b"x" * 9_000_000 + b'"', (413, ""), id="more than a review can be"),
    ],
)
async def test_admission(path, body, expected):
    certificate = Certificate()
    certificate.replace(*pair("serinus"))
    with capture_logs():
        async with (
            Server(webhook_app({"/inject": echo, "/broken": broken}), 0, host=HOST, certificate=certificate) as server,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting())) as session,
            session.post(f"https://{HOST}:{server.port}{path}", data=io.BytesIO(body)) as response,
        ):
            status, text = response.status, await response.text()
    assert status == expected[0]
    assert text.startswith(expected[1])
