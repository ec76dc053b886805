"""Our own metrics: the series that appear and, above all, those that go away."""

import pytest

from serinus.controller.metrics import Metrics


def lines(metrics: Metrics, start: str) -> list[str]:
    return [line for line in metrics.rendered().decode().splitlines() if line.startswith(start)]


def test_every_outcome_of_a_reconcile_is_there_from_the_start():
    assert lines(Metrics(), "serinus_reconcile_total") == [
        f'serinus_reconcile_total{{result="{result}"}} 0.0'
        for result in ("success", "conflict", "transient", "error", "deadline")
    ]


def test_a_reconcile_is_counted_and_timed():
    metrics = Metrics()
    metrics.reconciled("demo/shop", "error", 0.3)
    assert 'serinus_reconcile_total{result="error"} 1.0' in lines(metrics, "serinus_reconcile_total")
    assert lines(metrics, "serinus_reconcile_seconds_sum") == ["serinus_reconcile_seconds_sum 0.3"]


def test_requests_to_the_api_server_are_counted_by_outcome():
    metrics = Metrics()
    for outcome in ("ok", "ok", "conflict"):
        metrics.api_request("apply", "Deployment", outcome)
    assert lines(metrics, "serinus_api_requests_total") == [
        'serinus_api_requests_total{kind="Deployment",outcome="ok",verb="apply"} 2.0',
        'serinus_api_requests_total{kind="Deployment",outcome="conflict",verb="apply"} 1.0',
    ]


def test_a_canary_shows_its_present_phase_only():
    metrics = Metrics()
    metrics.canary("demo", "shop", "Analysing", 10)
    metrics.canary("demo", "shop", "Promoting", 100)
    assert lines(metrics, "serinus_canary") == [
        'serinus_canary_phase{name="shop",namespace="demo",phase="Promoting"} 1.0',
        'serinus_canary_weight_percent{name="shop",namespace="demo"} 100.0',
    ]


@pytest.mark.parametrize("times", [1, 2])
def test_a_canary_that_is_gone_leaves_no_series(times):
    metrics = Metrics()
    metrics.canary("demo", "shop", "Analysing", 10)
    metrics.canary("demo", "other", "Ready", 0)
    for _ in range(times):
        metrics.forget("demo", "shop")
    assert [line for line in lines(metrics, "serinus_canary") if "shop" in line] == []
    assert len(lines(metrics, "serinus_canary")) == 2


def test_the_rest_is_there_by_name():
    shown = Metrics().rendered().decode()
    for name in (
        "serinus_queue_depth",
        "serinus_loop_lag_seconds",
        "serinus_ads_proxies",
        "serinus_ads_pushes_total",
        "serinus_leader",
        "process_resident_memory_bytes",
    ):
        assert f"\n{name} " in shown
