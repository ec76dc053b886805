"""What the end-to-end tests stand on: a real cluster, an application in it, a meshed caller that counts, and patience.

Reads go through one client in a thread of its own, so that polling costs milliseconds; what a user would type goes
through kubectl.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog
import yaml

from serinus.kube import kinds
from serinus.kube.client import KubeClient
from serinus.kube.errors import Conflict, KubeError, NotFound, Transient
from serinus.kube.requests import Request

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SHOP = "localhost/serinus-shop:dev"
SYSTEM = "serinus-system"

Object = dict[str, Any]

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))  # not every write of the client


class Cluster:
    """The cluster that KUBECONFIG names."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cluster", daemon=True)
        self._thread.start()
        self._client: KubeClient = self._wait(KubeClient.connect())

    def close(self) -> None:
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def get(self, kind: kinds.Kind, name: str, namespace: str | None = None) -> Object | None:
        try:
            found: Object = self._wait(self._client.get(kind, name, namespace))
        except NotFound:
            return None
        return found

    def list(self, kind: kinds.Kind, namespace: str | None = None, labels: str = "") -> list[Object]:
        found: list[Object] = self._wait(self._client.list(kind, namespace, labels=labels))
        return found

    def patch(self, kind: kinds.Kind, name: str, namespace: str | None, change: Any, subresource: str = "") -> Object:
        found: Object = self._wait(self._client.patch(kind, name, namespace, change, subresource=subresource))
        return found

    def create_all(self, objects: Sequence[tuple[kinds.Kind, Object]]) -> None:
        """Create many objects at once, much faster than kubectl would."""

        gate = asyncio.Semaphore(16)

        async def create(kind: kinds.Kind, body: Object) -> None:
            async with gate:
                for _ in range(5):
                    try:
                        await self._client.create(kind, body)
                    except Transient:
                        await asyncio.sleep(1)
                    except Conflict:
                        return  # a try that got no answer has created it
                    else:
                        return
            raise AssertionError(f"{kind.name} {body['metadata']['name']} could not be created")

        async def every() -> None:
            await asyncio.gather(*(create(kind, body) for kind, body in objects))

        asyncio.run_coroutine_threadsafe(every(), self._loop).result(300)

    def raw(self, method: str, path: str, query: tuple[tuple[str, str], ...] = ()) -> Object:
        verb = "get" if method == "GET" else "create"
        found: Object = self._wait(self._client.perform(Request(verb, kinds.POD, method, path, query)))
        return found

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True, timeout_s: float = 60) -> str:
        """Run kubectl as a user would; returns what it prints, errors included when ``check`` is off."""
        done = subprocess.run(
            [str(BIN / "kubectl"), *args], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: Object) -> None:
        """``kubectl apply`` these."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def serinus(self, *args: str, check: bool = True, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the command as a user would."""
        done = subprocess.run(
            [str(BIN / "serinus"), *args], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"serinus {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done


T = TypeVar("T")


def eventually(look: Callable[[], T], what: str, within_s: float = 60, every_s: float = 0.2) -> T:
    """Look until something true is seen, and return it; what was seen last is told when time is over."""
    end = time.monotonic() + within_s
    seen: Any = None
    while time.monotonic() < end:
        try:
            seen = found = look()
        except KubeError as problem:
            seen = problem
        else:
            if found:
                return found
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s:g} s: {what}; seen last: {seen!r}")


@dataclass
class Watch:
    """Every different (phase, stage, weight) that a Canary's status went through, in order, from a real watch."""

    process: "subprocess.Popen[str]"
    reader: threading.Thread | None = None
    seen: list[Object] = field(default_factory=list)

    @property
    def weights(self) -> list[int]:
        """The weights, without repetitions."""
        found: list[int] = []
        for status in self.seen:
            weight = status.get("weight", 0)
            if not found or found[-1] != weight:
                found.append(weight)
        return found

    @property
    def phases(self) -> list[str]:
        found: list[str] = []
        for status in self.seen:
            phase = status.get("phase") or ""
            if phase and (not found or found[-1] != phase):
                found.append(phase)
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.reader:
            self.reader.join(10)
        if self.process.stdout:
            self.process.stdout.close()


SOON = {
    "minRequests": 20,
    "warmUp": "0s",
    "successRate": {"maxDrop": 1},
    "latency": {"compare": False},
}
"""What lets a good version pass in seconds, and a busy machine's latency be: one point of failures is tolerated."""


