"""What end-to-end tests and the benchmark do to releases, sidecars and the operator: each thing once."""

import contextlib
import copy
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness import SHOP, SYSTEM, App, Cluster, Object, Watch, eventually

from serinus.api.commands import Command, Verb
from serinus.api.release import Phase
from serinus.kube import kinds
from serinus.kube.errors import KubeError

OPERATOR = "app.kubernetes.io/name=serinus"
PROXY_CONTAINER = "serinus-proxy"
STATS_PORT = 15090
ORDERLY = (0, 137, 143)
"""Exit codes of an operator that ended by itself, by SIGKILL and by SIGTERM."""

# -- releases


def command(app: App, verb: Verb, run: Object | None = None, *, full: bool = False) -> None:
    """Ask for something, as ``serinus`` does, without the second that its start takes."""
    asked = run or {}
    request = Command(
        uuid.uuid4().hex[:8], verb, run=asked.get("id", ""), step=asked.get("step", -1), full=full, by="test", at="now"
    )
    key, value = request.annotation()
    app.cluster.patch(kinds.CANARY, "web", app.namespace, {"metadata": {"annotations": {key: value}}})


def climb(app: App, watch: Watch, steps: int) -> None:
    """Pass every step but the last of ``steps`` by command, each as soon as all sidecars have its weight."""
    for step in range(steps):
        eventually(lambda step=step: _in_force(watch, step), f"step {step} in force ({app.namespace})", 60, 0.01)  # type: ignore[misc]
        if step < steps - 1:
            command(app, "promote", watch.seen[-1]["run"])


def _in_force(watch: Watch, step: int) -> bool:
    status = watch.seen[-1]
    run = status.get("run") or {}
    judged = status.get("phase") in (Phase.ANALYSING, Phase.WAITING) and run.get("stage") == "Judge"
    return bool(judged and run.get("step") == step and run.get("acknowledgedAt"))


def sweep_weights(app: App, watch: Watch, *, steps: int, climbs: int) -> None:
    """Raise the weight step by step, ``climbs`` times, with an abort after each but the last; then promote.

    The Canary must have ``steps`` steps that end by command only, and a run must be under way.
    """
    for turn in range(climbs):
        climb(app, watch, steps)
        if turn < climbs - 1:
            command(app, "abort")
            app.wait_phase("Failed")
            command(app, "retry")
    command(app, "promote", full=True)


def changes(watch: Watch) -> int:
    """Return how often the weight changed."""
    return len(watch.weights) - 1


def evidence(app: App) -> tuple[int, int]:
    """Return the candidate's tries and failed tries in this run, as its status has them."""
    book = (app.status().get("run") or {}).get("evidence") or {}
    return (book["total"][0][0], book["total"][0][1]) if book else (0, 0)


def stable_failures(app: App) -> int:
    """Return the stable version's failed tries in this run, as the status has them."""
    book = (app.status().get("run") or {}).get("evidence") or {}
    return int(book["total"][1][1]) if book else 0


def retries(app: App) -> int:
    """Return how many requests to ``web`` the caller's sidecar has tried again, by Envoy's own count."""
    caller = next(iter(app.pods("app=caller")))
    base = f"/api/v1/namespaces/{app.namespace}/pods/{caller}:{STATS_PORT}/proxy/stats"
    wanted = rf"^cluster[.]{app.namespace}[|]web[|]80[|](stable|candidate)[.]upstream_rq_retry$"
    answer = app.cluster.raw("GET", base, (("format", "json"), ("filter", wanted)))
    return sum(int(entry["value"]) for entry in answer["stats"] if "value" in entry)


def candidates(app: App) -> list[str]:
    """Return the names of the candidate's pods."""
    return sorted(app.pods("serinus.dev/track=candidate"))


def serving(app: App, pods: list[str]) -> bool:
    """Whether all containers of these pods are ready."""
    found = app.pods()
    conditions = [c for name in pods for c in found[name]["status"]["conditions"] if c["type"] == "ContainersReady"]
    return len(conditions) == len(pods) and all(c["status"] == "True" for c in conditions)


def crash_app(app: App, pod: str) -> None:
    """Let the application in a pod exit at once."""
    with contextlib.suppress(KubeError):  # nobody is left to answer
        app.cluster.raw("POST", f"/api/v1/namespaces/{app.namespace}/pods/{pod}:8080/proxy/crash")


def behave(app: App, pod: str, setting: str, value: str) -> None:
    """Change how the application in a pod behaves from now on."""
    with contextlib.suppress(KubeError):  # the answer is not JSON
        app.cluster.raw(
            "POST", f"/api/v1/namespaces/{app.namespace}/pods/{pod}:8080/proxy/behaviour", ((setting, value),)
        )


