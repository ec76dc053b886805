"""What every measurement has: a figure to give, and an application to measure."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness import App, Cluster


@dataclass(frozen=True)
class Figure:
    """One figure. ``value`` is None when it was not taken; ``how`` says how it was, or why it was not."""

    name: str
    value: float | None
    unit: str
    goal: str
    met: bool | None
    how: str


def at_most(name: str, value: float, unit: str, limit: float, how: str) -> Figure:
    """Return a figure whose goal is a limit."""
    return Figure(name, round(value, 3), unit, f"≤ {limit:g}", value <= limit, how)


@contextmanager
def application(cluster: Cluster) -> Iterator[App]:
    """An application of its own, gone afterwards."""
    app = App(cluster, f"b-{uuid.uuid4().hex[:8]}")
    try:
        yield app
    finally:
        app.close()


def many_callers(app: App, count: int, rate: int) -> list[App]:
    """Create the application with so many callers, each with so many requests a second; return a view of each."""
    app.create(rate=rate)
    app.cluster.kubectl("scale", "deployment/caller", "-n", app.namespace, f"--replicas={count}")
    app.cluster.kubectl("rollout", "status", "deployment/caller", "-n", app.namespace, "--timeout=120s", timeout_s=130)
    callers = [App(app.cluster, app.namespace) for _ in range(count)]
    for caller, pod in zip(callers, app.pods("app=caller"), strict=True):
        caller.calls_from(pod)
        caller.rate(rate)
    return callers
