"""What a release is judged by, from outside: latency, no traffic, shared incidents, cold starts, retries."""

import json
import time
from collections.abc import Iterator

import prometheus
import pytest
from driving import behave, candidates, evidence
from harness import App, Cluster, Object, eventually

from serinus.kube import kinds

PLAIN = {"latency": {"compare": False}, "warmUp": "0s"}


def stable_pods(app: App) -> list[str]:
    return sorted(set(app.pods()) - set(candidates(app)))


def metric(app: App, name: str) -> Object:
    found = (app.status().get("run") or {}).get("metrics") or []
    return next((entry for entry in found if entry["name"] == name), {})


@pytest.mark.acceptance(6)
def test_a_slow_version_is_rolled_back_by_comparison_with_the_stable_one(app: App) -> None:
    app.create(rate=200, LATENCY="20ms")
    app.adopt({"weight": 20, "for": "5m"}, analysis={"latency": {"compare": True}, "successRate": {"maxDrop": 1}})
    stable, since = app.pods(), app.mark()
    app.ship("v2", LATENCY="150ms")
    app.wait_phase("Failed", within_s=120)
    stalled = app.condition("Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RolledBack")
    assert "latency" in stalled["message"]
    assert "took longer than" in stalled["message"]
    assert "limit" in stalled["message"]
    eventually(lambda: app.pods().keys() == stable.keys(), "the stable pods, and no others", 30)
    report = app.report(since)
    print(f"slow answers: {report['versions']['v2']['requests']}; {stalled['message']}")
    assert report["failed_by_us"] == 0


def test_a_candidate_that_hangs_until_callers_give_up_is_rolled_back(app: App) -> None:
    app.create(rate=50, patience="2s")
    app.adopt({"weight": 20, "for": "5m"}, analysis={"latency": {"compare": False}, "successRate": {"maxDrop": 1}})
    since = app.mark()
    app.ship("v2", LATENCY="1m")
    status = app.wait_phase("Failed", within_s=120)
    assert "callers gave up" in status["message"]
    given_up = metric(app, "abandoned")
    assert given_up["bad"] > 0.9 * given_up["requests"] > 0
    assert given_up["stableBad"] < 0.1 * given_up["stableRequests"]
    report = app.report(since)
    print(f"given up: {report['versions']}; {status['message']}")
    assert report["failed_by_us"] <= given_up["bad"] + 150  # ten a second, and a rollback waits 15 s at most


@pytest.mark.acceptance(34)
@pytest.mark.parametrize("choice", ["Hold", "Promote", "Rollback"])
def test_without_requests_the_deadline_does_what_on_inconclusive_says(app: App, choice: str) -> None:
    app.create(caller=False)
    app.adopt({"weight": 50}, deadline="15s", onInconclusive=choice)
    app.ship("v2")
    app.wait_weight(50)
    eventually(lambda: app.condition("Ready").get("reason") == "NoTraffic", "it says why it waits", 30)
    assert "no request to the candidate yet" in app.status()["message"]
    if choice == "Promote":
        app.wait_promoted("v2")
    elif choice == "Rollback":
        status = app.wait_phase("Failed")
        assert status["run"]["cause"] == "DeadlineExceeded"
    else:
        time.sleep(20)
        status = app.status()
        assert (status["phase"], status["weight"]) == ("Waiting", 50)
        assert status["run"]["verdict"] == "Undecided"


def test_a_caller_whose_sidecar_cannot_be_read_is_said_by_name(app: App) -> None:
    app.create(rate=50)
    app.adopt({"weight": 30, "for": "2s"}, {"weight": 60, "for": "2s"})
    (pod,) = app.pods("app=caller")
    rule = "INPUT -p tcp --dport 15090 -j DROP"
    in_its_network(app, pod, f"iptables -I {rule}")
    app.ship("v2")
    app.wait_message(f"{app.namespace}/{pod}: no answer on port 15090 within 1 s")
    status = app.status()
    assert app.condition("Ready")["reason"] == "NoTraffic"
    assert "sidecars cannot be read, so their requests do not count" in metric(app, "unread-sidecars")["message"]
    assert (status["phase"], status["weight"]) == ("Waiting", 30)
    in_its_network(app, pod, f"iptables -D {rule}")
    app.wait_promoted("v2")


