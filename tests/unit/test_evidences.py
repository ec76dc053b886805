"""Who is read for a run: all connected sidecars, at the addresses that their pods have by now."""

from types import SimpleNamespace
from typing import Any

from serinus.controller.evidences import Collector
from serinus.controller.feed import Feed
from serinus.controller.pods import entry
from serinus.mesh.ads import Proxy
from serinus.mesh.render import render_service

from .test_feed import Sidecars
from .world import analysing


def pod(uid: str, **status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "cart-1", "uid": uid, "labels": {}}, "status": status}


def test_a_sidecar_that_connected_before_its_pods_address_was_known_is_read_once_it_is() -> None:
    feed, watched = Feed(Sidecars(), render_service), {}  # type: ignore[var-annotated]
    counters = SimpleNamespace(
        watch=lambda key, candidate, stable, proxies: watched.update({key: proxies}), unwatch=lambda key: None
    )
    connected = [Proxy("shop", "cart-1", "uid-1", "", 0.0), Proxy("shop", "web-1", "uid-2", "10.1.0.2", 0.0)]
    collector = Collector(feed, counters, SimpleNamespace(unwatch=lambda key: None), lambda: connected)  # type: ignore[arg-type]
    feed.services["shop/web"] = {"spec": {"ports": []}}
    collector.follow("shop/web", analysing(), "shop/web")

    def addresses() -> list[str]:
        return [proxy.ip for proxy in watched["shop/web"]()]

    feed.set_pod(entry(pod("uid-1")))
    assert addresses() == ["", "10.1.0.2"]
    feed.set_pod(entry(pod("uid-1", podIP="10.1.0.1")))
    assert addresses() == ["10.1.0.1", "10.1.0.2"]
    feed.set_pod(entry(pod("another of that name", podIP="10.1.0.3")))
    assert addresses() == ["", "10.1.0.2"]