class App:
    """A namespace with Deployment and Service ``web``, and a meshed caller that keeps count of the answers."""

    def __init__(self, cluster: Cluster, namespace: str):
        self.cluster = cluster
        self.namespace = namespace
        self._caller = ""
        self._behind = False
        self._watches: list[Watch] = []

    # -- setting up

    def create(
        self,
        *,
        replicas: int = 2,
        rate: int = 50,
        caller: bool = True,
        patience: str = "5s",
        behind: tuple[str, ...] = (),
        **env: str,
    ) -> None:
        """Create namespace, Deployment, Service and caller, and wait until they serve.

        The caller gives a request up after its ``patience``. With ``behind``, ``web`` calls a service of that name,
        which is there as well.
        """
        self._behind = bool(behind)
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {"serinus.dev/inject": "enabled"}},
        }
        objects = [body for name in behind for body in (self.deployment("v1", name=name), self.service(name))]
        objects += [self.deployment("v1", replicas=replicas, **env), self.service()]
        objects += [self.caller(0, patience)] if caller else []
        self.cluster.apply(namespace, *objects)
        self.cluster.kubectl("rollout", "status", "deployment", "-n", self.namespace, "--timeout=120s", timeout_s=130)
        if caller:  # only now: what failed before there were pods would be remembered as stable's own failures
            self.rate(rate)
            eventually(lambda: self.report()["total"] > 10, "the caller gets answers", 60)

    def deployment(self, version: str, *, replicas: int = 2, name: str = "web", **env: str) -> Object:
        container = {
            "name": "app",
            "image": SHOP,
            "imagePullPolicy": "IfNotPresent",
            "args": ["serve", "--role", "cart" if self._behind and name == "web" else "stock"],
            "env": [{"name": "VERSION", "value": version}]
            + [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
            + [{"name": key, "value": value} for key, value in sorted(env.items())],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {
                "httpGet": {"path": "/healthz", "port": "http"},
                "periodSeconds": 1,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
            },
            "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"namespace": self.namespace, "name": name, "labels": {"app": name}},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {
                        "labels": {"app": name},
                        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
                    },
                    "spec": {"terminationGracePeriodSeconds": 10, "containers": [container]},
                },
            },
        }

    def service(self, name: str = "web") -> Object:
        port = {"name": "http", "appProtocol": "http", "port": 80, "targetPort": "http"}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": self.namespace, "name": name},
            "spec": {"selector": {"app": name}, "ports": [port]},
        }

    def caller(self, rate: int, patience: str = "5s", url: str = "http://web/") -> Object:
        container = {
            "name": "load",
            "image": SHOP,
            "imagePullPolicy": "IfNotPresent",
            "args": ["load", "--url", url, "--rate", str(rate), "--timeout", patience, "--duration", "1h"],
            "ports": [{"name": "report", "containerPort": 9100}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "report"}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"namespace": self.namespace, "name": "caller"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "caller"}},
                "template": {
                    "metadata": {"labels": {"app": "caller"}},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
                },
            },
        }

    def adopt(self, *steps: Object, within_s: float = 30, **spec: Any) -> None:
        """Create the Canary ``web`` and wait until it is Ready."""
        self.canary(*steps, **spec)
        eventually(self.ready, "the Canary is Ready", within_s)

    def canary(self, *steps: Object, **spec: Any) -> None:
        """Apply the Canary ``web``."""
        analysis = {**SOON, **spec.pop("analysis", {})}
        body = {
            "apiVersion": "serinus.dev/v1alpha1",
            "kind": "Canary",
            "metadata": {"namespace": self.namespace, "name": "web"},
            "spec": {
                "targetRef": {"name": "web"},
                "strategy": {"steps": list(steps) or [{"weight": 20, "for": "3s"}, {"weight": 50, "for": "3s"}]},
                "analysis": analysis,
                **spec,
            },
        }
        self.cluster.apply(body)

    def ship(self, version: str, **env: str) -> None:
        """Apply another version of the Deployment, as GitOps would: the whole manifest."""
        present = self.cluster.get(kinds.DEPLOYMENT, "web", self.namespace)
        replicas = present["spec"]["replicas"] if present else 2
        self.cluster.apply(self.deployment(version, replicas=replicas, **env))

    # -- looking

    def status(self) -> Object:
        found = self.cluster.get(kinds.CANARY, "web", self.namespace)
        return (found or {}).get("status") or {}

    def condition(self, kind: str) -> Object:
        return next((c for c in self.status().get("conditions") or [] if c["type"] == kind), {})

    def ready(self) -> bool:
        return self.condition("Ready").get("status") == "True"

    def phase(self) -> str:
        return str(self.status().get("phase") or "")

    def wait_phase(self, *phases: str, within_s: float = 90) -> Object:
        """Wait until the phase is one of these; return the status."""
        with self._status_noted():
            eventually(lambda: self.phase() in phases, f"phase {' or '.join(phases)} ({self.namespace})", within_s)
        return self.status()

    def wait_message(self, words: str, within_s: float = 90) -> None:
        """Wait until the status says so."""
        with self._status_noted():
            eventually(lambda: words in self.status().get("message", ""), f"the status says: {words}", within_s)

    @contextmanager
    def _status_noted(self) -> Iterator[None]:
        """Let an assertion that fails say how the status was."""
        try:
            yield
        except AssertionError as late:
            late.add_note(f"the status: {json.dumps(self.status())}")
            raise

    def wait_weight(self, weight: int, within_s: float = 60) -> None:
        """Wait until a step's weight is acknowledged and judged."""

        def there() -> bool:
            run = self.status().get("run") or {}
            return run.get("weight") == weight and bool(run.get("acknowledgedAt"))

        eventually(there, f"weight {weight} in force", within_s)

    def wait_promoted(self, version: str, within_s: float = 120) -> None:
        def there() -> bool:
            target = self.cluster.get(kinds.DEPLOYMENT, "web", self.namespace) or {}
            env = target["spec"]["template"]["spec"]["containers"][0]["env"]
            shown = next(entry["value"] for entry in env if entry["name"] == "VERSION")
            return shown == version and not target["spec"].get("paused") and self.ready()

        eventually(there, f"{version} is promoted ({self.namespace})", within_s)

    def pods(self, labels: str = "app=web") -> dict[str, Object]:
        """Pods that are not about to end, by name."""
        return {
            pod["metadata"]["name"]: pod
            for pod in self.cluster.list(kinds.POD, self.namespace, labels)
            if "deletionTimestamp" not in pod["metadata"]
        }

    def restarts(self, *, sidecars: bool = False) -> int:
        """How often containers of the application, or with ``sidecars`` any, were started again."""
        fields = ("containerStatuses", "initContainerStatuses") if sidecars else ("containerStatuses",)
        return sum(
            status["restartCount"]
            for pod in self.pods().values()
            for field in fields
            for status in pod["status"].get(field) or []
        )

    def events(self, reason: str = "") -> list[str]:
        found = self.cluster.kubectl(
            "get", "events", "-n", self.namespace, "-o", r'jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}'
        )
        return [line for line in found.splitlines() if line.startswith(reason)]

    def leftovers(self) -> list[str]:
        """Everything of ours that is left on or beside the application."""
        found = [
            f"{kind.name}/{body['metadata']['name']}"
            for kind in (kinds.REPLICA_SET, kinds.SERVICE)
            for body in self.cluster.list(kind, self.namespace, "serinus.dev/owned-by")
        ]
        found += [f"Pod/{name}" for name, pod in self.pods("serinus.dev/track").items() if pod]
        return found

    def watch(self) -> Watch:
        """Begin to take down what the Canary goes through."""
        process = subprocess.Popen(
            [str(BIN / "kubectl"), "get", "canary", "web", "-n", self.namespace, "-w", "-o", "json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        watch = Watch(process)

        def read() -> None:
            lines: list[str] = []
            for line in process.stdout or ():
                lines.append(line)
                if line.rstrip() == "}":  # an object ends, as kubectl writes it
                    watch.seen.append(json.loads("".join(lines)).get("status") or {})
                    lines = []

        watch.reader = threading.Thread(target=read, name="watch", daemon=True)
        watch.reader.start()
        self._watches.append(watch)
        eventually(lambda: watch.seen, "the watch begins", 20)
        return watch

    # -- the caller

    def _proxy(self, method: str, path: str, query: tuple[tuple[str, str], ...] = ()) -> Object:
        if not self._caller:
            self._caller = eventually(lambda: next(iter(self.pods("app=caller")), ""), "the caller's pod", 60)
        base = f"/api/v1/namespaces/{self.namespace}/pods/{self._caller}:9100/proxy"
        return self.cluster.raw(method, base + path, query)

    def calls_from(self, pod: str) -> None:
        """Look at another caller than the one that ``create`` made."""
        self._caller = pod

    def mark(self) -> str:
        """Return a moment from which reports can be asked for."""
        return repr(self._proxy("POST", "/mark")["since"])

    def rate(self, value: int) -> None:
        self._proxy("POST", "/rate", (("value", str(value)),))

    def report(self, since: str = "") -> Object:
        """What the caller saw since a mark."""
        raw = self._proxy("GET", "/report", (("since", since),) if since else ())
        raw["total"] = raw.get("requests", raw.get("sent", 0))
        return raw

    def close(self) -> None:
        for watch in self._watches:
            watch.stop()
        self.cluster.kubectl(
            "delete", "canary", "--all", "-n", self.namespace, "--timeout=30s", check=False, timeout_s=40
        )
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)
