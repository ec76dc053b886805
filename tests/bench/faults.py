"""How faults end, and whom an experiment's fault meets."""

import time

from driving import killed
from faulty import active, allow, groups, injected, last, last_seen, policy, sent, ship, shop, staged
from figures import Figure, application, at_most, many_callers
from harness import Cluster, eventually

SIDECARS, CALLS_PER_S = 10, 20
SWITCHES, KILLS = 10, 3
TTL_S = 8
"""How long a sidecar keeps a fault that nobody renews."""
ABORT = {"abort": {"httpStatus": 503}, "percentage": 100}


def faults(cluster: Cluster) -> list[Figure]:
    """The kill switch, the death of the operator, and the blast radius of an experiment."""
    return [_kill_switch(cluster), _death(cluster), _blast_radius(cluster)]


def _kill_switch(cluster: Cluster) -> Figure:
    """Time from the annotation until no caller meets the fault any more, again and again."""
    took_s: list[float] = []
    with application(cluster) as app:
        callers = many_callers(app, SIDECARS, CALLS_PER_S)
        for turn in range(SWITCHES):
            allow(app)
            cluster.apply(policy(app, **ABORT, ttl=f"{300 + turn}s"))
            eventually(lambda: active(app), "the fault is in force", 30)
            marks = [caller.mark() for caller in callers]
            for caller, mark in zip(callers, marks, strict=True):
                eventually(lambda caller=caller, mark=mark: last_seen(caller, mark), "the caller meets it", 20)  # type: ignore[misc]
            began = time.time()
            allow(app, "stopped")
            time.sleep(4)
            ends = (last_seen(caller, mark) for caller, mark in zip(callers, marks, strict=True))
            took_s.append(max(ends) - began)
    how = (
        f"{SIDECARS} meshed callers with {CALLS_PER_S} requests a second each, all of them answered 503; from before"
        f" `kubectl annotate` to the last such answer of any caller; {SWITCHES} times, the longest; all: "
        + ", ".join(f"{took:.2f}" for took in took_s)
    )
    return at_most("kill switch: annotation to no fault in any sidecar", max(took_s), "s", 2, how)


def _death(cluster: Cluster) -> Figure:
    """Time from the operator's death by force until the fault has ended by itself."""
    took_s: list[float] = []
    with application(cluster) as app:
        callers = many_callers(app, SIDECARS, CALLS_PER_S)
        allow(app)
        for turn in range(KILLS):
            cluster.apply(policy(app, **ABORT, ttl=f"{300 + turn}s"))
            eventually(lambda: active(app), "the fault is in force", 30)
            marks = [caller.mark() for caller in callers]
            for caller, mark in zip(callers, marks, strict=True):
                eventually(lambda caller=caller, mark=mark: last_seen(caller, mark), "the caller meets it", 20)  # type: ignore[misc]
            with killed(cluster):
                began = time.time()
                time.sleep(TTL_S + 8)
                ends = [last_seen(caller, mark) for caller, mark in zip(callers, marks, strict=True)]
            took_s.append(max(ends) - began)
    how = (
        "the same callers, a fault for five minutes; the operator's only pod is deleted with --force; from then to the"
        f" last 503 of any caller; {KILLS} times, the longest; all: " + ", ".join(f"{took:.2f}" for took in took_s)
    )
    return at_most("operator dead: to no fault in any sidecar", max(took_s), "s", TTL_S + 5, how)


def _blast_radius(cluster: Cluster) -> Figure:
    """Requests that met an experiment's fault though they were not sent by one of its two groups."""
    with application(cluster) as app:
        shop(app, fallback=True)
        app.rate(300)
        ship(app, fallback=True)
        eventually(lambda: injected(app), "the fault is injected", 120)
        most: dict[str, int] = {}
        arms: set[str] = set()
        while injected(app):
            arms |= groups(app)
            for pod, count in staged(app).items():
                most[pod] = max(count, most.get(pod, 0))
            time.sleep(0.5)
        every = sent(app)
        outside = sum(count for pod, count in most.items() if pod not in arms)
        inside = sum(count for pod, count in most.items() if pod in arms)
        sent_outside = sum(count for pod, count in every.items() if pod not in arms)
        verdict = eventually(lambda: last(app).get("verdict"), "a verdict", 60)
    how = (
        "an experiment that answers every call of its two groups with 503, under 300 requests a second;"
        f" {inside:,} calls of the groups went by way of the fault, and of the {sent_outside:,} requests of all other"
        f" pods so many; by the sidecars' own counters, read twice a second; its verdict: {verdict}"
    )
    return at_most("requests outside an experiment's groups that met its fault", outside, "requests", 0, how)
