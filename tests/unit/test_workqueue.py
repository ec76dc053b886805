"""The queue's contract, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from serinus.controller.workqueue import Result, WorkQueue
from serinus.kube.errors import Conflict, NotFound, Transient


def now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def running(queue: WorkQueue, reconcile: Callable[[str], Awaitable[Result]], workers: int = 4):
    task = asyncio.create_task(queue.run(reconcile, workers))
    try:
        yield task
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Recorder:
    """A reconcile that takes ``takes_s`` and notes when it began; ``answers`` are given in turn, then ``Result()``."""

    def __init__(self, *answers: Result | BaseException, takes_s: float = 0.0):
        self.answers = list(answers)
        self.takes_s = takes_s
        self.began: list[tuple[str, float]] = []
        self.start = now()

    async def __call__(self, key: str) -> Result:
        self.began.append((key, round(now() - self.start, 3)))
        await asyncio.sleep(self.takes_s)
        answer = self.answers.pop(0) if self.answers else Result()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.began]


def plain() -> WorkQueue:
    return WorkQueue(jitter=lambda: 0.0)


def test_a_key_added_many_times_while_it_waits_runs_once(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder()
        for _ in range(5):
            queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(5)
        assert reconcile.began == [("a", 0)]

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("delays", "expected"),
    [
        pytest.param((10, 3), [3], id="the earlier of two times counts, added later"),
        pytest.param((3, 10), [3], id="the earlier of two times counts, added first"),
        pytest.param((10, 0), [0], id="an event overtakes a timer"),
        pytest.param((0.25,), [0.25], id="a delay shorter than the tick is kept exactly"),
        pytest.param((-5,), [0], id="a time that has passed is now"),
    ],
)
def test_delays(in_virtual_time, delays, expected):
    async def scenario():
        queue, reconcile = plain(), Recorder()
        async with running(queue, reconcile):
            for delay in delays:
                queue.add("a", delay)
            await asyncio.sleep(20)
        assert reconcile.times == expected

    in_virtual_time(scenario())


def test_a_key_that_is_added_while_it_runs_runs_once_more_afterwards(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(takes_s=4)
        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(1)
            for _ in range(3):
                queue.add("a")
            await asyncio.sleep(20)
        assert reconcile.times == [0, 4]

    in_virtual_time(scenario())


def test_a_key_never_runs_in_two_workers_at_once(in_virtual_time):
    async def scenario():
        queue, at_once, most = plain(), 0, 0

        async def reconcile(key: str) -> Result:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            queue.add(key)
            await asyncio.sleep(0.3)
            at_once -= 1
            return Result(0)

        queue.add("a")
        async with running(queue, reconcile, workers=8):
            await asyncio.sleep(10)
        assert most == 1

    in_virtual_time(scenario())


def test_one_slow_key_does_not_delay_the_others(in_virtual_time):
    async def scenario():
        queue, done = plain(), {}

        async def reconcile(key: str) -> Result:
            await asyncio.sleep(25 if key == "slow" else 0.01)
            done[key] = now()
            return Result()

        start = now()
        for key in ("slow", *"abcdefgh"):
            queue.add(key)
        async with running(queue, reconcile, workers=2):
            await asyncio.sleep(1)
        assert set(done) == set("abcdefgh")
        assert max(done.values()) - start < 0.1

    in_virtual_time(scenario())


def test_no_more_keys_run_at_once_than_there_are_workers(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(takes_s=1)
        for key in "abcdef":
            queue.add(key)
        async with running(queue, reconcile, workers=2):
            await asyncio.sleep(10)
        assert reconcile.times == [0, 0, 1, 1, 2, 2]
        assert [key for key, _ in reconcile.began] == list("abcdef")

    in_virtual_time(scenario())


def test_a_result_asks_for_the_next_look_exactly(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(Result(7.5), Result(0.5), Result())
        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(100)
        assert reconcile.times == [0, 7.5, 8]

    in_virtual_time(scenario())


def test_failures_back_off_from_one_second_to_a_minute_and_a_success_ends_it(in_virtual_time):
    async def scenario():
        queue = plain()
        reconcile = Recorder(*[ValueError("x")] * 8, Result(1), ValueError("y"))
        queue.add("a")
        with capture_logs():
            async with running(queue, reconcile):
                await asyncio.sleep(400)
        waits = [round(b - a, 3) for a, b in zip(reconcile.times, reconcile.times[1:], strict=False)]
        assert waits == [1, 2, 4, 8, 16, 32, 50, 50, 1, 1]

    in_virtual_time(scenario())


def test_jitter_adds_at_most_a_fifth_and_never_more_than_a_minute_in_all(in_virtual_time):
    async def scenario():
        queue = WorkQueue(jitter=lambda: 0.999999)
        reconcile = Recorder(*[Transient("later")] * 9)
        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(600)
        waits = [b - a for a, b in zip(reconcile.times, reconcile.times[1:], strict=False)]
        assert waits[0] == pytest.approx(1.2, abs=0.01)
        assert max(waits) == pytest.approx(60, abs=0.01)

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("problem", "wait", "outcome"),
    [
        pytest.param(Transient("busy", 13.0), 13, "transient", id="the server's own wish is kept exactly"),
        pytest.param(Transient("busy"), 1, "transient", id="without a wish the back-off counts"),
        pytest.param(Conflict("stale"), 0.1, "conflict", id="a stale view is looked at again soon"),
        pytest.param(NotFound("gone"), 1, "error", id="an error that reconcile should have handled is a defect"),
        pytest.param(TimeoutError("own"), 1, "error", id="a time-out of the reconcile's own is not the deadline"),
        pytest.param(asyncio.CancelledError(), 1, "error", id="a cancelled part does not lose the key"),
    ],
)
def test_what_an_exception_leads_to(in_virtual_time, problem, wait, outcome):
    async def scenario():
        seen = []
        queue = WorkQueue(jitter=lambda: 0.0, observer=lambda key, result, seconds: seen.append((key, result)))
        reconcile = Recorder(problem)
        queue.add("a")
        with capture_logs():
            async with running(queue, reconcile):
                await asyncio.sleep(20)
        assert reconcile.times == [0, wait]
        assert seen == [("a", outcome), ("a", "success")]

    in_virtual_time(scenario())


def test_an_event_cuts_the_back_off_short(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(*[Transient("x")] * 6)
        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(35)
            before = len(reconcile.began)
            queue.add("a")
            await asyncio.sleep(0.01)
            assert len(reconcile.began) == before + 1

    in_virtual_time(scenario())


def test_a_defect_is_logged_with_its_traceback_once_per_key_and_type(in_virtual_time):
    async def scenario():
        queue = plain()
        reconcile = Recorder(ValueError("1"), ValueError("2"), KeyError("3"), Result(1), ValueError("4"))
        queue.add("a")
        with capture_logs() as logs:
            async with running(queue, reconcile):
                await asyncio.sleep(60)
        told = [(line["error"], "exc_info" in line) for line in logs if line["log_level"] == "error"]
        assert told == [
            ("ValueError('1')", True),
            ("ValueError('2')", False),
            ("KeyError('3')", True),
            ("ValueError('4')", True),
        ]

    in_virtual_time(scenario())


def test_a_run_beyond_the_deadline_is_stopped_and_tried_again(in_virtual_time):
    async def scenario():
        seen = []
        queue = WorkQueue(jitter=lambda: 0.0, observer=lambda _, result, seconds: seen.append((result, seconds)))
        reconcile = Recorder(takes_s=100)
        queue.add("a")
        with capture_logs():
            async with running(queue, reconcile):
                await asyncio.sleep(40)
        assert reconcile.times == [0, 31]
        assert seen == [("deadline", 30)]

    in_virtual_time(scenario())


def test_a_forgotten_key_does_not_run_and_starts_afresh_when_added(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(*[Transient("x")] * 4)
        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(5)
            assert len(queue) == 1
            queue.forget("a")
            assert len(queue) == 0
            await asyncio.sleep(100)
            assert reconcile.times == [0, 1, 3]
            queue.add("a")
            await asyncio.sleep(1.5)
        assert reconcile.times == [0, 1, 3, 105, 106]

    in_virtual_time(scenario())


def test_health_shows_how_long_the_oldest_key_waits_for_a_worker(in_virtual_time):
    async def scenario():
        queue, reconcile = plain(), Recorder(takes_s=20)
        assert queue.tick_age_s is None
        async with running(queue, reconcile, workers=1):
            queue.add("a")
            await asyncio.sleep(1)
            queue.add("b")
            queue.add("later", 60)
            await asyncio.sleep(9)
            assert (queue.depth, queue.running, len(queue)) == (1, 1, 2)
            assert queue.oldest_due_s == 9
            assert queue.tick_age_s <= 1
            await asyncio.sleep(15)
            assert queue.oldest_due_s == 0
        assert queue.tick_age_s is None

    in_virtual_time(scenario())


def test_a_stopped_queue_ends_what_runs(in_virtual_time):
    async def scenario():
        queue, ended = plain(), []

        async def reconcile(key: str) -> Result:
            try:
                await asyncio.sleep(20)
            finally:
                ended.append(key)
            return Result()

        queue.add("a")
        async with running(queue, reconcile):
            await asyncio.sleep(1)
        assert ended == ["a"]

    in_virtual_time(scenario())
