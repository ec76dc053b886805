"""``make bench``: measure every figure that we promise, on the cluster of KUBECONFIG, and write ``build/bench.json``.

Nothing is asserted here. A figure that misses its goal, or could not be taken, is written down as such.
``run.py weights idle`` takes only these. What only a person with a clock can take is read from the environment.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

import yaml
from driving import (
    Fleet,
    Killer,
    candidates,
    changes,
    command,
    crash_candidate,
    manage,
    operator_metrics,
    restart_rolling,
    sweep_weights,
    wait_operator,
)
from faults import faults
from figures import Figure, application, at_most, many_callers
from harness import ROOT, App, Cluster, Watch, eventually
from rich.console import Console
from rich.table import Table
from ticks import in_words, tick_ms

from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.simulation.release import simulate
from serinus.simulation.traffic import load_traffic

BY_HAND = {"minRequests": 1_000_000}
SIDECARS, CALLS_PER_S = 10, 40
SETTLE_S = 20
"""Eleven pods that have just started keep two cores busy for a while; what is measured is a weight, not their start."""
DECISIONS = 20
CANARIES, IDLE_S = 1000, 60
BAD_RUNS = 5
ACTIVE = 100


def failed(app: App, since: str) -> tuple[int, str]:
    """Return how many requests failed by us since a mark, and of how many, in words."""
    report = app.report(since)
    late = f", {report['not_sent']:,} that were due could not be sent in time" if report["not_sent"] else ""
    return report["failed_by_us"], f"{report['requests']:,} requests{late}"


# -- weights in the data path


def weights_in_force(cluster: Cluster) -> list[Figure]:
    """Time from the decision until every sidecar was seen to follow it: 0 → 100 → 0 %, again and again."""
    lags_ms: list[float] = []
    with application(cluster) as app:
        callers = many_callers(app, SIDECARS, CALLS_PER_S)
        app.adopt({"weight": 100}, analysis=BY_HAND)
        watch = app.watch()
        time.sleep(SETTLE_S)
        for turn in range(DECISIONS // 2):
            marks = [caller.mark() for caller in callers]
            app.ship("v2") if turn == 0 else command(app, "retry")
            app.wait_weight(100)
            time.sleep(1)
            lags_ms += _lags_ms(watch, "Analysing", callers, marks, "v2")
            marks = [caller.mark() for caller in callers]
            command(app, "abort")
            app.wait_phase("Failed")
            time.sleep(1)
            lags_ms += _lags_ms(watch, "RollingBack", callers, marks, "v1")
    lags_ms.sort()
    p99 = lags_ms[min(len(lags_ms) - 1, int(0.99 * len(lags_ms)))]
    how = (
        f"{SIDECARS} meshed callers with {CALLS_PER_S} requests a second each, for {SETTLE_S} s before; "
        f"{len(lags_ms) // SIDECARS} decisions (0 → 100 % and 100 → 0 %); from the time in the "
        "status that orders the weight, taken before it is written, to "
        f"each caller's first answer by the new weight, so up to {1000 / CALLS_PER_S:.0f} ms of it are waiting for a "
        f"request; {len(lags_ms)} lags, median {statistics.median(lags_ms):.0f} ms, longest {lags_ms[-1]:.0f} ms"
    )
    return [at_most("weight decision to data path of 10 sidecars, p99", p99, "ms", 100, how)]


def _lags_ms(watch: Watch, phase: str, callers: list[App], marks: list[str], version: str) -> list[float]:
    """Return, for each caller, the time from the last order of a weight to the first answer of a version since."""
    ordered = [s["run"] for s in watch.seen if s.get("phase") == phase and s["run"].get("stage") == "Shift"]
    decided_at = datetime.fromisoformat(ordered[-1]["stageSince"]).timestamp()
    return [
        1000 * (_first_answer(caller, mark, version)["first_at"] - decided_at)
        for caller, mark in zip(callers, marks, strict=True)
    ]


def _first_answer(caller: App, mark: str, version: str) -> dict[str, Any]:
    """Wait until a caller has had an answer of a version since a mark; return what it reports of the version."""
    return eventually(lambda: caller.report(mark)["versions"].get(version), f"an answer of {version}", 10)


# -- bad releases, and good ones


def bad_candidate(cluster: Cluster) -> list[Figure]:
    """How long callers see a candidate that fails every request; the longest of several runs."""
    seen_s, answers = [], []
    with application(cluster) as app:
        app.create(rate=200)
        app.adopt({"weight": 10, "for": "10m"})
        for turn in range(BAD_RUNS):
            since = app.mark()
            app.ship("v2", ERROR_RATE="1") if turn == 0 else command(app, "retry")
            eventually(lambda since=since: app.report(since)["versions"].get("v2"), "a bad answer", 60)  # type: ignore[misc]
            app.wait_phase("Failed")
            time.sleep(2)
            bad = app.report(since)["versions"]["v2"]
            seen_s.append(bad["last_bad_at"] - bad["first_bad_at"])
            answers.append(bad["bad_answers"])
    how = (
        f"10 % of 200 requests a second, every answer of the candidate is a 500; {BAD_RUNS} runs, the longest; all: "
        + ", ".join(f"{took:.2f} s with {count} bad answers" for took, count in zip(seen_s, answers, strict=True))
    )
    return [at_most("bad candidate: first to last bad answer", max(seen_s), "s", 6, how)]


LIVE_RUNS, SIMULATED, LIVE_RATE = 5, 60, 100
OUTAGE = {
    "requests": {"perSecond": LIVE_RATE},
    "errors": {"percent": 0},
    "latency": {"median": "2ms", "sigma": 0.5},
    "pods": {"stable": 2, "candidate": 2},
    "defects": [{"outage": True}],
}
DEFAULTS = {"minRequests": 50, "warmUp": "3m", "successRate": {}, "latency": {}}


def live_and_simulated(cluster: Cluster) -> list[Figure]:
    """An outage under the default Canary: bad answers of five live runs, and the simulator's 90 % band."""
    spec = parse_live(CanarySpec, {"targetRef": {"name": "web"}})
    model = load_traffic(yaml.safe_dump(OUTAGE))
    bad = sorted(simulate(spec, model, seed, horizon_s=300).bad_responses for seed in range(SIMULATED))
    low, high = bad[int(0.05 * SIMULATED)], bad[int(0.95 * SIMULATED) - 1]
    live: list[int] = []
    with application(cluster) as app:
        app.create(rate=LIVE_RATE)
        app.adopt(analysis=DEFAULTS, strategy={"adaptive": {}})
        for turn in range(LIVE_RUNS):
            since = app.mark()
            app.ship("v2", ERROR_RATE="1") if turn == 0 else command(app, "retry")
            app.wait_phase("Preparing", "Analysing")
            app.wait_phase("Failed")
            time.sleep(1)
            live.append(app.report(since)["versions"]["v2"]["bad_answers"])
    inside = sum(low <= number <= high for number in live)
    how = (
        f"a candidate that fails every request, at {LIVE_RATE} a second, default Canary; bad answers {live}; "
        f"{SIMULATED} simulated releases: {low:.0f} to {high:.0f} (90 % band), median {statistics.median(bad):.0f}"
    )
    return [Figure("live outages within the simulator's 90 % band", inside, f"of {LIVE_RUNS}", "-", None, how)]


