"""Users' metrics against a small Prometheus on the loopback that can answer oddly, slowly, or not at all."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from serinus.analysis.model import Outcome, Reading, Series
from serinus.controller import promql
from serinus.controller.promql import PER_ADDRESS, MetricReader, Query


class FakePrometheus:
    """Answers ``/api/v1/query`` by ``answer``, and notes the queries and how many are open at once."""

    def __init__(self) -> None:
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | web.StreamResponse | None = None
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.query.get("query", ""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if callable(self.answer):
                return await self.answer(request)
            return self.answer
        finally:
            self.at_once -= 1


def vector(*samples: tuple[dict[str, str], str]) -> web.Response:
    result = [{"metric": labels, "value": [1.0, value]} for labels, value in samples]
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})


def result(value: object) -> web.Response:
    return web.json_response({"status": "success", "data": {"result": value}})


def error(status: int, kind: str, words: str) -> web.Response:
    return web.json_response({"status": "error", "errorType": kind, "error": words}, status=status)


async def silent(_: web.Request) -> web.Response:
    await asyncio.sleep(3)
    return web.Response()


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(60):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def dripping_with_length(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "60"})
    await response.prepare(request)
    for _ in range(60):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def serve() -> tuple[FakePrometheus, web.AppRunner]:
    fake = FakePrometheus()
    app = web.Application()
    app.router.add_get("/api/v1/query", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.05, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return fake, runner


@pytest.fixture
async def prometheus() -> AsyncIterator[FakePrometheus]:
    fake, runner = await serve()
    yield fake
    await runner.cleanup()


@pytest.fixture
async def reader(monkeypatch) -> AsyncIterator[MetricReader]:
    monkeypatch.setattr(promql, "FASTEST_S", 0.05)
    made = MetricReader(deadline_s=0.4)
    with capture_logs():
        yield made
        await made.close()
    made._pool.shutdown(wait=True)


async def first(reader: MetricReader, key: str = "demo/shop", metric: str = "errors", within_s: float = 3.0) -> Reading:
    async with asyncio.timeout(within_s):
        while (found := reader.reading(key, metric)) is None:  # noqa: ASYNC110 - users poll it too
            await asyncio.sleep(0.005)
    return found


@pytest.mark.parametrize(
    ("answer", "outcome", "value", "words"),
    [
        pytest.param(vector(({}, "0.25")), Outcome.VALUE, 0.25, "", id="one sample is a value"),
        pytest.param(result([1.0, "7"]), Outcome.VALUE, 7.0, "", id="a scalar is a value"),
        pytest.param(vector(), Outcome.EMPTY, None, "gave nothing", id="an empty vector"),
        pytest.param(vector(({}, "NaN")), Outcome.NAN, None, "gave NaN", id="not a number"),
        pytest.param(vector(({}, "+Inf")), Outcome.NAN, None, r"gave \+Inf", id="infinity is no number to judge by"),
        pytest.param(
            vector(({"pod": "a"}, "1"), ({"pod": "b"}, "2")),
            Outcome.MANY_SERIES,
            None,
            r'2 series, such as \{pod="a"\}; \{pod="b"\}; sum or filter',
            id="several series",
        ),
        pytest.param(
            result([{"metric": {}, "values": [[1, "1"]]}]), Outcome.QUERY_ERROR, None, "range of values", id="a range"
        ),
        pytest.param(
            result([{"metric": {}, "histogram": [1, {}]}]),
            Outcome.QUERY_ERROR,
            None,
            "histogram_quantile",
            id="a histogram",
        ),
        pytest.param(result([1.0, "hello"]), Outcome.QUERY_ERROR, None, "the text 'hello'", id="a text"),
        pytest.param(
            error(400, "bad_data", 'parse error at char 4: unexpected "("'),
            Outcome.QUERY_ERROR,
            None,
            r'^parse error at char 4: unexpected "\("$',
            id="a query that Prometheus cannot read, in its words",
        ),
        pytest.param(
            error(422, "execution", "many-to-many"), Outcome.QUERY_ERROR, None, "many-to-many", id="nor execute"
        ),
        pytest.param(
            error(503, "timeout", "query timed out"),
            Outcome.TIMEOUT,
            None,
            "query timed out",
            id="Prometheus' own time-out",
        ),
        pytest.param(
            error(500, "internal", "disk"), Outcome.UNREACHABLE, None, "internal: disk", id="Prometheus is broken"
        ),
        pytest.param(
            web.Response(status=502, text="<html>"), Outcome.UNREACHABLE, None, "answered 502", id="a proxy's page"
        ),
        pytest.param(
            web.Response(status=302, headers={"Location": "/login"}),
            Outcome.UNREACHABLE,
            None,
            "answered 302",
            id="a login page is not followed",
        ),
        pytest.param(
            web.Response(text="<html>"), Outcome.UNREACHABLE, None, "did not answer as Prometheus", id="not Prometheus"
        ),
        pytest.param(
            web.json_response({"data": {"result": 5}}), Outcome.UNREACHABLE, None, "did not answer as", id="odd JSON"
        ),
        pytest.param(web.json_response([]), Outcome.UNREACHABLE, None, "did not answer as", id="odder JSON"),
        pytest.param(
            web.Response(text=" " * 1_100_000), Outcome.UNREACHABLE, None, "more than 1048576 bytes", id="far too much"
        ),
        pytest.param(silent, Outcome.TIMEOUT, None, r"no answer within 0\.4 s", id="silence"),
        pytest.param(dripping, Outcome.TIMEOUT, None, r"no answer within 0\.4 s", id="an answer that drips in chunks"),
        pytest.param(
            dripping_with_length, Outcome.TIMEOUT, None, r"no answer within 0\.4 s", id="an answer that drips in bytes"
        ),
    ],
)
async def test_every_answer_has_a_name(prometheus, reader, answer, outcome, value, words):
    prometheus.answer = answer
    start = time.monotonic()
    reader.watch("demo/shop", [Query("errors", "sum(x)", 60)], prometheus.url)
    reading = await first(reader)
    assert (reading.metric, reading.outcome, reading.value) == ("errors", outcome, value)
    assert re.search(words, reading.detail)
    assert time.monotonic() - start < 1.0
    assert prometheus.asked == ["sum(x)"]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        pytest.param("http://127.0.0.1:9", "refused", id="nobody listens"),
        pytest.param("http://[", "is no address", id="no URL"),
        pytest.param("gopher://x", "cannot be reached", id="no HTTP"),
    ],
)
async def test_a_server_that_is_not_there_is_unreachable(reader, address, words):
    reader.watch("demo/shop", [Query("errors", "up", 60)], address)
    reading = await first(reader)
    assert reading.outcome is Outcome.UNREACHABLE
    assert words in reading.detail


async def test_there_is_no_reading_before_the_first_answer_and_none_after_the_end(prometheus, reader):
    prometheus.answer = vector(({}, "1"))
    assert reader.reading("demo/shop", "errors") is None
    reader.watch("demo/shop", [Query("errors", "up", 60)], prometheus.url)
    assert reader.reading("demo/shop", "errors") is None
    assert reader.reading("demo/shop", "other") is None
    await first(reader)
    reader.unwatch("demo/shop")
    assert reader.reading("demo/shop", "errors") is None
    assert reader.readings("demo/shop") == ()


async def test_each_query_is_asked_every_interval_and_numbered(prometheus, reader):
    prometheus.answer = lambda _: asyncio.sleep(0, vector(({}, "1")))
    reader.watch("demo/shop", [Query("fast", "f", 0.05), Query("slow", "s", 60)], prometheus.url)
    await first(reader, metric="slow")
    sequences = set()
    async with asyncio.timeout(3):
        while len(sequences) < 4:
            sequences.add(reader.reading("demo/shop", "fast").sequence)
            await asyncio.sleep(0.01)
    assert max(sequences) - min(sequences) == 3
    assert prometheus.asked.count("s") == 1
    assert [reading.metric for reading in reader.readings("demo/shop")] == ["fast", "slow"]


async def test_sequences_go_on_growing_in_the_next_process(prometheus, reader):
    prometheus.answer = vector(({}, "1"))
    reader.watch("demo/shop", [Query("errors", "up", 60)], prometheus.url)
    before = (await first(reader)).sequence
    later = MetricReader(deadline_s=0.4, wall=lambda: time.time() + 5)
    prometheus.answer = vector(({}, "1"))
    later.watch("demo/shop", [Query("errors", "up", 60)], prometheus.url)
    assert (await first(later)).sequence > before
    await later.close()


async def test_the_same_watch_again_changes_nothing_and_another_one_replaces_it(prometheus, reader):
    prometheus.answer = lambda _: asyncio.sleep(0, vector(({}, "1")))
    for _ in range(3):
        reader.watch("demo/shop", [Query("errors", "a", 60)], prometheus.url)
    await first(reader)
    assert prometheus.asked == ["a"]
    reader.watch("demo/shop", [Query("errors", "b", 60)], prometheus.url)
    assert reader.reading("demo/shop", "errors") is None
    await first(reader)
    assert prometheus.asked == ["a", "b"]


async def test_one_canary_has_one_query_in_flight_and_one_address_its_share(prometheus, reader):
    prometheus.answer = silent
    reader.watch("demo/a", [Query(f"m{i}", f"a{i}", 0.05) for i in range(5)], prometheus.url)
    await asyncio.sleep(0.5)
    assert prometheus.most_at_once == 1
    for other in "bcdef":
        reader.watch(f"demo/{other}", [Query("m", "q", 0.05)], prometheus.url)
    await asyncio.sleep(0.8)
    assert prometheus.most_at_once <= PER_ADDRESS + 1  # the fake notices a closed connection a little later


async def test_a_server_that_hangs_does_not_delay_the_queries_of_others(prometheus, reader):
    prometheus.answer = silent
    other, runner = await serve()
    other.answer = vector(({}, "1"))
    for number in range(8):
        reader.watch(f"bad/{number}", [Query("m", "q", 0.05)], prometheus.url)
    await asyncio.sleep(0.1)
    start = time.monotonic()
    reader.watch("good/shop", [Query("errors", "up", 60)], other.url)
    assert (await first(reader, "good/shop")).outcome is Outcome.VALUE
    assert time.monotonic() - start < 0.2
    await runner.cleanup()


async def test_watching_anew_again_and_again_does_not_take_more_than_the_share(prometheus, reader):
    prometheus.answer = silent
    for number in range(10):
        reader.watch("demo/shop", [Query("m", f"q{number}", 60)], prometheus.url)
        await asyncio.sleep(0.02)
    assert len(prometheus.asked) <= PER_ADDRESS


async def test_many_counters_are_read_at_once(reader, prometheus):
    prometheus.answer = vector(({"pod": "a"}, "3"), ({"pod": "b"}, "4.5"))
    reader.watch("demo/shop", [Query("requests", "x", 60, many=True)], prometheus.url)
    reading = await first(reader, metric="requests")
    assert reading.outcome is Outcome.VALUE
    assert reading.series == (Series({"pod": "a"}, 3.0), Series({"pod": "b"}, 4.5))


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (vector(), Outcome.EMPTY),
        (vector(({"pod": "a"}, "1"), ({"pod": "b"}, "NaN")), Outcome.NAN),
        (result([{"metric": {}, "values": [[1, "1"]]}]), Outcome.QUERY_ERROR),
        (result([1.0, "3"]), Outcome.UNREACHABLE),
        (error(400, "bad_data", "parse error"), Outcome.QUERY_ERROR),
    ],
)
async def test_what_is_no_counter_among_many_has_a_name(reader, prometheus, answer, outcome):
    prometheus.answer = answer
    reader.watch("demo/shop", [Query("requests", "x", 60, many=True)], prometheus.url)
    reading = await first(reader, metric="requests")
    assert reading.outcome is outcome
    assert reading.series == ()