class Killer:
    """A pod that sees the node's processes, to kill one with SIGKILL as a crash would. It needs a single node."""

    FIND = (
        "import os, sys\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    try: words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\\0')\n"
        "    except OSError: continue\n"
        "    if words[0].endswith(b'envoy') and sys.argv[1].encode() in words: os.kill(int(pid), 9); print(pid)\n"
    )

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": "killer"},
            "spec": {
                "hostPID": True,
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "killer",
                        "image": "localhost/serinus-proxy:dev",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "3600"],
                        "securityContext": {"runAsUser": 0, "runAsNonRoot": False, "privileged": True},
                    }
                ],
            },
        }
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}, pod)
        cluster.kubectl("wait", "pod/killer", "-n", self.namespace, "--for=condition=Ready", "--timeout=60s")

    def kill_sidecar(self, app: App, pod: str) -> None:
        """Kill the sidecar of a pod."""
        place = f"{app.namespace}/{pod}"
        killed = self._cluster.kubectl(
            "exec", "killer", "-n", self.namespace, "--", "python3", "-c", self.FIND, place
        ).split()
        assert len(killed) == 1, f"the sidecar of {place} was not found, or several were: {killed}"

    def close(self) -> None:
        self._cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)


def crash_candidate(app: App, killer: Killer) -> int:
    """Crash all pods of the candidate four times: application, sidecar, application, sidecar. Returns how many died."""
    pods = candidates(app)
    before = app.restarts(sidecars=True)
    for turn in range(4):
        for pod in pods:
            if turn % 2:
                killer.kill_sidecar(app, pod)
            else:
                crash_app(app, pod)
        died = before + (turn + 1) * len(pods)
        eventually(lambda died=died: app.restarts(sidecars=True) >= died, "the crashed containers restart", 60)  # type: ignore[misc]
        eventually(lambda: serving(app, pods), "the candidate is ready again", 60)
        time.sleep(2)
    return app.restarts(sidecars=True) - before


def restart_rolling(apps: list[App], times: int) -> None:
    """Restart the Deployments ``web`` of these applications, ``times`` times, all at once."""
    for _ in range(times):
        for app in apps:
            app.cluster.kubectl("rollout", "restart", "deployment/web", "-n", app.namespace)
        for app in apps:
            app.cluster.kubectl(
                "rollout", "status", "deployment/web", "-n", app.namespace, "--timeout=90s", timeout_s=100
            )


