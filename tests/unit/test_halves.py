"""How the stable version's pods are divided and counted. ``data/envoy-endpoints.json`` holds answers of Envoy 1.40.

Each kind is a fresh sidecar that sent 20 requests (10 of gRPC, 4 where they take long or there is no endpoint) to two
endpoints; the addresses are Envoy's own.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from serinus.mesh.envoy_stats import EndpointCounters, read_sheet
from serinus.mesh.halves import MAX_LISTED, Halves, Rota

KINDS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "envoy-endpoints.json").read_text())["kinds"]
STABLE = "shop|web|80|stable"

EXPECTED = {
    "200": (20, 0),
    "404": (20, 0),
    "500": (20, 20),
    "500 retried": (40, 40),
    "refused": (20, 20),
    "one of two refused, retried": (27, 7),
    "reset": (20, 20),
    "reset retried": (40, 40),
    "partial body": (20, 0),
    "timeout": (4, 4),
    "per try timeout": (8, 8),
    "client gone": (0, 0),
    "no endpoint": (0, 0),
    "grpc OK": (10, 0),
    "grpc OK stream": (10, 0),
    "grpc UNAVAILABLE": (10, 10),
    "grpc UNAVAILABLE stream": (10, 10),
    "grpc UNAVAILABLE retried": (20, 20),
    "grpc INVALID_ARGUMENT": (10, 0),
    "grpc UNIMPLEMENTED": (10, 10),
    "grpc RESOURCE_EXHAUSTED": (10, 0),
    "grpc CANCELLED": (10, 0),
}


def listed(**pods: tuple[int, int]) -> dict[str, dict[str, EndpointCounters]]:
    """Return what a caller lists: tries and failures by the name of a pod."""
    return {STABLE: {f"{pod}_8080": EndpointCounters(tries - bad, bad) for pod, (tries, bad) in pods.items()}}


def test_every_recorded_kind_has_an_expectation() -> None:
    assert EXPECTED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", EXPECTED)
def test_each_try_that_ended_counts_once_for_its_endpoint(kind: str) -> None:
    halves = Halves()
    halves.take("web-1", read_sheet(KINDS[kind]).endpoints, newborn=True)
    (tries, failures), (other_tries, other_failures) = halves.sums
    assert (tries + other_tries, failures + other_failures) == EXPECTED[kind]


def test_envoys_two_endpoints_are_one_half_each() -> None:
    halves = Halves()
    halves.take("web-1", read_sheet(KINDS["200"]).endpoints, newborn=True)
    assert sorted(halves.sums) == [(9, 0), (11, 0)]
    assert halves.tried == {"127.0.0.2", "127.0.0.3"}


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_halves_are_equally_large_and_the_same_in_every_process(count: int) -> None:
    pods = {f"10.0.{number}.7": (2**number, 0) for number in range(count)}
    one, other = Halves(), Halves()
    one.take("web-1", listed(**pods), newborn=True)
    other.take("web-2", listed(**dict(reversed(pods.items()))), newborn=True)
    assert one.sums == other.sums
    first, second = (tries.bit_count() for tries, _ in one.sums)
    assert (first + second, abs(first - second)) == (count, count % 2)


def test_a_pod_is_in_one_half_whoever_calls_it_and_on_whatever_port() -> None:
    halves = Halves()
    two_ports = {
        "shop|web|80|stable": {"10.0.0.1_8080": EndpointCounters(3, 0), "10.0.0.2_8080": EndpointCounters(0, 0)},
        "shop|web|81|stable": {"10.0.0.1_9090": EndpointCounters(4, 1), "10.0.0.2_9090": EndpointCounters(0, 0)},
    }
    halves.take("web-1", two_ports, newborn=True)
    halves.take("web-2", two_ports, newborn=True)
    assert sorted(halves.sums) == [(0, 0), (16, 2)]
    assert halves.tried == {"10.0.0.1"}


def test_pods_that_replace_others_keep_the_halves_even() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(0, 0), b=(0, 0)), newborn=False)
    halves.take("web-1", listed(b=(0, 0), c=(0, 0)), newborn=False)
    halves.take("web-1", listed(c=(0, 0), d=(0, 0)), newborn=False)
    halves.take("web-1", listed(c=(10, 0), d=(20, 0)), newborn=False)
    assert sorted(halves.sums) == [(10, 0), (20, 0)]


def test_what_an_old_sidecar_lists_first_is_where_counting_starts() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(100, 9), b=(100, 9)), newborn=False)
    assert halves.sums == ((0, 0), (0, 0))
    halves.take("web-1", listed(a=(105, 10), b=(102, 9)), newborn=False)
    assert sorted(halves.sums) == [(2, 0), (5, 1)]


def test_a_pod_that_comes_later_counts_whole_and_one_that_comes_back_too() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(100, 0)), newborn=False)
    halves.take("web-1", listed(a=(100, 0), b=(30, 1)), newborn=False)
    halves.take("web-1", listed(a=(100, 0)), newborn=False)
    halves.take("web-1", listed(a=(100, 0), b=(40, 2)), newborn=False)
    assert sorted(halves.sums) == [(0, 0), (70, 3)]
    halves.take("web-1", {STABLE: {}}, newborn=False)
    halves.take("web-1", listed(a=(7, 0), b=(40, 2)), newborn=False)
    assert sorted(halves.sums) == [(7, 0), (110, 5)]


def test_an_endpoint_whose_counters_fell_came_anew() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(100, 50)), newborn=False)
    halves.take("web-1", listed(a=(8, 2)), newborn=False)
    assert sorted(halves.sums) == [(0, 0), (8, 2)]


def test_after_a_restart_of_the_sidecar_all_counts_even_if_it_is_more_than_before() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(10, 0)), newborn=False)
    halves.restarted("web-1")
    halves.restarted("never listed anything")
    halves.take("web-1", listed(a=(25, 1)), newborn=False)
    assert sorted(halves.sums) == [(0, 0), (25, 1)]


def test_a_cluster_that_an_old_sidecar_lists_later_is_where_counting_starts_too() -> None:
    halves = Halves()
    halves.take("web-1", listed(a=(10, 0)), newborn=False)
    halves.take("web-1", {"shop|web|81|stable": {"a_9090": EndpointCounters(500, 0)}}, newborn=False)
    assert halves.sums == ((0, 0), (0, 0))
    assert halves.listed("web-1", "shop|web|81|stable") == 1
    assert halves.listed("web-1", "shop|web|82|stable") is None
    assert halves.listed("web-2", STABLE) is None


def test_few_endpoints_are_listed_in_every_round() -> None:
    rota = Rota()
    for _ in range(5):
        rota.turn()
        assert all(rota.due(f"web-{caller}", STABLE, 10) for caller in range(100))


def test_two_hundred_callers_of_two_hundred_pods_take_turns_of_five_rounds() -> None:
    rota = Rota()
    callers = [f"web-{caller}" for caller in range(200)]
    rota.turn()
    assert all(rota.due(caller, STABLE, 200) for caller in callers)
    turns: dict[str, int] = dict.fromkeys(callers, 0)
    for _ in range(10):
        rota.turn()
        due = [caller for caller in callers if rota.due(caller, STABLE, 200)]
        assert len(due) * 200 < 2 * MAX_LISTED
        for caller in due:
            turns[caller] += 1
    assert set(turns.values()) == {2}
