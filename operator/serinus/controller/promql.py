"""Users' metrics: their PromQL asked of their Prometheus, in the background, by as few threads as will do.

``prometheus-api-client`` is synchronous, so queries run in a pool of ``THREADS``, each with clients of its own. One
Canary has at most one query in flight and one address at most ``PER_ADDRESS``, so that a server that hangs takes its
share of the pool and no more. Every query ends within ``DEADLINE_S``. Whatever comes back is a ``Reading`` with a named
``Outcome``; only ``Value`` is evidence, and nothing here raises.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import structlog
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from requests import JSONDecodeError, RequestException, Response, Session, Timeout
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import Retry
from urllib3.util import Timeout as Limit

from serinus.analysis.model import Outcome, Reading, Series

THREADS = 4
PER_ADDRESS = 2
DEADLINE_S = 5.0
FASTEST_S = 1.0
ANSWER_LIMIT_BYTES = 1024 * 1024
CLIENTS_PER_THREAD = 16
DETAIL_LIMIT = 300

log = structlog.get_logger()


class Query(NamedTuple):
    """What is asked: a name for it, PromQL with all names filled in, every how many seconds, for one number or many."""

    name: str
    text: str
    interval_s: float
    many: bool = False


def ask(client: PrometheusConnect, session: "BoundedSession", query: Query, deadline_s: float) -> Reading:
    """Ask one query and say what came back. Blocks for ``deadline_s`` and a little at most; never raises."""
    session.begin(deadline_s)
    series: tuple[Series, ...] = ()
    value: float | None = None
    try:
        result = client.custom_query(query.text)
        if query.many:
            outcome, series, detail = _counters(result)
        else:
            outcome, value, detail = _understood(result)
    except PrometheusApiClientException:
        outcome, detail = _refused(session.last)
    except (Timeout, TimeoutError):
        outcome, detail = Outcome.TIMEOUT, f"no answer within {deadline_s:g} s"
    except (JSONDecodeError, KeyError, TypeError, AttributeError, IndexError) as problem:
        outcome, detail = Outcome.UNREACHABLE, f"did not answer as Prometheus does: {problem!r}"
    except RequestException as problem:
        outcome, detail = Outcome.UNREACHABLE, f"cannot be reached: {_cause(problem)}"
    except Exception as problem:  # noqa: BLE001 - whatever an odd server brings about is its outcome, not our end
        outcome, detail = Outcome.UNREACHABLE, repr(problem)
    return Reading(query.name, outcome, value, detail[:DETAIL_LIMIT], series=series)


class BoundedSession(Session):
    """A session whose answers end: in time, though they drip, and in size."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Response | None = None
        self._until = 0.0
        self._deadline_s = DEADLINE_S

    def begin(self, deadline_s: float) -> None:
        """Start the clock of the next answer."""
        self._deadline_s = deadline_s
        self._until = time.monotonic() + deadline_s
        self.last = None

    def request(self, *args: Any, **kwargs: Any) -> Response:
        """Send a request and read its answer to the end, within the bounds. Redirects are not followed.

        Raises:
            RequestException: as ``requests`` does; ``Timeout`` when it took longer.
            ValueError: the answer is too long.
        """
        kwargs |= {"stream": True, "timeout": Limit(total=self._deadline_s), "allow_redirects": False}
        response = super().request(*args, **kwargs)
        body = bytearray()
        try:
            while chunk := response.raw.read1(65536, decode_content=True):  # read() would wait until it is full
                body += chunk
                if time.monotonic() > self._until:
                    raise Timeout("the answer drips")
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise ValueError(f"an answer of more than {ANSWER_LIMIT_BYTES} bytes")
        except ReadTimeoutError as problem:
            raise Timeout(str(problem)) from problem
        except HTTPError as problem:
            raise RequestException(str(problem)) from problem
        finally:
            response.close()
        response._content = bytes(body)  # noqa: SLF001 - what Response.content would set, had it a bound
        self.last = response
        return response


@dataclass(slots=True)
class _Watch:
    queries: tuple[Query, ...]
    address: str
    task: asyncio.Task[None] | None = None
    readings: dict[str, Reading] = field(default_factory=dict)