def adoption(cluster: Cluster) -> list[Figure]:
    """How long a promotion by adoption takes from its decision, and what restarts."""
    with application(cluster) as app:
        app.create(replicas=3, rate=100)
        app.adopt({"weight": 50, "for": "1s"})
        watch, since = app.watch(), app.mark()
        app.ship("v2")
        app.wait_promoted("v2")
        promoting = [s["run"] for s in watch.seen if s.get("phase") == "Promoting"]
        ready = next(c["lastTransitionTime"] for c in app.status()["conditions"] if c["type"] == "Ready")
        whole_s, handed_s = (
            (datetime.fromisoformat(ready) - datetime.fromisoformat(run["stageSince"])).total_seconds()
            for run in (promoting[0], next(run for run in promoting if run["stage"] == "Open"))
        )
        restarts, native = app.restarts(sidecars=True), app.status()["run"]["native"]
        lost, of = failed(app, since)
    how = (
        "from phase Promoting to Ready=True, by the status' own times; at 50 % the candidate had 2 of 3 pods, so the "
        f"start of the third is in it: from the opened gates on, with all pods there, it took {handed_s:.2f} s; {lost} "
        f"of {of} failed"
    )
    assert not native, "the promotion was a rolling update, so it is not what was to be measured"
    return [
        Figure("promotion by adoption: decision to Ready=True", round(whole_s, 2), "s", "-", None, how),
        at_most("promotion by adoption: containers restarted", restarts, "restarts", 0, "3 pods with their sidecars"),
    ]


