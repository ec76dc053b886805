"""Releases that are judged by what Prometheus has read of the application itself, in the place of the sidecars."""

import prometheus
import pytest
from driving import evidence
from harness import App, Object, eventually

PODS = 'namespace="{{ namespace }}", pod=~"web-{{ revision }}-.*"'
REQUESTS = {
    "total": f"shop_answers_total{{{PODS}}}",
    "failed": f"shop_failed_answers_total{{{PODS}}}",
    "durations": f"shop_answer_duration_seconds_bucket{{{PODS}}}",
}
STEPS = ({"weight": 30, "for": "4s"}, {"weight": 60})


def analysis(source: Object, **requests: str) -> Object:
    compared = {"compare": True, "floor": "250ms", "tolerances": [{"ratio": 2, "points": 5}]}
    return {"interval": "1s", "prometheus": source, "requests": {**REQUESTS, **requests}, "latency": compared}


def finding(app: App, name: str) -> Object:
    found = (app.status().get("run") or {}).get("metrics") or []
    return next((each for each in found if each["name"] == name), {})


@pytest.mark.long
def test_what_prometheus_counts_promotes_a_good_version_and_rolls_back_a_bad_one(app: App) -> None:
    app.create(rate=150, LATENCY="7ms")
    source = prometheus.install(app, pods=True)
    wrong = analysis(source, total=f"shop_answer_total{{{PODS}}}", failed=f"shop_failures_total{{{PODS}}}")
    del wrong["requests"]["durations"]
    app.adopt(*STEPS, analysis=wrong)
    since = app.mark()
    app.ship("v2", LATENCY="7ms")
    app.wait_weight(30)
    eventually(lambda: app.condition("Ready")["reason"] == "MetricsUnavailable", "it says that nothing is counted", 30)
    assert "the query gave nothing" in finding(app, "requests")["message"]
    eventually(lambda: "v2" in app.report(since)["versions"], "the candidate answers", 20)
    assert evidence(app)[0] == 0, "the sidecars are not read"

    app.canary(*STEPS, analysis=analysis(source))
    app.wait_promoted("v2", 120)
    slow = finding(app, "latency")
    assert slow["verdict"] == "Safe"
    assert slow["requests"] > 100
    candidate, answered = evidence(app)[0], app.report(since)["versions"]["v2"]["requests"]
    assert 100 < candidate <= answered

    app.ship("v3", LATENCY="7ms", ERROR_RATE="0.3")
    status = app.wait_phase("Failed", within_s=90)
    assert status["run"]["cause"] == "RolledBack", status["message"]
    bad = finding(app, "success-rate")
    assert bad["verdict"] == "Harm"
    assert 0.1 < bad["bad"] / bad["requests"] < 0.5
    assert bad["stableBad"] == 0 < bad["stableRequests"]
    report = app.report(since)
    assert bad["bad"] <= report["bad_answers"]
    assert report["failed_by_us"] == 0
    print(f"{report['bad_answers']} bad answers, {bad['bad']} of {bad['requests']} counted when it was decided")
