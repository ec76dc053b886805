"""The fault gate: releases that are healthy, and survive the failure of what they call no worse, or worse."""

import re
import time
from typing import Any

import pytest
from faulty import STEPS, allow, experiment, groups, injected, last, ship, shop, staged
from harness import App, eventually


@pytest.mark.acceptance(42)
def test_a_candidate_that_lost_its_fallback_is_healthy_and_is_stopped_by_the_gate(app: App) -> None:
    shop(app)
    since = app.mark()
    ship(app, fallback=False)
    eventually(lambda: injected(app), "the fault is injected", 120)
    arms: set[str] = set()
    met: set[str] = set()

    def failed() -> bool:
        arms.update(groups(app))
        met.update(pod for pod, calls in staged(app).items() if calls)
        return app.phase() == "Failed"

    eventually(failed, "the candidate failed", 120)
    assert met, "somebody meets the fault"
    assert met <= arms, "only the two groups meet it"
    status = app.status()
    assert status["run"]["cause"] == "FaultGate", status["message"]
    assert "stock-fails" in status["message"]
    found = last(app)
    assert found["verdict"] == "Failed"
    errors = next(metric for metric in found["metrics"] if metric["name"] == "errors")
    assert errors["bad"] > 0.5 * errors["requests"] > 0
    assert errors["stableBad"] < 0.05 * errors["stableRequests"]
    assert f"of {errors['requests']:,} requests to the candidate" in found["message"]
    report = app.report(since)
    assert report["failed_by_us"] == 0, report["failed"][:5]
    assert report["bad_answers"] <= found["budget"] + 50
    eventually(lambda: not app.leftovers(), "nothing is left", 60)
    run = status["run"]["id"]
    assert (
        "experiment stock-fails: failed, risked 200"
        in app.cluster.serinus("history", "web", "-n", app.namespace).stdout
    )
    replayed = app.cluster.serinus("replay", "web", run, "-n", app.namespace).stdout
    assert re.search(r"The same, from \d+ samples: Failed", replayed), replayed
    page = app.cluster.serinus("history", "web", run, "-n", app.namespace, "-o", "html").stdout
    assert "stock-fails" in page
    assert "risked 200" in page


@pytest.mark.long
@pytest.mark.acceptance(43)
def test_a_candidate_that_copes_goes_on_and_the_fault_is_gone_from_every_sidecar(app: App) -> None:
    shop(app)
    since = app.mark()
    ship(app, fallback=True)
    eventually(lambda: injected(app), "the fault is injected", 120)
    app.wait_promoted("v2", within_s=180)
    found = last(app)
    assert found["verdict"] == "Passed", found
    assert found["spent"] < found["budget"]
    calls = [metric for metric in found["metrics"] if metric["name"] == "calls"]
    assert calls or found["metrics"]
    before = staged(app)
    time.sleep(2)
    assert staged(app) == before, "no call goes by way of a fault any more"
    report = app.report(since)
    assert report["failed_by_us"] == 0, report["failed"][:5]
    assert not app.leftovers()
    assert any("FaultGate" in event and "risked 200" in event for event in app.events())


@pytest.mark.long
@pytest.mark.acceptance(44)
def test_a_service_that_is_fragile_in_both_versions_is_not_blamed_on_the_candidate(app: App) -> None:
    shop(app, fallback=False, percentage=20, onInconclusive="Promote")
    ship(app, fallback=False)
    eventually(lambda: injected(app), "the fault is injected", 120)
    app.wait_promoted("v2", within_s=240)
    assert last(app)["verdict"] in ("Passed", "Inconclusive"), last(app)


def test_a_candidate_that_waits_too_long_for_what_it_calls_is_stopped_by_its_slow_answers(app: App) -> None:
    called: Any = {"STOCK_URL": "http://stock", "FALLBACK": "true"}
    app.create(rate=100, patience="20s", behind=("stock",), CALL_TIMEOUT="200ms", **called)
    allow(app)
    roomy = {"promise": {"ratio": 3, "points": 10}, "tolerances": [{"ratio": 4, "points": 20}]}
    slow = experiment(name="stock-is-slow", abort=None, delay="6s")
    app.adopt(
        {"weight": 40, "for": "2s"},
        {"fault": "stock-is-slow"},
        faults=[{key: value for key, value in slow.items() if value is not None}],
        analysis={"latency": {"compare": True, "floor": "250ms", **roomy}},
    )
    app.ship("v2", CALL_TIMEOUT="10s", **called)
    status = app.wait_phase("Failed", within_s=150)
    assert status["run"]["cause"] == "FaultGate", status["message"]
    found = last(app)
    assert found["verdict"] == "Failed"
    slow = next(metric for metric in found["metrics"] if metric["name"] == "slow")
    assert slow["bad"] > 0.5 * slow["requests"] > 0
    assert slow["stableBad"] / slow["stableRequests"] < 0.5 * slow["bad"] / slow["requests"]
    assert "of the candidate's answers took longer than" in found["message"]


@pytest.mark.acceptance(46)
def test_the_budget_ends_an_experiment_without_a_verdict_and_a_person_decides(app: App) -> None:
    shop(app, fallback=False, budget=20)
    ship(app, fallback=False)
    eventually(lambda: last(app).get("verdict") == "Inconclusive", "it ends without a verdict", 150)
    assert last(app)["reason"] == "Budget", last(app)
    status = app.wait_phase("Waiting", within_s=30)
    assert "20 were risked" in status["message"]
    assert "serinus promote web goes on without one" in eventually(
        lambda: app.status()["message"] if "goes on without" in app.status()["message"] else "", "what to do", 20
    )
    app.cluster.serinus("promote", "web", "-n", app.namespace)
    app.wait_promoted("v2", within_s=120)


@pytest.mark.acceptance(46)
def test_the_kill_switch_ends_an_experiment_at_once(app: App) -> None:
    shop(app, fallback=False, budget=100000)
    ship(app, fallback=False)
    eventually(lambda: injected(app), "the fault is injected", 120)
    listed = app.cluster.serinus("faults", "list", "-n", app.namespace).stdout
    assert re.search(r"canary/web +stock +Active", listed), listed
    allow(app, "stopped")
    time.sleep(2)
    since = app.mark()
    eventually(lambda: app.report(since)["total"] >= 400, "requests", 30)
    assert app.report(since)["bad_answers"] == 0
    eventually(lambda: last(app).get("reason") == "Stopped", "it says so", 20)


def test_an_experiment_waits_for_what_must_hold_before_and_says_so(app: App) -> None:
    app.create(rate=100, behind=("stock",), STOCK_URL="http://stock", FALLBACK="true")
    app.adopt(*STEPS, faults=[experiment(to="stok")])
    ship(app, fallback=True)
    app.wait_message("there is no Service stok")
    app.canary(*STEPS, faults=[experiment()])
    app.wait_message("does not allow faults", 30)
    assert not groups(app)
    allow(app)
    eventually(lambda: injected(app), "the fault is injected", 120)
    assert app.namespace in app.cluster.serinus("faults", "stop", "-n", app.namespace).stdout
    eventually(lambda: last(app).get("reason") == "Stopped", "it says so", 20)
    app.cluster.serinus("abort", "web", "-n", app.namespace)
    app.wait_phase("Failed")
    eventually(lambda: not app.leftovers(), "nothing is left", 60)