def in_its_network(app: App, pod: str, command: str) -> None:
    """Run a command in the pod's network, as the container does that sets up its capture."""
    body = app.pods("")[pod]
    capture = next(each for each in body["spec"]["initContainers"] if each.get("restartPolicy") != "Always")
    present = body["spec"].get("ephemeralContainers") or []
    name = f"look-{len(present)}"
    here = {"name": name, "command": ["sh", "-c", command]} | {
        key: capture[key] for key in ("image", "securityContext")
    }
    change = {"spec": {"ephemeralContainers": [*present, here]}}
    app.cluster.patch(kinds.POD, pod, app.namespace, change, subresource="ephemeralcontainers")

    def ended() -> Object:
        found = app.pods("")[pod]["status"].get("ephemeralContainerStatuses") or []
        return next((each["state"].get("terminated") or {} for each in found if each["name"] == name), {})

    done = eventually(ended, f"{command} has been run in {pod}", 30)
    assert done["exitCode"] == 0, done


@pytest.mark.long
@pytest.mark.acceptance(37)
def test_an_incident_that_both_versions_go_through_rolls_nothing_back(app: App) -> None:
    app.create(rate=100)
    app.adopt({"weight": 30}, analysis={"minRequests": 1_000_000})
    app.ship("v2")
    app.wait_weight(30)
    time.sleep(6)
    everyone = [*stable_pods(app), *candidates(app)]
    for pod in everyone:
        behave(app, pod, "error-rate", "0.5")
    began = time.monotonic()
    while time.monotonic() < began + 60:
        assert app.phase() in ("Analysing", "Waiting"), app.status()
        time.sleep(1)
    for pod in everyone:
        behave(app, pod, "error-rate", "0")
    time.sleep(4)
    found = metric(app, "success-rate")
    print(
        f"both failed: {found['bad']} of {found['requests']}, stable {found['stableBad']} of {found['stableRequests']}"
    )
    assert found["bad"] > 300
    assert found["stableBad"] > 300
    assert app.status()["run"]["verdict"] != "Harm"


@pytest.mark.long
@pytest.mark.acceptance(38)
def test_a_cold_candidate_is_given_time_and_an_outage_in_that_time_is_stopped(app: App) -> None:
    app.create(rate=100)
    body = {"warmUp": "90s", "minRequests": 1_000_000, "successRate": {"promise": {"ratio": 1.2, "points": 0.5}}}
    app.adopt({"weight": 20}, analysis=body)
    app.ship("v2", WARM_UP="70s", WARM_UP_ERROR_RATE="0.02", WARM_UP_LATENCY="50ms")
    app.wait_weight(20)
    began = time.monotonic()
    while time.monotonic() < began + 60:
        assert app.phase() in ("Analysing", "Waiting"), app.status()
        time.sleep(1)
    assert metric(app, "success-rate")["bad"] >= 5
    app.ship("v3", ERROR_RATE="1")
    eventually(lambda: app.phase() == "Failed", "the outage is stopped before the candidate is warm", 60)
    assert "success rate" in app.condition("Stalled")["message"]


@pytest.mark.acceptance(40)
def test_retries_that_rescue_the_candidate_hide_nothing_from_the_judgement(app: App) -> None:
    app.create(rate=100)
    app.cluster.apply(
        {
            "apiVersion": "serinus.dev/v1alpha1",
            "kind": "TrafficPolicy",
            "metadata": {"namespace": app.namespace, "name": "web"},
            "spec": {"targetRef": {"name": "web"}, "retries": {"attempts": 3, "retryOn": ["5xx"]}},
        }
    )
    app.adopt({"weight": 20, "for": "5m"})
    since = app.mark()
    app.ship("v2", ERROR_RATE="0.5")
    app.wait_phase("Failed")
    report = app.report(since)
    tries, failures = evidence(app)
    print(f"callers saw {report['bad_answers']} of {report['total']} bad; the evidence {failures} of {tries} tries")
    assert failures > 2 * report["bad_answers"]
    assert failures / tries > 0.3


