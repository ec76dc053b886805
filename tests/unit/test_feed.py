"""The feed: what sidecars are given, and what is told of it, when pods, Services and policies come in any state."""

from dataclasses import replace

import pytest

from serinus.api import parse_live
from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.controller.feed import Feed, Policy
from serinus.controller.pods import PodEntry
from serinus.delivery.project import Route
from serinus.mesh.model import Acks, Resource, ServiceState
from serinus.mesh.render import render_service
from serinus.mesh.schema import SchemaError

KEY = "shop/cart"
GOOD, BETTER, BAD = "/a.*", "/b.*", "(?=a)"


class Sidecars:
    """Sidecars that acknowledge whatever they are given."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[Resource, ...]] = {}
        self.times = 0

    def publish(self, key: str, resources: tuple[Resource, ...]) -> None:
        self.given[key] = resources
        self.times += 1

    def withdraw(self, key: str) -> None:
        self.given.pop(key)

    def acks(self, key: str) -> Acks:
        return Acks(1, 1)

    def text(self, key: str) -> str:
        return "".join(resource.body.decode("latin-1") for resource in self.given[key])


def service(name: str = "cart") -> dict[str, object]:
    spec = {"selector": {"app": name}, "clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}]}
    return {"metadata": {"namespace": "shop", "name": name}, "spec": spec}


def policy(regex: str) -> Policy:
    raw = {"targetRef": {"name": "cart"}, "routes": [{"name": "r", "match": {"path": {"regex": regex}}}]}
    return Policy("2026-01-01T00:00:00Z", "rules", parse_live(TrafficPolicySpec, raw))


def pod(name: str, uid: str = "1", pod_hash: str = "", app: str = "cart") -> PodEntry:
    labels = (("app", app), *((("pod-template-hash", pod_hash),) if pod_hash else ()))
    return PodEntry("shop", name, uid, "10.1.0.1", labels, True, True, False, False, ())


@pytest.fixture
def sidecars() -> Sidecars:
    return Sidecars()


@pytest.fixture
def feed(sidecars: Sidecars) -> Feed:
    feed = Feed(sidecars, render_service)
    feed.set_service(service())
    feed.set_route(KEY, KEY, Route(50, "h", "h"))
    feed.set_pod(pod("candidate", pod_hash="h"))
    return feed


def test_a_policy_that_envoy_would_refuse_does_not_stop_a_rollback(feed: Feed, sidecars: Sidecars) -> None:
    feed.set_policies(KEY, [policy(BAD)])
    assert "RE2" in feed.refusal(KEY)
    before = sidecars.times
    feed.set_route(KEY, KEY, Route(0, "h", "h"))
    assert sidecars.times == before + 1
    assert feed.facts(KEY).weight == 0


def test_the_policy_of_before_stays_in_force_until_the_refused_one_is_mended(feed: Feed, sidecars: Sidecars) -> None:
    feed.set_policies(KEY, [policy(GOOD)])
    feed.set_policies(KEY, [policy(BAD)])
    feed.set_route(KEY, KEY, Route(60, "h", "h"))
    assert GOOD in sidecars.text(KEY)
    assert feed.refusal(KEY)
    feed.set_policies(KEY, [policy(BETTER)])
    assert BETTER in sidecars.text(KEY)
    assert feed.refusal(KEY) == ""


def test_a_refused_policy_is_not_sent_again_and_again(feed: Feed, sidecars: Sidecars) -> None:
    feed.set_policies(KEY, [policy(BAD)])
    before = sidecars.times
    feed.refresh(KEY)
    assert sidecars.times == before


def test_a_state_that_cannot_be_sent_at_all_is_not_said_to_be_in_force(sidecars: Sidecars) -> None:
    def render(state: ServiceState) -> tuple[Resource, ...]:
        if state.weight_pct == 60:
            raise SchemaError("Envoy would refuse this")
        return render_service(state)

    feed = Feed(sidecars, render)
    feed.set_service(service())
    feed.set_route(KEY, KEY, Route(50, "h", "h"))
    feed.set_pod(pod("candidate", pod_hash="h"))
    feed.set_route(KEY, KEY, Route(60, "h", "h"))
    assert feed.facts(KEY).weight == 50
    assert feed.refusal(KEY)


def test_the_end_of_a_pod_does_not_take_another_one_of_its_name_along(feed: Feed) -> None:
    feed.set_pod(pod("db-0", uid="old"))
    feed.set_pod(pod("db-0", uid="new"))
    feed.drop_pod("shop", "db-0", "old")
    assert feed.pods["shop", "db-0"].uid == "new"
    feed.drop_pod("shop", "db-0", "new")
    assert ("shop", "db-0") not in feed.pods


def test_a_pod_without_hash_that_no_service_selects_is_no_reason_to_look_at_services(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.set_route(KEY, KEY, Route())
    looked: list[str] = []
    monkeypatch.setattr(feed, "refresh", looked.append)
    feed.set_pod(pod("job-1", app="job"))
    assert looked == []


async def test_at_the_start_nothing_is_published_until_all_is_known_and_then_once(sidecars: Sidecars) -> None:
    feed = Feed(sidecars, render_service)
    feed.fill()
    feed.set_service(service())
    feed.set_pod(replace(pod("stable"), meshed=True))
    feed.set_route(KEY, KEY, Route(50, "h", "h"))
    assert sidecars.times == 0
    await feed.publish_all()
    assert (sidecars.times, feed.facts(KEY).weight) == (1, 50)