# -- requests that must not fail


def weight_changes(cluster: Cluster) -> list[Figure]:
    """Requests that fail while weights move."""
    with application(cluster) as app:
        app.create(rate=500)
        app.adopt(*({"weight": weight} for weight in range(1, 51)), analysis=BY_HAND)
        watch, since = app.watch(), app.mark()
        app.ship("v2")
        sweep_weights(app, watch, steps=50, climbs=4)
        app.wait_promoted("v2")
        lost, of = failed(app, since)
    how = f"{changes(watch)} changes, a promotion among them, at 500 requests a second: {of}"
    return [at_most("200 weight changes: failed requests", lost, "requests", 0, how)]


def rolling_restarts(cluster: Cluster) -> list[Figure]:
    """Requests that fail while pods come and go."""
    figures = []
    for how in ("now", "drain"):
        with application(cluster) as app:
            app.create(rate=150, EXIT_ON_TERM=how)
            manage(app)
            since = app.mark()
            restart_rolling([app], times=5)
            lost, of = failed(app, since)
        ends = "exit at once" if how == "now" else "drain"
        told = f"a Deployment of 2 under 150 requests a second, apps that {ends} on SIGTERM: {of}"
        figures.append(at_most(f"5 rolling restarts, apps that {ends}: failed requests", lost, "requests", 0, told))
    return figures


def crashes(cluster: Cluster) -> list[Figure]:
    """Requests that fail while the candidate crashes."""
    killer = Killer(cluster)
    try:
        with application(cluster) as app:
            app.create(rate=200)
            app.adopt({"weight": 50}, analysis={**BY_HAND, "successRate": {"min": 0, "maxDrop": 100}})
            app.ship("v2")
            app.wait_weight(50)
            pods, since = len(candidates(app)), app.mark()
            died = crash_candidate(app, killer)
            lost, of = failed(app, since)
    finally:
        killer.close()
    how = f"all {pods} pods of the candidate, app and sidecar in turn, {died} containers died, 200 GETs a second: {of}"
    return [at_most("4 crashes of the candidate at 50 %: failed requests", lost, "requests", 0, how)]


# -- the operator at rest


