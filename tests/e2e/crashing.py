"""The operator, killed with SIGKILL right after each of its writes about one namespace, each kind of write once.

Runs inside the operator's container, in place of ``python -m serinus operator``, and starts it again whenever it ended:
a fork of this process, in which all is imported and nothing has begun, so that a start takes no second of its own.
Between two writes the world does not change by our doing, so "after each" is "before each" too.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import serinus.run  # noqa: F401 - what a start would import
from serinus.cli import main
from serinus.kube.client import KubeClient
from serinus.kube.requests import Request

NAMESPACE = os.environ["CRASH_NAMESPACE"]
KILLED = Path("/tmp/killed")
PLURALS = ("canaries", "deployments", "replicasets", "pods", "services")

perform = KubeClient.perform


def place_of(request: Request) -> str:
    """Return what a write is, in words; empty for a request that is none, or is about something else."""
    if (
        not request.writes
        or request.kind.plural not in PLURALS
        or f"/namespaces/{NAMESPACE}/" not in f"{request.path}/"
    ):
        return ""
    if not request.path.endswith("/status") or request.kind.plural != "canaries":
        return request.doing
    change: Any = request.body
    status: Any = next((part["value"] for part in change if part["path"] == "/status"), {})
    run = status.get("run") or {}
    return f"status {status.get('phase')} {run.get('stage')} {run.get('step')} {run.get('weight')}"


async def perform_and_die(client: KubeClient, request: Request) -> Any:
    """Perform a request, and die if its like was never performed before."""
    answer = await perform(client, request)
    die_once(place_of(request))
    return answer


def die_once(place: str) -> None:
    """Die here, unless there is no place or we died here before."""
    known = KILLED.read_text().splitlines() if KILLED.exists() else []
    if place and place not in known:
        with KILLED.open("a") as file:
            file.write(f"{place}\n")
        os.kill(os.getpid(), signal.SIGKILL)


def live() -> int:
    """Start the operator as a process of its own, and return its id."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        main()
        sys.exit()
    return child


def end(*_: object) -> None:
    """End the operator, and this process after it."""
    with suppress(ProcessLookupError, ChildProcessError):  # it ended just now
        os.kill(alive, signal.SIGTERM)
        os.waitpid(alive, 0)
    os._exit(0)


KubeClient.perform = perform_and_die  # type: ignore[method-assign, assignment]
sys.argv = ["serinus", "operator"]
alive = live()
signal.signal(signal.SIGTERM, end)
while True:
    os.waitpid(alive, 0)
    alive = live()
