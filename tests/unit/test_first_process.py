"""The command as a container's first process, from whose start the kernel keeps signals without a handler."""

import os
import signal
import sys
import types
from collections.abc import Iterator

import pytest

from serinus.cli import main


@pytest.fixture
def disposition() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("disposition")
def test_the_first_process_of_a_container_ends_when_told_to_before_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: 1)
    app = types.ModuleType("serinus.cli.app")
    app.app = lambda **_: os.kill(pid, signal.SIGTERM)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "serinus.cli.app", app)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 143