def manage(app: App) -> None:
    """Let the mesh manage the Service ``web`` by a TrafficPolicy, without a Canary, so that nothing is held."""
    app.cluster.apply(
        {
            "apiVersion": "serinus.dev/v1alpha1",
            "kind": "TrafficPolicy",
            "metadata": {"namespace": app.namespace, "name": "web"},
            "spec": {"targetRef": {"name": "web"}, "timeout": "10s"},
        }
    )

    def in_force() -> bool:
        policy = app.cluster.get(kinds.TRAFFIC_POLICY, "web", app.namespace) or {}
        conditions = (policy.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    eventually(in_force, "the policy is in force", 30)


# -- the operator


def operator_pod(cluster: Cluster) -> str:
    """Return the name of the operator's pod that leads."""

    def leader() -> str:
        pods = cluster.list(kinds.POD, SYSTEM, f"{OPERATOR},serinus.dev/role=leader")
        alive = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return alive[0] if len(alive) == 1 else ""

    return eventually(leader, "one pod of the operator leads", 90)


def wait_operator(cluster: Cluster) -> None:
    """Wait until the operator is rolled out and leads."""
    cluster.kubectl("rollout", "status", "deployment/serinus", "-n", SYSTEM, "--timeout=120s", timeout_s=130)
    operator_pod(cluster)


@contextmanager
def away(cluster: Cluster) -> Iterator[None]:
    """Without an operator."""
    cluster.kubectl("scale", "deployment/serinus", "-n", SYSTEM, "--replicas=0")
    try:
        eventually(lambda: not cluster.list(kinds.POD, SYSTEM, OPERATOR), "the operator is gone", 60)
        yield
    finally:
        cluster.kubectl("scale", "deployment/serinus", "-n", SYSTEM, "--replicas=1")
        wait_operator(cluster)


@contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    """Without an operator: it dies at once, and has no time to put anything in order."""
    pod = operator_pod(cluster)
    cluster.kubectl("scale", "deployment/serinus", "-n", SYSTEM, "--replicas=0")
    cluster.kubectl("delete", "pod", pod, "-n", SYSTEM, "--grace-period=0", "--force", check=False)
    try:
        yield
    finally:
        cluster.kubectl("scale", "deployment/serinus", "-n", SYSTEM, "--replicas=1")
        wait_operator(cluster)


@contextmanager
def operator_with(cluster: Cluster, change: Callable[[Object], None]) -> Iterator[None]:
    """With an operator whose container is changed, for which the installed one makes room; and back again."""
    found = cluster.get(kinds.DEPLOYMENT, "serinus", SYSTEM)
    assert found, "Serinus is not installed"
    template = found["spec"]["template"]
    changed = copy.deepcopy(template)
    change(changed["spec"]["containers"][0])
    try:
        _replace_template(cluster, changed)
        yield
    finally:
        _replace_template(cluster, template)


def _replace_template(cluster: Cluster, template: Object) -> None:
    cluster.patch(kinds.DEPLOYMENT, "serinus", SYSTEM, [{"op": "replace", "path": "/spec/template", "value": template}])
    wait_operator(cluster)


def in_operator(cluster: Cluster, *words: str, check: bool = True) -> str:
    """Run a command in the operator's container."""
    return cluster.kubectl("exec", operator_pod(cluster), "-n", SYSTEM, "--", *words, check=check)


def crashes(cluster: Cluster) -> list[str]:
    """Return how the present pods' operators ended before, where it was not by a signal of somebody's or in order."""
    ends = [
        status["lastState"]["terminated"]
        for pod in cluster.list(kinds.POD, SYSTEM, OPERATOR)
        for status in pod["status"].get("containerStatuses") or []
        if "terminated" in (status.get("lastState") or {})
    ]
    return [f"exit code {end['exitCode']} at {end['finishedAt']}" for end in ends if end["exitCode"] not in ORDERLY]


def operator_metrics(cluster: Cluster) -> dict[str, float]:
    """Return the operator's own metrics, by name with labels."""
    pod = operator_pod(cluster)
    text = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics")
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


# -- many Canaries


class Fleet:
    """Many idle Canaries in one namespace, each with its Deployment and Service, all outside of the mesh."""

    def __init__(self, cluster: Cluster, count: int, *, replicas: int) -> None:
        self.cluster = cluster
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        self.names = [f"app-{index}" for index in range(count)]
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        cluster.create_all([(kind, body) for name in self.names for kind, body in self._objects(name, replicas)])
        eventually(lambda: len(self.ready()) == count, f"{count} Canaries are Ready", 60 + count / 2, 1)

    def _objects(self, name: str, replicas: int) -> list[tuple[kinds.Kind, Object]]:
        meta = {"namespace": self.namespace, "name": name}
        service = {
            "selector": {"app": name},
            "ports": [{"name": "http", "appProtocol": "http", "port": 80, "targetPort": 8080}],
        }
        spec = {"targetRef": {"name": name}, "strategy": {"steps": [{"weight": 50, "for": "1s"}]}}
        return [
            (kinds.DEPLOYMENT, {"metadata": meta, "spec": self._deployment(name, replicas, "v1")}),
            (kinds.SERVICE, {"metadata": meta, "spec": service}),
            (kinds.CANARY, {"metadata": meta, "spec": spec}),
        ]

    @staticmethod
    def _deployment(name: str, replicas: int, version: str) -> Object:
        container = {
            "name": "app",
            "image": SHOP,
            "imagePullPolicy": "IfNotPresent",
            "args": ["serve", "--role", "stock"],
            "env": [{"name": "VERSION", "value": version}],
            "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        }
        return {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        }

    def ship(self, name: str, version: str) -> None:
        """Set another template."""
        change = {"spec": {"template": self._deployment(name, 1, version)["template"]}}
        self.cluster.patch(kinds.DEPLOYMENT, name, self.namespace, change)

    def status(self, name: str) -> Object:
        found = self.cluster.get(kinds.CANARY, name, self.namespace) or {}
        return found.get("status") or {}

    def ready(self) -> list[str]:
        """Return the names of the Canaries that are Ready."""
        return [
            body["metadata"]["name"]
            for body in self.cluster.list(kinds.CANARY, self.namespace)
            for condition in (body.get("status") or {}).get("conditions") or []
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]

    def versions(self) -> dict[str, str]:
        """Return the resourceVersion of every Canary, Deployment, ReplicaSet and Service."""
        watched = (kinds.CANARY, kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.SERVICE)
        return {
            f"{kind.name}/{body['metadata']['name']}": body["metadata"]["resourceVersion"]
            for kind in watched
            for body in self.cluster.list(kind, self.namespace)
        }

    def rest(self) -> dict[str, str]:
        """Wait until nothing changes any more, for three seconds; return ``versions``."""
        seen = [self.versions()]

        def unchanged() -> bool:
            time.sleep(3)
            seen.append(self.versions())
            return seen[-1] == seen[-2]

        eventually(unchanged, "nothing changes any more", 60)
        return seen[-1]

    def close(self) -> None:
        """Delete everything: the Canaries first, so that the namespace has nothing to wait for."""
        self.cluster.kubectl(
            "delete", "canary", "--all", "-n", self.namespace, "--wait=false", check=False, timeout_s=120
        )
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)


def about(versions: dict[str, str], name: str) -> dict[str, str]:
    """Return what is in ``versions`` about other Canaries than this one."""
    return {
        key: version
        for key, version in versions.items()
        if key.split("/")[1] != name and not key.split("/")[1].startswith(f"{name}-")
    }
