"""Look at a release again and again: live on a terminal, one line per change elsewhere, or silently for a verdict."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serinus.cli import session, view
from serinus.cli.session import Exit, Object, Place
from serinus.cli.verdict import Verdict, verdict
from serinus.kube.errors import KubeError, NotFound, Transient
from serinus.kube.kinds import DEPLOYMENT

if TYPE_CHECKING:
    from serinus.kube.client import Kube

INTERVAL_S = 1.0
REPEAT_S = 15.0
"""A line that differs from the last one in its numbers only is written again after this time."""

Show = Callable[[Object], None]


def wall_clock() -> datetime:
    """Return the time now."""
    return datetime.now(UTC)


async def until_verdict(
    kube: "Kube", namespace: str, name: str, *, run: str = "", timeout_s: float | None = None, show: Show | None = None
) -> Verdict:
    """Wait until a release has come to its end, and return it; a time-out is an end, too.

    While the cluster does not answer, the waiting goes on.

    Raises:
        Stop: the Canary is gone.
    """
    try:
        async with asyncio.timeout(timeout_s):
            async for canary, target in looks(kube, namespace, name):
                if show:
                    show(canary)
                if found := verdict(canary, target, run):
                    return found
    except TimeoutError:
        pass
    message = (canary.get("status") or {}).get("message") or "no message"
    return Verdict(Exit.TIMEOUT, f"no verdict on {name} within {timeout_s:g} s; the last message: {message}")


async def looks(kube: "Kube", namespace: str, name: str) -> AsyncIterator[tuple[Object, Object | None]]:
    """Yield the Canary and its target, again and again.

    Raises:
        Stop: there is no such Canary, or not any more.
        KubeError: the cluster does not answer the first time.
    """
    first = True
    while True:
        try:
            canary = await session.read_canary(kube, namespace, name)
            target = await _target(kube, namespace, canary)
        except Transient:
            if first:
                raise
        else:
            first = False
            yield canary, target
        await asyncio.sleep(INTERVAL_S)


async def _target(kube: "Kube", namespace: str, canary: Object) -> Object | None:
    try:
        return await kube.get(DEPLOYMENT, canary["spec"]["targetRef"]["name"], namespace)
    except NotFound:
        return None
    except KubeError as problem:
        if problem.status == 403:
            return None  # who may only see Canaries sees how the Canary stands
        raise


class Lines:
    """Writes one line per change, with the time of day."""

    def __init__(self, write: Callable[[str], None], now: Callable[[], datetime] = wall_clock):
        self._write = write
        self._now = now
        self._shape = ""
        self._text = ""
        self._at = datetime.min.replace(tzinfo=UTC)

    def show(self, canary: Object) -> None:
        """Write the line when it says something else, or after a while when its numbers changed."""
        text = view.line(canary)
        shape = re.sub(r"\d+([.,]\d+)*", "#", text.partition(": ")[2]) + text.partition(": ")[0].split(",")[0]
        now = self._now()
        if shape == self._shape and (text == self._text or (now - self._at).total_seconds() < REPEAT_S):
            return
        self._shape, self._text, self._at = shape, text, now
        self._write(f"{now.astimezone():%H:%M:%S}  {text}")


async def watch(place: Place, name: str, *, until_settled: bool, timeout_s: float | None, console: Console) -> int:
    """Show a release until it has come to its end, or for ever; return the exit status."""
    async with session.cluster(place) as (kube, namespace):
        if not console.is_terminal:
            lines = Lines(lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
            return await _followed(kube, namespace, name, until_settled, timeout_s, lines.show, console)
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:

            def show(canary: Object) -> None:
                hint = Text("" if until_settled else "Ctrl-C ends the watching, not the release.", "dim")
                live.update(Group(view.tree(canary, wall_clock()), hint), refresh=True)

            return await _followed(kube, namespace, name, until_settled, timeout_s, show, console)


async def _followed(
    kube: "Kube",
    namespace: str,
    name: str,
    until_settled: bool,
    timeout_s: float | None,
    show: Show,
    console: Console,
) -> int:
    if until_settled:
        found = await until_verdict(kube, namespace, name, timeout_s=timeout_s, show=show)
        console.print(found.sentence, markup=False, highlight=False, soft_wrap=True)
        return found.status
    try:
        async with asyncio.timeout(timeout_s):
            async for canary, _ in looks(kube, namespace, name):
                show(canary)
    except TimeoutError:
        return Exit.TIMEOUT
    return Exit.DONE