@pytest.mark.acceptance(41)
def test_every_odd_answer_to_a_users_query_has_a_name_and_is_no_verdict(app: App) -> None:
    app.create(rate=100)
    source = prometheus.install(app)
    queries = {
        "fine": "sum(up)",
        "nothing": "no_such_metric",
        "not-a-number": "sum(up) * 0 / 0",
        "several": "prometheus_http_requests_total",
        "refused": "rate(up)",
    }
    wanted = {
        "fine": "Value",
        "nothing": "Empty",
        "not-a-number": "NaN",
        "several": "ManySeries",
        "refused": "QueryError",
    }
    app.adopt(
        {"weight": 50},
        analysis={
            "interval": "1s",
            "prometheus": source,
            "metrics": [{"name": name, "query": query, "min": 0} for name, query in queries.items()],
        },
    )
    app.ship("v2")
    app.wait_weight(50)
    eventually(lambda: {name: metric(app, name).get("outcome") for name in wanted} == wanted, str(wanted), 60)
    assert app.phase() in ("Analysing", "Waiting")
    eventually(lambda: app.condition("Ready")["reason"] == "MetricsUnavailable", "it says why it waits", 20)
    assert {metric(app, name)["verdict"] for name in wanted if name != "fine"} == {"Undecided"}


QUICK = {
    "profile": "Fast",
    "minRequests": 20,
    "warmUp": "6s",
    "successRate": {"maxDrop": 2},
    "latency": {"compare": False},
    "tuning": {"dwell": "4s", "last": "4s", "shortest": "10s", "reaction": "5s"},
}


@pytest.mark.long
def test_evidence_alone_raises_the_weight_and_a_watch_comes_before_the_promotion(app: App) -> None:
    app.create(rate=200)
    app.adopt(analysis=QUICK, strategy={"watch": {"for": "10s", "holdBack": 10}})
    watch, since = app.watch(), app.mark()
    app.ship("v2")
    app.wait_promoted("v2", 180)
    weights = watch.weights
    print(f"weights {weights}")
    assert weights[0] == 0
    assert weights[-3:] == [90, 100, 0]
    assert weights[-4] == 50
    assert weights[1] < 50
    assert "Watching" in watch.phases
    assert app.report(since)["failed_by_us"] == 0
    _recounted(app, "Promoted")


@pytest.mark.long
def test_an_adaptive_release_that_fails_in_its_watch_is_taken_back(app: App) -> None:
    app.create(rate=200)
    app.adopt(analysis=QUICK, strategy={"watch": {"for": "5m", "holdBack": 20}})
    since = app.mark()
    app.ship("v2")
    app.wait_phase("Watching", within_s=150)
    app.wait_weight(80)
    for pod in candidates(app):
        behave(app, pod, "error-rate", "0.3")
    app.wait_phase("Failed", within_s=60)
    report = app.report(since)
    print(f"bad answers in the watch: {report['bad_answers']}")
    assert report["failed_by_us"] == 0
    _recounted(app, "RolledBack")


def _recounted(app: App, verdict: str) -> None:
    """The run is in the history, and its verdict can be computed again from the scrapes."""
    run = app.status()["run"]["id"]
    explained = app.cluster.serinus("explain", "web", "-n", app.namespace).stdout
    assert "success-rate" in explained

    def recorded() -> bool:
        runs = json.loads(app.cluster.serinus("history", "web", "-n", app.namespace, "-o", "json").stdout)
        return any(entry.get("run", entry.get("id")) == run and verdict in json.dumps(entry) for entry in _runs(runs))

    eventually(recorded, f"{verdict} is in the history", 20, 1)
    replayed = app.cluster.serinus("replay", "web", run, "-n", app.namespace, check=False)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def _runs(found: object) -> Iterator[Object]:
    """Yield the runs in what ``history`` prints."""
    entries = found if isinstance(found, list) else found.get("runs", [])  # type: ignore[attr-defined]
    yield from entries


def test_the_command_explains_what_is_waited_for_while_a_run_goes_on(app: App, cluster: Cluster) -> None:
    app.create(rate=100)
    app.adopt({"weight": 20}, analysis={"minRequests": 1_000_000, **PLAIN})
    app.ship("v2")
    app.wait_weight(20)
    eventually(lambda: metric(app, "success-rate").get("needed") is not None, "it says how many are needed", 60)
    words = cluster.serinus("explain", "web", "-n", app.namespace).stdout
    print(words)
    assert "success-rate" in words
    assert "needed" in words
