"""Kopf's handlers, in Kopf."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import kopf
import pytest

from serinus import handlers

NOWHERE = """
apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: nobody, user: {token: none}}]
contexts: [{name: here, context: {cluster: nowhere, user: nobody}}]
current-context: here
"""


@pytest.fixture
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(NOWHERE)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


@pytest.mark.usefixtures("_nowhere")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_is_told_to_end_ends_at_once_whatever_else_runs(number: signal.Signals) -> None:
    asyncio.get_running_loop().add_signal_handler(number, lambda: None)  # so that it does not end the tests
    late = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.5)  # by now Kopf has taken the signal, and we have taken it back
        other = asyncio.create_task(asyncio.Event().wait())  # such tasks Kopf takes for its own, and waits for
        os.kill(os.getpid(), number)
        await asyncio.sleep(3)
        late.set()
        await other

    async def operate() -> None:
        current = asyncio.current_task()
        assert current is not None
        async with asyncio.TaskGroup() as parts:
            parts.create_task(handlers.watch(None, current.cancel))
            parts.create_task(work())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(operate())
    assert not late.is_set()


@pytest.mark.usefixtures("_nowhere")
async def test_what_lets_kopf_fail_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    def start(**_: Any) -> None:
        raise kopf.PermanentError("a defect")

    monkeypatch.setattr(handlers, "registry", registry)
    ended = asyncio.Event()
    with pytest.raises(BaseExceptionGroup) as failed:
        await asyncio.create_task(handlers.watch(None, ended.set))
    assert "handlers failed" in repr(failed.value.exceptions)
    assert not ended.is_set()
