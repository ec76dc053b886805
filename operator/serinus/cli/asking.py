"""Ask for something: write a request onto the Canary, wait until the operator has dealt with it, tell the result."""

import asyncio
import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from rich.console import Console

from serinus.api.commands import Command, Verb
from serinus.api.names import SYSTEM_NAMESPACE
from serinus.cli import session
from serinus.cli.session import Exit, Object, Place
from serinus.cli.watching import until_verdict
from serinus.kube.errors import KubeError, Transient
from serinus.kube.kinds import CANARY, SELF_SUBJECT_REVIEW

if TYPE_CHECKING:
    from serinus.kube.client import Kube

ACKNOWLEDGED_WITHIN_S = 10.0
_INTERVAL_S = 0.3

_NOT_TAKEN = (
    "The request to {verb} {name} is written, but the operator has not taken it up within"
    f" {ACKNOWLEDGED_WITHIN_S:g} s; it will when it runs again. Look after it: kubectl get pods -n {SYSTEM_NAMESPACE}"
)
_STALLED = "The request to {verb} {name} is written and waits, since the Canary is stalled: {message}"


async def ask(
    place: Place,
    name: str,
    verb: Verb,
    *,
    console: Console,
    full: bool = False,
    wait: bool = False,
    timeout_s: float | None = None,
) -> int:
    """Ask for ``verb`` at the place where the release stands now, print what came of it, return the exit status.

    With ``wait`` the status is that of the run's verdict.

    Raises:
        Stop: there is no such Canary.
        KubeError: the cluster refuses, or does not answer.
    """
    async with session.cluster(place) as (kube, namespace):
        canary = await session.read_canary(kube, namespace, name)
        run = (canary.get("status") or {}).get("run") or {}
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        command = Command(
            uuid4().hex, verb, run=run.get("id", ""), step=run.get("step", -1), full=full, by=await _me(kube), at=at
        )
        key, value = command.annotation()
        await kube.patch(CANARY, name, namespace, {"metadata": {"annotations": {key: value}}})
        after = await _acknowledged(kube, namespace, name, command.token)
        if after is None:
            raise session.Stop(await _why_not(kube, namespace, name, verb), Exit.TIMEOUT)
        console.print(f"{name}: {_result(after, command.token)}", markup=False, highlight=False, soft_wrap=True)
        if not wait:
            return Exit.DONE
        meant = ((after.get("status") or {}).get("run") or {}).get("id", "")
        found = await until_verdict(kube, namespace, name, run=meant, timeout_s=timeout_s)
        console.print(f"{name}: {found.sentence}", markup=False, highlight=False, soft_wrap=True)
        return found.status


async def _me(kube: "Kube") -> str:
    """Return who the API server says we are; our name on this machine when it does not say."""
    try:
        review = await kube.create(SELF_SUBJECT_REVIEW, {})
        return str(review["status"]["userInfo"]["username"])
    except (KubeError, KeyError):
        return getpass.getuser()


async def _acknowledged(kube: "Kube", namespace: str, name: str, token: str) -> Object | None:
    """Return the Canary once its status answers the request; None when it does not in time."""
    try:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            while True:
                try:
                    canary = await session.read_canary(kube, namespace, name)
                    if _result(canary, token) is not None:
                        return canary
                except Transient:
                    pass  # asked again until the time is up
                await asyncio.sleep(_INTERVAL_S)
    except TimeoutError:
        return None


async def _why_not(kube: "Kube", namespace: str, name: str, verb: Verb) -> str:
    """Return why a request is not taken up, as far as the Canary tells."""
    canary = await session.read_canary(kube, namespace, name)
    for condition in (canary.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Stalled" and condition.get("status") == "True":
            return _STALLED.format(verb=verb, name=name, message=condition.get("message") or "it says no more")
    return _NOT_TAKEN.format(verb=verb, name=name)


def _result(canary: Object, token: str) -> str | None:
    handled = (canary.get("status") or {}).get("commands") or []
    return next((str(command.get("result", "")) for command in handled if command.get("token") == token), None)
