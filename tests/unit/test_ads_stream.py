"""The stream of one proxy: order, stages, refusals, reconnects. Time is virtual."""

from collections import deque
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serinus.mesh.ads_catalogue import Catalogue
from serinus.mesh.ads_stream import Stream
from serinus.mesh.ads_wire import CDS, EDS, LDS, RDS, TYPES, Request, read_request
from serinus.mesh.model import Rejection, Resource
from serinus.mesh.schema import message

KIND = {CDS: "CDS", EDS: "EDS", LDS: "LDS", RDS: "RDS"}
DRAIN_S = 30.0


def resource(type_url: str, name: str, content: str = "1", *, empties: bool = False) -> Resource:
    body = f"{name}={content}".encode()
    return Resource(type_url, name, sha256(body).hexdigest()[:12], body, empties)


def service(
    name: str = "a", weight: int = 0, pods: str = "p1", candidate: str = "", settings: str = "1", port: int = 80
) -> tuple[Resource, ...]:
    """A service as the renderer gives it: two clusters; its route names the candidate only with a weight."""
    stable, new, front = f"{name}|{port}|stable", f"{name}|{port}|candidate", f"{name}|{port}"
    named = [stable, *([new] if weight else [])]
    return (
        resource(CDS, stable, settings),
        resource(EDS, stable, pods, empties=not pods),
        resource(CDS, new, settings),
        resource(EDS, new, candidate, empties=not candidate),
        resource(LDS, front),
        resource(RDS, front, f"{','.join(named)};{weight}"),
    )


@dataclass
class Reply:
    type_url: str
    nonce: str
    resources: dict[str, tuple[str, str]]
    removed: list[str]


