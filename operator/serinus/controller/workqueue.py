"""The queue between what happened and what is done about it.

In the mould of client-go's ``workqueue`` and of controller-runtime's ``Reconciler``:

* A key waits at most once. Added again while it waits, it keeps the earlier of the two times; added while it runs, it
  runs once more afterwards. It never runs twice at the same time.
* ``reconcile`` gets nothing but the key and looks at the world itself. It returns ``Result()`` when nothing is to be
  done until something happens, or ``Result(requeue_after_s)`` to be called again by then at the latest.
* It raises ``Transient`` when it could not look or act: it is called again after the server's own wish or a back-off;
  ``Conflict`` when it acted on a stale view: called again soon. Any other exception is a defect: it is logged with its
  traceback, once per key and type until the key succeeds, and backed off. So is a run that exceeds its deadline.
* Back-off doubles per key from 1 s to 60 s, with jitter; a success, or ``forget``, ends it. An event cuts it short.

One key that is slow or broken takes one of the workers for at most ``deadline_s`` and delays nobody else. Everything
runs in one event loop; from another thread, use ``loop.call_soon_threadsafe(queue.add, key)``.
"""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from serinus.kube.errors import Conflict, Transient

BACKOFF_FIRST_S = 1.0
BACKOFF_LAST_S = 60.0
CONFLICT_FIRST_S = 0.1
DEADLINE_S = 30.0
TICK_S = 1.0
"""The queue looks at its keys at least this often, so that a standing queue is told from an idle one."""

log = structlog.get_logger()

Key = str
"""What is reconciled: ``namespace/name`` of a Canary, or any other word that ``reconcile`` understands."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile wants next: ``requeue_after_s`` seconds from now at the latest, or (``None``) nothing."""

    requeue_after_s: float | None = None


Reconcile = Callable[[Key], Awaitable[Result]]
Observer = Callable[[Key, str, float], None]
"""Called after each run with key, outcome and seconds. It must not raise.

The outcomes are ``success``, ``conflict``, ``transient``, ``error`` and ``deadline``.
"""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class WorkQueue:
    """A queue of keys. See the module for its contract.

    ``clock`` gives seconds and must be the time by which ``asyncio`` sleeps; ``jitter`` gives numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = _loop_time,
        jitter: Callable[[], float] = random.random,
        deadline_s: float = DEADLINE_S,
        observer: Observer | None = None,
    ):
        self._clock = clock
        self._jitter = jitter
        self._deadline_s = deadline_s
        self._observer = observer
        self._due: dict[Key, float] = {}  # when each waiting key is due; the heap may hold outdated entries
        self._heap: list[tuple[float, int, Key]] = []
        self._pushed = 0
        self._running: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._reported: set[tuple[Key, str]] = set()
        self._wake = asyncio.Event()
        self._ticked_at: float | None = None

    def add(self, key: Key, delay_s: float = 0.0) -> None:
        """Run ``key`` in ``delay_s`` seconds at the latest."""
        due = self._clock() + max(delay_s, 0.0)
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        if key not in self._running:
            self._push(key, due)
        self._wake.set()

    def forget(self, key: Key) -> None:
        """Drop what is known of ``key``: its place in the queue and its back-off. A run under way goes on."""
        self._due.pop(key, None)
        self._recovered(key)

    def __len__(self) -> int:
        """Keys that wait, whether due or not."""
        return len(self._due)

    @property
    def running(self) -> int:
        """Keys that are being reconciled."""
        return len(self._running)

    @property
    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        now = self._clock()
        return sum(1 for key, due in self._due.items() if due <= now and key not in self._running)

    @property
    def oldest_due_s(self) -> float:
        """For how many seconds the key that waits longest for a worker has been due; 0 when none waits."""
        now = self._clock()
        return max((now - due for key, due in self._due.items() if due <= now and key not in self._running), default=0)

    @property
    def tick_age_s(self) -> float | None:
        """Seconds since the queue last looked at its keys; ``None`` when it does not run."""
        return None if self._ticked_at is None else self._clock() - self._ticked_at

    async def run(self, reconcile: Reconcile, workers: int) -> None:
        """Reconcile what is due, ``workers`` keys at a time, until cancelled; then the runs under way are too."""
        try:
            async with asyncio.TaskGroup() as runs:
                while True:
                    self._ticked_at = now = self._clock()
                    self._wake.clear()
                    while len(self._running) < workers and (key := self._next(now)) is not None:
                        self._running.add(key)
                        runs.create_task(self._one(reconcile, key), name=f"reconcile {key}")
                    await self._pause(now, len(self._running) < workers)
        finally:
            self._ticked_at = None
            self._running.clear()

    async def _pause(self, now: float, free: bool) -> None:
        until_due = self._heap[0][0] - now if self._heap and free else TICK_S
        try:
            async with asyncio.timeout(min(max(until_due, 0.0), TICK_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _push(self, key: Key, due: float) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (due, self._pushed, key))

    def _next(self, now: float) -> Key | None:
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due and key not in self._running:
                del self._due[key]
                return key
        return None

    async def _one(self, reconcile: Reconcile, key: Key) -> None:
        started = self._clock()
        outcome = "cancelled"
        try:
            outcome, delay_s = await self._judged(reconcile, key)
            if delay_s is not None:
                self.add(key, delay_s)
        finally:
            self._running.discard(key)
            if key in self._due:
                self._push(key, self._due[key])
            self._wake.set()
            if self._observer and outcome != "cancelled":
                self._observer(key, outcome, self._clock() - started)

    async def _judged(self, reconcile: Reconcile, key: Key) -> tuple[str, float | None]:
        deadline = asyncio.timeout(self._deadline_s)
        try:
            async with deadline:
                result = await reconcile(key)
                requeue_after_s = result.requeue_after_s
        except Conflict as problem:
            log.debug("stale view, looking again", key=key, error=str(problem))
            return "conflict", self._backoff(key, CONFLICT_FIRST_S)
        except Transient as problem:
            delay_s = problem.retry_after_s or self._backoff(key, BACKOFF_FIRST_S)
            log.info("not now, trying again", key=key, error=str(problem), again_in_s=round(delay_s, 1))
            return "transient", delay_s
        except Exception as problem:  # noqa: BLE001 - a defect in one reconcile must not stop the others
            if isinstance(problem, TimeoutError) and deadline.expired():
                log.warning("reconcile took too long and was stopped", key=key, deadline_s=self._deadline_s)
                return "deadline", self._backoff(key, BACKOFF_FIRST_S)
            self._report(key, problem)
            return "error", self._backoff(key, BACKOFF_FIRST_S)
        except asyncio.CancelledError as problem:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._report(key, problem)  # not we were cancelled, but something that the reconcile awaited
            return "error", self._backoff(key, BACKOFF_FIRST_S)
        self._recovered(key)
        return "success", requeue_after_s

    def _backoff(self, key: Key, first_s: float) -> float:
        """Return the next wait: the first, doubled with each failure, and up to a fifth more by jitter."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        return min(first_s * 2.0 ** min(failures - 1, 16), BACKOFF_LAST_S / 1.2) * (1 + 0.2 * self._jitter())

    def _recovered(self, key: Key) -> None:
        if self._failures.pop(key, None):
            self._reported = {known for known in self._reported if known[0] != key}

    def _report(self, key: Key, problem: BaseException) -> None:
        known = (key, type(problem).__name__)
        if known in self._reported:
            log.error("reconcile failed again", key=key, error=repr(problem), failures=self._failures.get(key, 0) + 1)
            return
        self._reported.add(known)
        log.error("reconcile failed", key=key, error=repr(problem), exc_info=problem)