def idle_operator(cluster: Cluster) -> list[Figure]:
    """What the operator costs when nothing happens."""
    fleet = Fleet(cluster, CANARIES, replicas=0)
    try:
        cluster.kubectl("rollout", "restart", "deployment/serinus", "-n", "serinus-system")
        wait_operator(cluster)
        time.sleep(30)
        before, began = operator_metrics(cluster), time.monotonic()
        time.sleep(IDLE_S)
        after, took_s = operator_metrics(cluster), time.monotonic() - began
    finally:
        fleet.close()
    core = 100 * (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / took_s
    what = f"{CANARIES} idle Canaries, each with a Deployment of 0 replicas and a Service"
    how = f"{what}; over {took_s:.0f} s, half a minute after a restart"
    return [
        at_most(
            "idle operator: memory",
            after["process_resident_memory_bytes"] / 2**20,
            "MiB RSS",
            150,
            f"{how}, at its end",
        ),
        at_most("idle operator: CPU", core, "% of a core", 2, how),
        at_most(
            "idle operator: writes",
            _writes(after) - _writes(before),
            "writes",
            0,
            f"{how}; the renewals of its Lease are left out",
        ),
    ]


def _writes(metrics: dict[str, float]) -> float:
    """Return the writes so far, by the operator's own counter of its requests, but for those of its Lease."""
    total = 0.0
    for name, value in metrics.items():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', name)) if name.startswith("serinus_api_requests_total{") else {}
        if labels and labels["verb"] not in ("get", "list") and labels["kind"] != "Lease":
            total += value
    return total


# -- how long things take


def one_tick(_: Cluster) -> list[Figure]:
    """What one look at 100 active Canaries costs."""
    took_ms = tick_ms(ACTIVE)
    how = (
        f"{ACTIVE} Canaries, each with success rate, latency at five edges and a user's counts, which come every tenth "
        f"second; the judge's time on one core, state read and written, over {len(took_ms)} ticks: {in_words(took_ms)}"
    )
    return [at_most("one tick of 100 active Canaries, mean", statistics.fmean(took_ms), "ms", 100, how)]


def unit_tests(_: Cluster) -> list[Figure]:
    """How long the unit tests take, two at a time, as ``make unit`` runs them."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/unit"], cwd=ROOT, capture_output=True, text=True
    )
    took_s = time.monotonic() - began
    told = (done.stdout.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return [at_most("unit tests", took_s, "s", 60, told)]


def by_hand() -> list[Figure]:
    """Return the figures that somebody took with a clock, from the environment."""
    figures = []
    for variable, name, limit_min in (
        ("SERINUS_TEST_WARM_S", "make test, warm cache", 20),
        ("SERINUS_TEST_COLD_S", "make test, cold cache", 40),
        ("SERINUS_DEMO_WARM_S", "make demo, warm cache", 4),
        ("SERINUS_DEMO_COLD_S", "make demo, cold cache", 20),
    ):
        if variable in os.environ:
            minutes = float(os.environ[variable]) / 60
            figures.append(at_most(name, minutes, "min", limit_min, f"by hand, given in {variable}"))
        else:
            figures.append(Figure(name, None, "min", f"≤ {limit_min}", None, f"not taken; give seconds in {variable}"))
    return figures


BENCHES: dict[str, Callable[[Cluster], list[Figure]]] = {
    "weights": weights_in_force,
    "bad": bad_candidate,
    "live": live_and_simulated,
    "adoption": adoption,
    "changes": weight_changes,
    "restarts": rolling_restarts,
    "crashes": crashes,
    "faults": faults,
    "idle": idle_operator,
    "tick": one_tick,
    "unit": unit_tests,
}


def main(chosen: list[str]) -> int:
    """Take the figures, print them and write them; 1 when one of them missed its goal or could not be taken."""
    console = Console(soft_wrap=True)
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown or "KUBECONFIG" not in os.environ:
        wanted = f"write any of {', '.join(BENCHES)}" if unknown else "set KUBECONFIG to a cluster with Serinus"
        console.print(f"Nothing to measure: {wanted}.")
        return 2
    cluster, figures, broken = Cluster(), [], False
    for name in chosen or BENCHES:
        began = time.monotonic()
        try:
            taken = BENCHES[name](cluster)
        except Exception as problem:  # noqa: BLE001 - the others can be taken all the same
            broken, taken = True, [Figure(name, None, "", "", False, f"could not be taken: {problem}")]
        for figure in taken:
            console.print(
                f"{figure.name}: {figure.value} {figure.unit} (goal {figure.goal}); {figure.how}", markup=False
            )
        console.print(f"  {name} took {time.monotonic() - began:.0f} s", style="dim", markup=False)
        figures += taken
    figures += by_hand()
    cluster.close()
    report = ROOT / "build" / "bench.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps([asdict(figure) for figure in figures], indent=2, ensure_ascii=False) + "\n")
    show(console, figures)
    console.print(f"Written to {report.relative_to(ROOT)}.")
    return 1 if broken or any(figure.met is False for figure in figures) else 0


def show(console: Console, figures: list[Figure]) -> None:
    """Print the figures as a table."""
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("figure", "value", "unit", "goal", "met"):
        table.add_column(heading)
    for figure in figures:
        met = {None: "-", True: "yes", False: "NO"}[figure.met]
        table.add_row(figure.name, "-" if figure.value is None else f"{figure.value:g}", figure.unit, figure.goal, met)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