def read(data: bytes) -> Reply:
    parsed: Any = message("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(data)
    content = {r.name: (r.version, r.resource.value.decode()) for r in parsed.resources}
    assert all(r.resource.type_url == parsed.type_url for r in parsed.resources)
    return Reply(parsed.type_url, parsed.nonce, content, list(parsed.removed_resources))


@dataclass
class Proxy:
    """Envoy's side: subscribes to the endpoints of its clusters and to the routes of its listeners.

    A cluster that is new or changed warms until its endpoints come, and clusters are acknowledged when none warms.
    """

    catalogue: Catalogue = field(default_factory=Catalogue)
    now: float = 0.0
    refuses: str = ""
    subscribes_first: bool = True
    has: dict[str, dict[str, tuple[str, str]]] = field(default_factory=lambda: {t: {} for t in TYPES})
    log: list[str] = field(default_factory=list)
    unread: deque[Reply] = field(default_factory=deque)
    settled: list[str] = field(default_factory=list)
    warming: set[str] = field(default_factory=set)
    serving: set[str] = field(default_factory=set)
    withheld: list[str] = field(default_factory=list)

    def connect(self) -> None:
        self.stream = Stream(self.catalogue, "shop/web-1", self.now, DRAIN_S)
        self.unread.clear()
        self.warm(self.warming.copy())
        self.withheld.clear()
        for type_url in TYPES:
            names = tuple(self.children(type_url)) if type_url in (EDS, RDS) else ()
            if type_url in (EDS, RDS) and not names:
                continue
            versions = {name: version for name, (version, _) in self.has[type_url].items()}
            self.say(Request(type_url, subscribe=names, initial_versions=versions))

    def children(self, type_url: str) -> dict[str, tuple[str, str]]:
        return self.has[{EDS: CDS, RDS: LDS}[type_url]]

    def say(self, request: Request) -> None:
        self.stream.receive(request, self.now)
        self.flush()

    def flush(self) -> None:
        responses, settled = self.stream.send(self.now)
        self.settled += settled
        for reply in map(read, responses):
            self.unread.append(reply)
            changed = [*reply.resources, *(f"-{name}" for name in reply.removed)]
            self.log.append(f"{KIND[reply.type_url]} {' '.join(sorted(changed))}".strip())

    def publish(self, key: str, resources: tuple[Resource, ...]) -> None:
        gone = self.catalogue.publish(key, resources)
        if gone is not None:
            self.stream.publish(key, gone, self.now)
            self.flush()

    def answer(self) -> None:
        """Take the next response, acknowledge or refuse it, and subscribe to what it names."""
        reply = self.unread.popleft()
        if self.refuses and any(self.refuses in content for _, content in reply.resources.values()):
            self.say(Request(reply.type_url, nonce=reply.nonce, error=f"no {self.refuses}"))
            return
        before = {t: set(self.children(t)) for t in (EDS, RDS)}
        had = self.has[reply.type_url]
        if reply.type_url == CDS:
            self.warming |= {name for name, content in reply.resources.items() if had.get(name) != content}
        named = self.children(reply.type_url) if reply.type_url in (EDS, RDS) else reply.resources
        had.update({name: content for name, content in reply.resources.items() if name in named})
        if reply.type_url in (CDS, LDS):
            for name in reply.removed:
                had.pop(name, None)
                self.warming.discard(name)
                self.serving.discard(name)
        if not self.subscribes_first:
            self.acknowledge(reply)
        for child, names in before.items():
            new, old = set(self.children(child)) - names, names - set(self.children(child))
            for name in old:
                self.has[child].pop(name, None)
            if new or old:
                self.say(Request(child, subscribe=tuple(sorted(new)), unsubscribe=tuple(sorted(old))))
        if self.subscribes_first:
            self.acknowledge(reply)

    def acknowledge(self, reply: Reply) -> None:
        if reply.type_url == EDS:
            self.warm({*reply.resources, *reply.removed})
        if reply.type_url == CDS and self.warming:
            self.withheld.append(reply.nonce)
            return
        self.say(Request(reply.type_url, nonce=reply.nonce))
        while self.withheld and not self.warming:
            self.say(Request(CDS, nonce=self.withheld.pop(0)))

    def warm(self, names: set[str]) -> None:
        self.serving |= names & set(self.has[CDS])
        self.warming -= names

    def answer_all(self) -> None:
        for _ in range(200):
            if not self.unread:
                return
            self.answer()
        raise AssertionError("the server never stops sending")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.flush()

    def taken(self) -> list[str]:
        taken, self.log[:] = list(self.log), []
        return taken


@pytest.fixture
def proxy() -> Proxy:
    """A proxy that has the service ``a`` in force."""
    proxy = Proxy()
    proxy.catalogue.publish("a", service())
    proxy.connect()
    proxy.answer_all()
    assert not proxy.stream.pending
    return proxy


def test_a_new_proxy_gets_clusters_then_endpoints_then_listeners_then_routes(proxy: Proxy) -> None:
    assert proxy.taken() == [
        "CDS a|80|candidate a|80|stable",
        "EDS a|80|candidate a|80|stable",
        "LDS a|80",
        "RDS a|80",
    ]
    assert proxy.settled == ["a"]


def test_a_new_proxy_is_answered_at_once_even_when_nothing_is_published() -> None:
    proxy = Proxy()
    proxy.connect()
    assert proxy.taken() == ["CDS", "LDS"]


def test_the_first_listeners_come_in_one_response_after_all_backends() -> None:
    proxy = Proxy()
    for key in "abc":
        proxy.catalogue.publish(key, service(key))
    proxy.connect()
    proxy.answer()
    proxy.publish("d", service("d"))
    proxy.answer_all()
    listeners = [line for line in proxy.log if line.startswith("LDS")]
    assert listeners == ["LDS a|80 b|80 c|80 d|80"]


def test_a_weight_alone_is_one_route_sent_at_once(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2"))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service(candidate="p2", weight=10))
    assert proxy.taken() == ["RDS a|80"]
    assert proxy.stream.pending == {"a": 0.0}
    proxy.answer()
    assert not proxy.stream.pending
    assert not proxy.unread


def test_a_route_waits_until_new_endpoints_are_acknowledged(proxy: Proxy) -> None:
    proxy.taken()
    proxy.publish("a", service(candidate="p2", weight=10))
    assert proxy.taken() == ["EDS a|80|candidate"]
    proxy.answer()
    assert proxy.taken() == ["RDS a|80"]


def test_a_changed_cluster_takes_its_unchanged_endpoints_along(proxy: Proxy) -> None:
    proxy.taken()
    proxy.publish("a", service(settings="2"))
    assert proxy.taken() == ["CDS a|80|candidate a|80|stable", "EDS a|80|candidate a|80|stable"]
    proxy.answer()
    assert proxy.stream.pending
    proxy.answer()
    assert not proxy.stream.pending


def test_endpoints_that_became_none_wait_until_routes_have_left_them(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2", weight=50))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service(candidate="", weight=0))
    assert proxy.taken() == ["RDS a|80"]
    proxy.answer()
    assert proxy.taken() == ["EDS a|80|candidate"]
    assert proxy.stream.pending
    proxy.answer()
    assert not proxy.stream.pending


def test_a_cluster_that_changes_while_its_endpoints_leave_is_sent_with_them(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2", weight=50))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service(candidate="", weight=0, settings="2"))
    proxy.answer_all()
    assert proxy.taken() == [
        "CDS a|80|stable",
        "EDS a|80|stable",
        "RDS a|80",
        "CDS a|80|candidate",
        "EDS a|80|candidate",
    ]
    assert not proxy.stream.pending


def test_a_cluster_waits_for_its_endpoints_answer_so_that_both_go_together(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2", weight=50))
    proxy.publish("a", service(candidate="p2", weight=50, settings="2"))
    proxy.publish("a", service(candidate="", weight=0, settings="2"))
    proxy.answer_all()
    assert not proxy.warming
    assert not proxy.stream.pending


def test_what_changes_while_a_response_is_on_its_way_is_sent_once_and_newest(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2"))
    proxy.answer_all()
    proxy.taken()
    for weight in (1, 2, 3, 50):
        proxy.publish("a", service(candidate="p2", weight=weight))
    assert proxy.taken() == ["RDS a|80"]
    proxy.answer_all()
    assert proxy.taken() == ["RDS a|80"]
    assert proxy.has[RDS]["a|80"][1].endswith(";50")


def test_a_slow_answer_for_one_service_does_not_hold_another(proxy: Proxy) -> None:
    proxy.publish("b", service("b", candidate="p2"))
    proxy.publish("a", service(candidate="p2"))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("b", service("b", candidate="p3"))
    proxy.publish("a", service(candidate="p2", weight=10))
    assert proxy.taken() == ["EDS b|80|candidate", "RDS a|80"]


def test_a_port_that_goes_leaves_listener_first_and_clusters_after_the_drain_time(proxy: Proxy) -> None:
    proxy.publish("a", service() + service(port=81))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service())
    assert proxy.taken() == ["LDS -a|81"]
    assert proxy.stream.pending
    proxy.answer_all()
    assert not proxy.stream.pending
    assert proxy.taken() == []
    assert proxy.stream.wake_at(proxy.now) == DRAIN_S
    proxy.pass_time(DRAIN_S)
    assert proxy.taken() == ["CDS -a|81|candidate -a|81|stable"]
    proxy.answer_all()
    assert proxy.stream.wake_at(proxy.now) is None


def test_the_candidates_cluster_goes_after_the_routes_without_it_are_acknowledged(proxy: Proxy) -> None:
    proxy.pass_time(DRAIN_S)
    proxy.publish("a", service(candidate="p2", weight=10))
    proxy.answer_all()
    proxy.taken()
    without = tuple(each for each in service() if "candidate" not in each.name)
    proxy.publish("a", without)
    assert proxy.taken() == ["RDS a|80"]
    proxy.answer()
    assert proxy.taken() == ["CDS -a|80|candidate"]


def test_a_service_that_comes_back_before_its_clusters_went_costs_no_new_clusters(proxy: Proxy) -> None:
    proxy.publish("a", ())
    proxy.answer_all()
    proxy.taken()
    proxy.pass_time(DRAIN_S / 2)
    proxy.publish("a", service())
    proxy.answer_all()
    proxy.pass_time(DRAIN_S)
    assert proxy.taken() == ["LDS a|80", "RDS a|80"]
    assert not proxy.stream.pending


def test_a_proxy_that_comes_back_is_sent_nothing_that_it_has(proxy: Proxy) -> None:
    proxy.taken()
    proxy.connect()
    assert proxy.taken() == []
    assert not proxy.stream.pending


def test_a_proxy_that_comes_back_is_sent_what_changed_meanwhile(proxy: Proxy) -> None:
    proxy.taken()
    proxy.catalogue.publish("a", service(candidate="p2", weight=10))
    proxy.connect()
    assert proxy.taken() == ["EDS a|80|candidate"]
    proxy.answer_all()
    assert proxy.taken() == ["RDS a|80"]


def test_a_cluster_that_changed_while_a_proxy_was_away_takes_its_unchanged_endpoints_along(proxy: Proxy) -> None:
    proxy.taken()
    proxy.catalogue.publish("a", service(settings="2"))
    proxy.connect()
    assert proxy.taken() == ["CDS a|80|candidate a|80|stable", "EDS a|80|candidate a|80|stable"]
    proxy.answer_all()
    assert not proxy.warming


def test_a_proxy_that_comes_back_to_another_server_is_told_what_is_gone(proxy: Proxy) -> None:
    proxy.taken()
    proxy.catalogue = Catalogue()
    proxy.connect()
    proxy.answer_all()
    assert proxy.taken() == ["LDS -a|80"]
    proxy.pass_time(DRAIN_S)
    proxy.answer_all()
    assert proxy.taken() == ["CDS -a|80|candidate -a|80|stable"]
    assert proxy.has == {t: {} for t in TYPES}


def test_endpoints_that_left_while_a_proxy_was_away_wait_for_its_routes(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2", weight=50))
    proxy.answer_all()
    proxy.taken()
    proxy.catalogue.publish("a", service())
    proxy.connect()
    proxy.answer_all()
    assert proxy.taken() == ["RDS a|80", "EDS a|80|candidate"]


def test_a_refusal_is_told_and_not_repeated_until_the_content_changes(proxy: Proxy) -> None:
    proxy.taken()
    proxy.refuses = "bad"
    proxy.publish("a", service(settings="bad"))
    proxy.answer_all()
    assert proxy.stream.rejections("a") == (Rejection("shop/web-1", CDS, "no bad"),) * 2
    assert [line for line in proxy.taken() if line.startswith("CDS")] == ["CDS a|80|candidate a|80|stable"]
    proxy.pass_time(100)
    assert proxy.taken() == []
    proxy.publish("a", service(settings="good"))
    proxy.answer_all()
    assert proxy.stream.rejections("a") == ()
    assert not proxy.stream.pending


def test_going_back_to_what_the_proxy_has_ends_a_refusal_without_sending(proxy: Proxy) -> None:
    proxy.refuses = "bad"
    proxy.publish("a", service(settings="bad"))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service())
    assert proxy.taken() == []
    assert proxy.stream.rejections("a") == ()
    assert not proxy.stream.pending


def test_a_weight_goes_out_although_the_change_of_a_cluster_was_refused(proxy: Proxy) -> None:
    proxy.publish("a", service(candidate="p2", weight=10))
    proxy.answer_all()
    proxy.refuses = "bad"
    proxy.publish("a", service(candidate="p2", weight=10, settings="bad"))
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service(candidate="p2", weight=0, settings="bad"))
    assert proxy.taken() == ["RDS a|80"]


def test_no_route_names_a_cluster_that_was_refused_and_never_there() -> None:
    proxy = Proxy(refuses="bad")
    proxy.connect()
    proxy.answer_all()
    proxy.taken()
    proxy.publish("a", service(settings="bad"))
    proxy.answer_all()
    assert proxy.taken() == ["CDS a|80|candidate a|80|stable"]


def test_one_bad_service_among_many_is_the_only_one_refused() -> None:
    proxy = Proxy(refuses="bad")
    for key in "abc":
        proxy.catalogue.publish(key, service(key, settings="bad" if key == "b" else "1"))
    proxy.connect()
    proxy.answer_all()
    assert set(proxy.stream.pending) == {"b"}
    assert [len(proxy.stream.rejections(key)) for key in "abc"] == [0, 2, 0]


def test_endpoints_asked_for_again_are_sent_again(proxy: Proxy) -> None:
    proxy.taken()
    proxy.say(Request(EDS, subscribe=("a|80|stable",)))
    assert proxy.taken() == ["EDS a|80|stable"]
    assert proxy.stream.pending
    proxy.answer()
    assert not proxy.stream.pending


def test_endpoints_of_a_cluster_that_was_withdrawn_on_its_way_are_denied(proxy: Proxy) -> None:
    proxy.publish("b", service("b"))
    proxy.publish("b", ())
    proxy.taken()
    proxy.answer()
    assert proxy.taken() == ["EDS -b|80|candidate -b|80|stable"]
    proxy.say(Request(EDS, subscribe=("b|80|stable",)))
    proxy.answer_all()
    assert not proxy.warming


def test_an_answer_to_what_was_asked_for_again_meanwhile_does_not_count(proxy: Proxy) -> None:
    proxy.publish("a", service(pods="p9"))
    late = proxy.unread.popleft()
    proxy.say(Request(EDS, subscribe=("a|80|stable",)))
    proxy.say(Request(EDS, nonce=late.nonce))
    assert proxy.stream.pending
    proxy.answer_all()
    assert not proxy.stream.pending


def test_large_content_is_cut_into_several_responses() -> None:
    proxy = Proxy()
    big = "x" * 400_000
    proxy.catalogue.publish("a", tuple(resource(CDS, f"c{i}", big) for i in range(5)))
    proxy.connect()
    assert [line for line in proxy.taken() if line != "LDS"] == ["CDS c0 c1", "CDS c2 c3", "CDS c4"]


@pytest.mark.parametrize(
    ("second", "complaint"),
    [
        ((resource(CDS, "a|80|stable"),), "belongs to a"),
        ((resource(CDS, "x"), resource(CDS, "x")), "two resources"),
        ((Resource("type.googleapis.com/x.Y", "x", "1", b""),), "not served"),
    ],
    ids=["a name of another key", "a name twice", "a type that is not served"],
)
def test_what_cannot_be_published_is_refused_and_changes_nothing(second: tuple[Resource, ...], complaint: str) -> None:
    catalogue = Catalogue()
    catalogue.publish("a", service())
    with pytest.raises(ValueError, match=complaint):
        catalogue.publish("b", second)
    assert catalogue.keys() == ("a",)


def test_an_error_of_envoy_is_cut_to_300_characters() -> None:
    request: Any = message("envoy.service.discovery.v3.DeltaDiscoveryRequest")(type_url=CDS)
    request.error_detail.message = "e" * 5000
    assert len(read_request(request.SerializeToString()).error) == 300


def test_a_type_that_is_not_served_is_ignored(proxy: Proxy) -> None:
    proxy.taken()
    proxy.say(Request("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", subscribe=("x",)))
    assert proxy.taken() == []


contents = st.one_of(
    st.just(()),
    st.builds(
        lambda weight, candidate, pods, config, ports: tuple(
            each for port in ports for each in service("{}", weight if candidate else 0, pods, candidate, config, port)
        ),
        st.sampled_from([0, 1, 50]),
        st.sampled_from(["", "p2", "p3"]),
        st.sampled_from(["p1", "p4"]),
        st.sampled_from(["1", "2", "bad"]),
        st.sets(st.sampled_from([80, 81]), min_size=1),
    ),
)
actions = st.one_of(
    st.tuples(st.sampled_from(["a", "b"]), contents, st.sampled_from([0, 1, 2, 99])),
    st.tuples(st.sampled_from(["a", "b"]), contents, st.sampled_from([0, 1, 2, 99])),
    st.sampled_from(["answer", "connect", "wait"]),
)


def named_for(key: str, resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    def renamed(each: Resource) -> Resource:
        body = each.body.replace(b"{}", key.encode())
        return Resource(each.type_url, each.name.replace("{}", key), sha256(body).hexdigest(), body, each.empties)

    return tuple(map(renamed, resources))


def check_routes(proxy: Proxy) -> None:
    for reply in proxy.unread:
        if reply.type_url == RDS:
            for _, content in reply.resources.values():
                named = content.partition("=")[2].partition(";")[0].split(",")
                assert set(named) <= proxy.serving, "a route names a cluster that does not serve yet"
    for _, content in proxy.has[RDS].values():
        named = content.partition("=")[2].partition(";")[0].split(",")
        assert set(named) <= proxy.serving, "a route in force names a cluster that is gone"
        for name in named:
            assert proxy.has[EDS].get(name, ("", "=never"))[1] != f"{name}=", "a route in force names an empty pool"


@settings(max_examples=150, deadline=None)
@given(st.lists(actions, max_size=40), st.booleans())
def test_whatever_happens_no_route_names_a_missing_cluster_and_in_the_end_all_is_acknowledged(
    script: list[Any], subscribes_first: bool
) -> None:
    proxy = Proxy(refuses="bad", subscribes_first=subscribes_first)
    proxy.connect()
    for action in script:
        if isinstance(action, tuple):
            key, resources, answers = action
            proxy.publish(key, named_for(key, resources))
            for _ in range(answers):
                if proxy.unread:
                    proxy.answer()
                    check_routes(proxy)
        elif action == "answer" and proxy.unread:
            proxy.answer()
        elif action == "connect":
            proxy.connect()
        elif action == "wait":
            proxy.pass_time(DRAIN_S / 2)
        check_routes(proxy)
    final = {key: named_for(key, tuple(service("{}", 10, "p1", "p2"))) for key in "ab"}
    for key, resources in final.items():
        proxy.publish(key, resources)
    proxy.answer_all()
    proxy.pass_time(2 * DRAIN_S)
    proxy.answer_all()
    check_routes(proxy)
    assert not proxy.warming, "a cluster waits for endpoints that never come"
    assert not proxy.stream.pending
    wanted = {(each.type_url, each.name): each.version for each in (*final["a"], *final["b"])}
    assert {(t, name): version for t, had in proxy.has.items() for name, (version, _) in had.items()} == wanted
