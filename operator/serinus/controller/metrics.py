"""Our own metrics, for whoever runs Serinus. What is measured of releases by their traffic is elsewhere."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serinus.controller.workqueue import Key

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
RESULTS = ("success", "conflict", "transient", "error", "deadline")
"""Every outcome of a reconcile, see ``serinus.controller.workqueue``."""


class Metrics:
    """One registry with everything in it. ``api_request`` is a ``MetricsHook`` and ``reconciled`` an ``Observer``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        self.reconcile_total = Counter(
            "serinus_reconcile_total", "Reconciles, by outcome", ["result"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            "serinus_reconcile_seconds",
            "How long one reconcile took",
            registry=registry,
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.queue_depth = Gauge("serinus_queue_depth", "Keys that are due and wait for a worker", registry=registry)
        self.loop_lag_seconds = Gauge(
            "serinus_loop_lag_seconds",
            "By how much the event loop was late, at its worst in the last minute",
            registry=registry,
        )
        self.canary_phase = Gauge(
            "serinus_canary_phase",
            "1 for the phase that the Canary is in",
            ["namespace", "name", "phase"],
            registry=registry,
        )
        self.canary_weight_percent = Gauge(
            "serinus_canary_weight_percent",
            "The candidate's share of the requests",
            ["namespace", "name"],
            registry=registry,
        )
        self.faults_active = Gauge("serinus_faults_active", "Faults that are in force", registry=registry)
        self.ads_proxies = Gauge("serinus_ads_proxies", "Sidecars that are connected", registry=registry)
        self.ads_pushes_total = Counter(
            "serinus_ads_pushes_total", "Configurations sent to sidecars", registry=registry
        )
        self.api_requests_total = Counter(
            "serinus_api_requests_total",
            "Requests to the API server, by outcome",
            ["verb", "kind", "outcome"],
            registry=registry,
        )
        self.leader = Gauge("serinus_leader", "1 while this process leads", registry=registry)
        self._phases: dict[tuple[str, str], str] = {}
        for result in RESULTS:
            self.reconcile_total.labels(result)

    def api_request(self, verb: str, kind: str, outcome: str) -> None:
        """Count one request to the API server."""
        self.api_requests_total.labels(verb, kind, outcome).inc()

    def reconciled(self, _: Key, result: str, seconds: float) -> None:
        """Count one reconcile."""
        self.reconcile_total.labels(result).inc()
        self.reconcile_seconds.observe(seconds)

    def canary(self, namespace: str, name: str, phase: str, weight_pct: float) -> None:
        """Show how one Canary stands, in place of how it stood before."""
        before = self._phases.get((namespace, name))
        if before is not None and before != phase:
            self.canary_phase.remove(namespace, name, before)
        self._phases[namespace, name] = phase
        self.canary_phase.labels(namespace, name, phase).set(1)
        self.canary_weight_percent.labels(namespace, name).set(weight_pct)

    def forget(self, namespace: str, name: str) -> None:
        """Drop every series of a Canary that is gone."""
        phase = self._phases.pop((namespace, name), None)
        if phase is not None:
            self.canary_phase.remove(namespace, name, phase)
            self.canary_weight_percent.remove(namespace, name)

    def rendered(self) -> bytes:
        """Return everything in Prometheus' text format, ``CONTENT_TYPE``."""
        return generate_latest(self.registry)
