"""Faults on purpose: policies and experiments that make them, and who was seen to meet them."""

import contextlib
from typing import Any

from harness import App, Object

from serinus.kube import kinds
from serinus.kube.errors import KubeError

FAULTS = "serinus.dev/faults"


def policy(app: App, **fault: Any) -> Object:
    return {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"namespace": app.namespace, "name": "web"},
        "spec": {"targetRef": {"name": "web"}, "fault": {"percentage": 20, "ttl": "5m"} | fault},
    }


def allow(app: App, value: str = "allowed") -> None:
    app.cluster.kubectl("annotate", "namespace", app.namespace, f"{FAULTS}={value}", "--overwrite")


def state(app: App) -> Object:
    body = app.cluster.get(kinds.TRAFFIC_POLICY, "web", app.namespace) or {}
    status = body.get("status") or {}
    current = status.get("observedGeneration") == body.get("metadata", {}).get("generation")
    found: Object = (status.get("fault") or {}) if current else {}
    return found


def active(app: App) -> bool:
    fault = state(app)
    return bool(fault.get("state") == "Active" and fault.get("proxies"))


def seen(app: App, since: str = "") -> int:
    """How many answers 503 the caller saw; the application gives none."""
    return sum(total["count"] for total in app.report(since)["totals"] if total["outcome"] == "503")


def last_seen(app: App, since: str) -> float:
    """When the caller saw the last one, in seconds since 1970; 0 for none."""
    report = app.report(since)
    return max((version.get("last_bad_at") or 0.0 for version in report["versions"].values()), default=0.0)


# -- experiments

STEPS = ({"weight": 40, "for": "2s"}, {"fault": "stock-fails"}, {"weight": 60})


def experiment(**fields: Any) -> Object:
    common = {"name": "stock-fails", "to": "stock", "share": 10, "duration": "3m", "recovery": "10s", "percentage": 100}
    return {**common, "abort": {"httpStatus": 503}} | fields


def shop(app: App, *, fallback: bool = True, **fields: Any) -> None:
    """``web`` calls ``stock``, and does without it, or not; the Canary lets that fail for ten requests a second."""
    app.create(rate=100, behind=("stock",), STOCK_URL="http://stock", FALLBACK=str(fallback).lower())
    allow(app)
    app.adopt(*STEPS, faults=[experiment(**fields)])


def ship(app: App, *, fallback: bool) -> None:
    app.ship("v2", STOCK_URL="http://stock", FALLBACK=str(fallback).lower())


def last(app: App) -> Object:
    found: list[Object] = (app.status().get("run") or {}).get("experiments") or [{}]
    return found[-1]


def injected(app: App) -> bool:
    return (app.status().get("run") or {}).get("stage") == "Inject" and bool(last(app).get("beganAt"))


def staged(app: App) -> dict[str, int]:
    """How many calls every sidecar has sent by way of a stage, by pod."""
    return _summed(app, (("format", "json"), ("filter", "^http[.]stage[.]downstream_rq_total$")))


def groups(app: App) -> set[str]:
    """The pods of the two groups of the run's experiment."""
    judged = (app.status().get("run") or {}).get("podHash", "")
    return {name for name, body in app.pods("").items() if _hash(body) in (f"{judged}cf", f"{judged}sf")}


def _hash(pod: Object) -> str:
    return (pod["metadata"].get("labels") or {}).get("pod-template-hash") or ""


def sent(app: App) -> dict[str, int]:
    """How many requests every sidecar has sent to Services, by pod."""
    query = (("format", "json"), ("filter", "^cluster[.][^.]+[|][^.]+[.]upstream_rq_total$"))
    return _summed(app, query)


def _summed(app: App, query: tuple[tuple[str, str], ...]) -> dict[str, int]:
    """Return the sum of the counters that a sidecar's statistics have by this query, by pod."""
    found = {}
    for pod, body in app.pods("").items():
        if "serinus.dev/injected" not in (body["metadata"].get("annotations") or {}):
            continue
        base = f"/api/v1/namespaces/{app.namespace}/pods/{pod}:15090/proxy/stats"
        with contextlib.suppress(KubeError):  # it has just ended
            stats = app.cluster.raw("GET", base, query)["stats"]
            found[pod] = sum(int(each["value"]) for each in stats if "value" in each)
    return found
