"""What the demo stands on: kubectl, steps with their time on the clock, and waits that end in a sentence."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

CHECKOUT = Path(__file__).resolve().parents[2]


class Stopped(Exception):  # noqa: N818 - the end of the show, told to the user, not a failure of the program
    """Why the demo cannot go on, as a sentence."""


class Stage:
    """The terminal, the clock and the cluster of one demo.

    Args:
        kubeconfig: the cluster to use; None until there is one.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.owns_cluster = False
        self.installed_before = True
        self.began = time.monotonic()
        self.console = Console(highlight=False, soft_wrap=True)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self.began

    def say(self, text: str, style: str = "") -> None:
        """Print one line with the time on the clock."""
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        self.console.print(f"{minutes:2d}:{seconds:02d}  ", style="dim", end="")
        self.console.print(text, style=style, markup=False)
        sys.stdout.flush()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Say what begins; on a terminal something turns until it ends."""
        self.say(text)
        if self.console.is_terminal:
            with self.console.status("", spinner="dots"):
                yield
        else:
            yield

    @property
    def environment(self) -> dict[str, str]:
        """The environment for kubectl and serinus."""
        chosen = {"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}
        return {**os.environ, **chosen}

    def run(self, command: list[str], limit_s: float, what: str) -> None:
        """Run a command that shows its own progress.

        Raises:
            Stopped: it failed, or took longer than `limit_s`.
        """
        try:
            done = subprocess.run(command, cwd=CHECKOUT, env=self.environment, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise Stopped(f"{what} took longer than {limit_s / 60:.0f} min.") from None
        if done.returncode:
            raise Stopped(f"{what} failed with status {done.returncode}; the lines above say why.")

    def kubectl(self, *args: str, stdin: str | None = None, limit_s: float = 60) -> str:
        """Run kubectl and return what it prints.

        Raises:
            Stopped: it failed, or took longer than `limit_s`; with kubectl's own words.
        """
        command = [tool("kubectl"), *args]
        said = f"`kubectl {' '.join(args)}`"
        try:
            done = subprocess.run(
                command,
                cwd=CHECKOUT,
                env=self.environment,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Stopped(f"{said} took longer than {limit_s:.0f} s.") from None
        if done.returncode:
            raise Stopped(f"{said} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *args: str) -> Any:
        """Return what `kubectl get … -o json` gives."""
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def wait(self, what: str, limit_s: float, missing: Callable[[], str]) -> None:
        """Wait until `missing()` returns nothing; what it returns until then says what is waited for.

        Raises:
            Stopped: it still returns something after `limit_s`, or kubectl keeps failing that long.
        """
        deadline = time.monotonic() + limit_s
        while True:
            try:
                still = missing()
            except Stopped as error:
                still = str(error)
            if not still:
                return
            if time.monotonic() > deadline:
                raise Stopped(f"{what} took longer than {limit_s:.0f} s: {still}")
            time.sleep(1)

    def ready(self, namespace: str, limit_s: float) -> None:
        """Wait until every Deployment of a namespace is Available.

        Raises:
            Stopped: one is not after `limit_s`; with the Deployments and what their pods wait for.
        """

        def missing() -> str:
            items = self.get("deployments", "-n", namespace)["items"]
            late = [d["metadata"]["name"] for d in items if not is_true(d, "Available")]
            if not late:
                return "" if items else "there is no Deployment yet"
            return f"{', '.join(late)}; {self._reasons(namespace)}"

        self.wait(f"Starting what runs in {namespace}", limit_s, missing)

    def _reasons(self, namespace: str) -> str:
        found: set[str] = set()
        for pod in self.get("pods", "-n", namespace)["items"]:
            status = pod.get("status", {})
            for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
                waiting = container.get("state", {}).get("waiting")
                if waiting:
                    found.add(
                        f"{pod['metadata']['name']}: {waiting.get('reason')} {waiting.get('message', '')}".strip()
                    )
        return "; ".join(sorted(found)[:3]) or "no container says why"


class Load:
    """The load generator's report, read through the API server."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        pods = stage.get("pods", "-n", "shop", "-l", "app=loadgen", "--field-selector=status.phase=Running")["items"]
        if not pods:
            raise Stopped("There is no load generator: `kubectl get pods -n shop -l app=loadgen` shows none that runs.")
        self.address = f"/api/v1/namespaces/shop/pods/{pods[0]['metadata']['name']}:9100/proxy"

    def mark(self) -> float:
        """Return the present moment as the load generator has it; `report` takes it."""
        answer = self.stage.kubectl("create", "--raw", f"{self.address}/mark", "-f", "-", stdin="{}")
        return float(json.loads(answer)["since"])

    def report(self, since: float) -> dict[str, Any]:
        """Return the report on what was answered since a mark."""
        answer: dict[str, Any] = json.loads(
            self.stage.kubectl("get", "--raw", f"{self.address}/report?since={since:.6f}")
        )
        return answer


def tool(name: str) -> str:
    """Return the path of a command of this virtual environment, else of the PATH.

    Raises:
        Stopped: it is in neither.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise Stopped(f"`{name}` is not installed: `make setup` puts it into the virtual environment.")
    return found


def is_true(resource: Mapping[str, Any], condition: str) -> bool:
    """Tell whether a condition of a resource holds."""
    conditions = resource.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)
