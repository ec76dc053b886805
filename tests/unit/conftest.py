"""What all unit tests share: virtual time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Repeatable, and no wall time is asserted: the machines that run this are shared and noisy.
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


class _Jump(selectors.SelectSelector):
    """A selector that does not wait: the time until the next timer passes at once."""

    now = 1000.0
    idle_turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            self.idle_turns += 1
            if self.idle_turns > 100_000:
                raise RuntimeError("the loop turns and turns, and no time passes")
            return ready
        if timeout is None:
            raise RuntimeError("everything waits, and no timer runs that could end it")
        self.now += max(timeout, 1e-9)  # less than that would be lost in rounding
        self.idle_turns = 0
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which ``asyncio.sleep`` and ``asyncio.timeout`` cost no time; ``loop.time()`` is the clock."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


@pytest.fixture
def in_virtual_time() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in virtual time: ``in_virtual_time(scenario())``. Not for sockets and threads."""

    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            return runner.run(scenario)

    return run


@pytest.fixture(autouse=True)
def _logs_as_they_come() -> Iterator[None]:
    """A command or a part that is tested may set the logs up; the next test finds them as they come."""
    yield
    structlog.reset_defaults()
