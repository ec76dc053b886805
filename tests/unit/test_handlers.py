"""Kopf's handlers, in Kopf."""

import asyncio
import os
import signal
from pathlib import Path

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


async def test_who_is_told_to_end_ends_at_once_whatever_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(NOWHERE)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    ready, late = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await ready.wait()
        other = asyncio.create_task(asyncio.Event().wait())  # such tasks Kopf takes for its own, and waits for
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(3)
        late.set()
        await other

    async def operate() -> None:
        current = asyncio.current_task()
        assert current is not None
        async with asyncio.TaskGroup() as parts:
            memo = kopf.Memo(end=current.cancel)
            watching = kopf.operator(
                registry=handlers.registry,
                settings=handlers.settings(),
                memo=memo,
                clusterwide=True,
                standalone=True,
                ready_flag=ready,
            )
            parts.create_task(watching)
            parts.create_task(work())

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(operate())
    assert not late.is_set()
