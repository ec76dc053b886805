"""Faults of TrafficPolicies: when one may happen, when it ends, and what is said of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serinus.api.fault import Fault, FaultStatus
from serinus.controller.faults import VALID_S, Faults
from serinus.controller.feed import Feed
from serinus.delivery.arms import Trial
from serinus.delivery.faulting import Allowance, accounts, allowance, ended, fingerprint, standing, words
from serinus.delivery.model import Dependency
from serinus.mesh.gates import Gate
from serinus.mesh.render import render_service

from .test_feed import KEY, Sidecars, service

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday
OPEN = Allowance("shop", "allowed")


def fault(**fields: Any) -> Fault:
    return Fault.model_validate({"abort": {"httpStatus": 503}, "percentage": 20, "ttl": "10m"} | fields)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_fault_begins_when_the_namespace_allows_it_and_ends_by_its_ttl() -> None:
    refused = standing(fault(), None, Allowance("shop"), NOW)
    assert refused.state == "Refused"
    assert "kubectl annotate namespace shop serinus.dev/faults=allowed" in refused.message
    begun = standing(fault(), refused, OPEN, after(5))
    assert (begun.state, begun.since, begun.until) == ("Active", "2026-11-25T12:00:05.000Z", "2026-11-25T12:10:05.000Z")
    assert standing(fault(), begun, OPEN, after(600)) == begun
    over = standing(fault(), begun, OPEN, after(606))
    assert (over.state, over.until) == ("Ended", begun.until)
    assert "its ttl of 10m is over" in over.message
    assert standing(fault(), over, OPEN, after(9999)) == over, "it does not begin anew by itself"
    assert standing(fault(ttl="5m"), over, OPEN, after(9999)).state == "Active", "a change begins anew"


def test_one_that_is_stopped_does_not_come_back_when_faults_are_allowed_again() -> None:
    begun = standing(fault(), None, OPEN, NOW)
    stopped = standing(fault(), begun, Allowance("shop", "stopped"), after(3))
    assert (stopped.state, stopped.until) == ("Ended", "2026-11-25T12:00:03.000Z")
    assert "faults are stopped in namespace shop" in stopped.message
    assert standing(fault(), stopped, OPEN, after(5)) == stopped


def test_one_whose_policy_goes_out_of_force_has_ended() -> None:
    begun = standing(fault(), None, OPEN, NOW)
    gone = ended(begun, "the policy is not in force", after(1))
    assert gone.state == "Ended"
    assert standing(fault(), gone, OPEN, after(2)) == gone


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        pytest.param({}, "does not allow faults", id="nothing said"),
        pytest.param({"faults": "yes"}, "does not allow faults", id="another word"),
        pytest.param({"faults": "stopped"}, "faults are stopped", id="stopped"),
        pytest.param({"faults": "allowed"}, "", id="allowed"),
        pytest.param({"faults": "allowed", "faults-most": "20"}, "", id="just within the allowance"),
        pytest.param({"faults": "allowed", "faults-most": "19"}, "write at most 19", id="over the allowance"),
        pytest.param({"faults": "allowed", "faults-most": "few"}, "write a number from 0 to 100", id="no number"),
        pytest.param({"faults": "allowed", "faults-hours": "Mon-Fri 09:00-17:00"}, "", id="within the hours"),
        pytest.param({"faults": "allowed", "faults-hours": "Wed 09:00-17:00"}, "", id="on the one day"),
        pytest.param({"faults": "allowed", "faults-hours": "Sat-Wed 12:00-12:01"}, "", id="over the end of the week"),
        pytest.param({"faults": "allowed", "faults-hours": "11:00-12:00"}, "it begins within them", id="just over"),
        pytest.param({"faults": "allowed", "faults-hours": "Thu-Tue 00:00-23:59"}, "outside", id="on another day"),
        pytest.param({"faults": "allowed", "faults-hours": "9 to 5"}, "write hours of UTC", id="no hours"),
    ],
)
def test_what_a_namespace_allows(annotations: dict[str, str], sentence: str) -> None:
    found = allowance("shop", {f"serinus.dev/{name}": value for name, value in annotations.items()})
    refusal = found.refusal(fault(), NOW)
    assert sentence in refusal
    assert bool(sentence) is bool(refusal)


def test_a_fault_in_words() -> None:
    assert words(fault()) == "answer 503 for 20 % of the GET, HEAD, OPTIONS requests of all callers"
    whole = fault(
        delay="2s", abort={"grpcStatus": 14}, allowUnsafe=True, routes=["a", "b"], **{"from": ["web", "till/desk"]}
    )
    assert words(whole) == "delay of 2s and gRPC status 14 for 20 % of the requests on a, b of web, till/desk"
    assert accounts(whole, "shop") == {("shop", "web"), ("till", "desk")}
    assert accounts(fault(), "shop") is None
    assert words(fault(abort=None, reset=True)).startswith("broken connection")


class Keeper:
    def __init__(self) -> None:
        self.told: list[tuple[tuple[Gate, ...], float]] = []

    def set_gates(self, gates: tuple[Gate, ...], valid_s: float) -> None:
        self.told.append((gates, valid_s))

    def injecting(self, gate: str) -> int:
        return int(any(each.name == gate for each in self.told[-1][0])) if self.told else 0


def book(now: datetime = NOW) -> tuple[Faults, Keeper, Sidecars]:
    keeper, sidecars = Keeper(), Sidecars()
    feed = Feed(sidecars, render_service)
    feed.set_service(service())
    feed.set_policies(KEY, [])
    faults = Faults(keeper, feed, lambda: now)
    faults.see_namespace(namespace("allowed"))
    faults.see_namespace(namespace("allowed", "till"))
    feed.set_route(KEY, "shop/any", None)
    return faults, keeper, sidecars


def namespace(value: str, name: str = "shop") -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": {"serinus.dev/faults": value}}}


def test_a_stop_of_the_namespace_closes_its_gates_at_once_and_no_others() -> None:
    faults, keeper, _ = book()
    faults.open("policy:shop/cart", KEY, fault(), after(60))
    faults.open("policy:till/desk", "till/desk", fault(), after(60))
    assert [gate.name.partition("|")[0] for gate in keeper.told[-1][0]] == ["policy:shop/cart", "policy:till/desk"]
    assert faults.injecting("policy:shop/cart") == 1
    assert faults.see_namespace(namespace("stopped"))
    assert [gate.name.partition("|")[0] for gate in keeper.told[-1][0]] == ["policy:till/desk"]
    assert not faults.see_namespace(namespace("stopped")), "nothing new"
    assert faults.see_namespace(namespace("allowed"), deleted=True)


def trial(**changes: Any) -> Trial:
    fields = {"name": "shop/web: x", "to": KEY, "spec": fault(), "retries": True, "allow_unsafe": False}
    return Trial(**{**fields, "arms": ("acf", "asf"), "through": True, "injected": True, **changes})


def names(keeper: Keeper) -> list[str]:
    return [gate.name.partition("|")[2] for gate in keeper.told[-1][0]]


def test_what_was_decided_before_a_stop_does_not_open_a_gate_after_it() -> None:
    faults, keeper, _ = book()
    faults.experiment("canary:shop/web", trial())
    assert names(keeper) == ["way", fingerprint(fault())]
    faults.see_namespace(namespace("stopped"))
    assert names(keeper) == []
    faults.experiment("canary:shop/web", trial())  # its status says so still
    assert names(keeper) == ["way"]
    faults.open("policy:shop/cart", KEY, fault(), after(60))
    assert names(keeper) == ["way"]


def test_a_service_has_one_experiment_at_a_time() -> None:
    faults, keeper, _ = book()
    faults.experiment("canary:shop/web", trial())
    faults.experiment("canary:shop/other", trial())
    assert {gate.name.partition("|")[0] for gate in keeper.told[-1][0]} == {"canary:shop/web"}
    assert faults.dependency("canary:shop/other", KEY, fault(), dry_run=False).busy == "shop/web"
    assert faults.dependency("canary:shop/web", KEY, fault(), dry_run=False) == Dependency(through=1, injecting=1)
    faults.experiment("canary:shop/web", None)
    assert keeper.told[-1][0] == ()
    assert not faults.dependency("canary:shop/other", KEY, fault(), dry_run=False).busy


def test_no_gate_is_told_for_longer_than_its_fault_lasts() -> None:
    faults, keeper, _ = book()
    faults.open("policy:shop/cart", KEY, fault(), after(60))
    assert keeper.told[-1][1] == VALID_S
    faults.open("policy:shop/other", "shop/other", fault(), after(3))
    assert 3 <= keeper.told[-1][1] <= 4
    faults.close("policy:shop/other")
    assert keeper.told[-1][1] == VALID_S
    faults.close("policy:shop/cart")
    assert keeper.told[-1][0] == ()
    told = len(keeper.told)
    faults.close("policy:shop/cart")
    assert len(keeper.told) == told


def test_the_state_of_a_fault_of_an_older_version_is_begun_anew() -> None:
    old = FaultStatus(state="Active", print="other", since="2026-11-25T11:00:00.000Z")
    assert standing(fault(), old, OPEN, NOW).since == "2026-11-25T12:00:00.000Z"