class MetricReader:
    """Keeps the last answer to every query of every Canary. All methods belong to one event loop."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, wall: Callable[[], float] = time.time):
        self._deadline_s = deadline_s
        self._wall = wall
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="promql")
        self._local = threading.local()
        self._threads = asyncio.Semaphore(THREADS)
        self._addresses: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_ADDRESS))
        self._watches: dict[str, _Watch] = {}
        self._sequences: dict[tuple[str, str], int] = {}

    def watch(self, key: str, queries: Sequence[Query], address: str) -> None:
        """Ask these queries of this server every so often, in place of what was asked for ``key`` before.

        Called again with the same, it changes nothing. Each query is asked at once first; no interval is shorter than
        ``FASTEST_S``.
        """
        wanted = tuple(query._replace(interval_s=max(query.interval_s, FASTEST_S)) for query in queries)
        present = self._watches.get(key)
        if present and (present.queries, present.address) == (wanted, address):
            return
        self._stop(key)
        if not wanted:
            return
        watch = self._watches[key] = _Watch(wanted, address)
        watch.task = asyncio.create_task(self._follow(key, watch), name=f"promql {key}")

    def unwatch(self, key: str) -> None:
        """Stop asking for ``key`` and drop its readings."""
        self._stop(key)
        for known in [known for known in self._sequences if known[0] == key]:
            del self._sequences[known]

    def reading(self, key: str, metric: str) -> Reading | None:
        """Return the last answer, or ``None`` before the first."""
        watch = self._watches.get(key)
        return watch.readings.get(metric) if watch else None

    def readings(self, key: str) -> tuple[Reading, ...]:
        """Return the last answer to each query of ``key`` that has one, in the queries' order."""
        watch = self._watches.get(key)
        if not watch:
            return ()
        return tuple(watch.readings[query.name] for query in watch.queries if query.name in watch.readings)

    async def close(self) -> None:
        """Stop asking, and give up on what is in flight."""
        tasks = [watch.task for watch in self._watches.values() if watch.task]
        for key in list(self._watches):
            self.unwatch(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, key: str, watch: _Watch) -> None:
        clock = asyncio.get_running_loop().time
        due = [clock()] * len(watch.queries)
        while True:
            soonest = min(range(len(due)), key=due.__getitem__)
            await asyncio.sleep(max(due[soonest] - clock(), 0.0))
            query = watch.queries[soonest]
            due[soonest] = max(due[soonest] + query.interval_s, clock())
            reading = await self._answered(watch.address, query)
            before = watch.readings.get(query.name)
            if before is None or before.outcome is not reading.outcome:
                log.info("metric", key=key, metric=query.name, outcome=reading.outcome, detail=reading.detail)
            watch.readings[query.name] = replace(reading, sequence=self._numbered(key, query.name))

    async def _answered(self, address: str, query: Query) -> Reading:
        """Ask in the pool. Even when we are cancelled, the slots are kept until the thread has come back."""
        at_address = self._addresses[address]
        await at_address.acquire()
        try:
            await self._threads.acquire()
        except BaseException:
            at_address.release()
            raise
        loop = asyncio.get_running_loop()

        def free(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(at_address.release)
                loop.call_soon_threadsafe(self._threads.release)

        job = self._pool.submit(self._in_thread, address, query)
        job.add_done_callback(free)
        return await asyncio.shield(asyncio.wrap_future(job))

    def _in_thread(self, address: str, query: Query) -> Reading:
        try:
            client, session = self._client(address)
        except ValueError as problem:
            detail = f"{address} is no address: {problem}"[:DETAIL_LIMIT]
            return Reading(query.name, Outcome.UNREACHABLE, None, detail)
        return ask(client, session, query, self._deadline_s)

    def _client(self, address: str) -> tuple[PrometheusConnect, BoundedSession]:
        """Return this thread's own client of a server; sessions are not made for several threads."""
        clients: OrderedDict[str, tuple[PrometheusConnect, BoundedSession]]
        clients = self._local.__dict__.setdefault("clients", OrderedDict())
        if address not in clients:
            session = BoundedSession()
            clients[address] = (
                PrometheusConnect(address.rstrip("/"), retry=Retry(0, read=False), session=session),
                session,
            )
            while len(clients) > CLIENTS_PER_THREAD:
                clients.popitem(last=False)[1][1].close()
        clients.move_to_end(address)
        return clients[address]

    def _stop(self, key: str) -> None:
        watch = self._watches.pop(key, None)
        if watch and watch.task:
            watch.task.cancel()

    def _numbered(self, key: str, metric: str) -> int:
        """Return the next sequence number.

        It begins with the time of day in seconds, and grows by one at most once a second: so it goes on growing when
        this process is replaced by another.
        """
        number = max(self._sequences.get((key, metric), 0) + 1, int(self._wall()))
        self._sequences[key, metric] = number
        return number


def _understood(result: object) -> tuple[Outcome, float | None, str]:
    """Read the ``result`` of an instant query: a vector of samples, or a scalar ``[time, "value"]``."""
    if not isinstance(result, list):
        raise TypeError("the result is no list")
    if len(result) == 2 and not isinstance(result[0], dict):
        return _number(result[1])
    if not result:
        return Outcome.EMPTY, None, "the query gave nothing"
    if "value" not in result[0]:
        what = "a range of values" if "values" in result[0] else "a histogram"
        how = "rate() or avg_over_time()" if "values" in result[0] else "histogram_quantile()"
        return Outcome.QUERY_ERROR, None, f"the query gives {what}; make one number of it, for example with {how}"
    if len(result) > 1:
        shown = "; ".join(_labels(sample) for sample in result[:3])
        return Outcome.MANY_SERIES, None, f"the query gave {len(result)} series, such as {shown}; sum or filter them"
    return _number(result[0]["value"][1])


def _counters(result: object) -> tuple[Outcome, tuple[Series, ...], str]:
    """Read an instant vector of counters."""
    if not isinstance(result, list):
        raise TypeError("the result is no list")
    found: list[Series] = []
    for sample in result:
        if "value" not in sample:
            detail = "the query gives ranges or native histograms; write queries that give counters"
            return Outcome.QUERY_ERROR, (), detail
        outcome, value, detail = _number(sample["value"][1])
        if value is None:
            return outcome, (), f"{_labels(sample)}: {detail}"
        found.append(Series(dict(sample["metric"]), value))
    if not found:
        return Outcome.EMPTY, (), "the query gave nothing"
    return Outcome.VALUE, tuple(found), ""


def _number(text: object) -> tuple[Outcome, float | None, str]:
    try:
        value = float(str(text))
    except ValueError:
        return Outcome.QUERY_ERROR, None, f"the query gave the text {str(text)[:50]!r}; give a number"
    if not math.isfinite(value):
        return Outcome.NAN, None, f"the query gave {text}, as when nothing is divided by nothing"
    return Outcome.VALUE, value, ""


def _labels(sample: dict[str, dict[str, str]]) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in sample["metric"].items()) + "}"


def _refused(response: Response | None) -> tuple[Outcome, str]:
    """Read a refusal: Prometheus' own errors carry ``errorType`` and ``error``."""
    if response is None:
        return Outcome.UNREACHABLE, "no answer"
    try:
        told = response.json()
        kind, words = str(told["errorType"]), str(told["error"])
    except (ValueError, KeyError, TypeError):
        return Outcome.UNREACHABLE, f"answered {response.status_code} {response.reason or ''}".rstrip()
    if kind in ("timeout", "canceled"):
        return Outcome.TIMEOUT, words
    if kind in ("bad_data", "execution"):
        return Outcome.QUERY_ERROR, words
    return Outcome.UNREACHABLE, f"{kind}: {words}"


def _cause(problem: BaseException) -> str:
    """Return the words at the bottom of requests' nested exceptions."""
    for inner in problem.args:
        reason = getattr(inner, "reason", None)
        if isinstance(reason, BaseException):
            return str(reason).split(": ", 1)[-1]
    return str(problem)
