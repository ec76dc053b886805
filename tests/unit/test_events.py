"""Events: aggregated, bounded, and never in the way; in virtual time."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from structlog.testing import capture_logs

from serinus.kube import events as events_module
from serinus.kube.errors import NotFound, Rejected, Transient
from serinus.kube.events import BURST, EventPoster
from serinus.kube.kinds import EVENT


class Server:
    """Keeps what is written; raises ``problems`` in turn first."""

    def __init__(self, *problems: BaseException) -> None:
        self.problems = list(problems)
        self.created: list[dict] = []
        self.patched: list[tuple[str, dict]] = []

    async def create(self, kind, body, namespace=None):
        assert kind is EVENT
        if self.problems:
            raise self.problems.pop(0)
        self.created.append(body)
        return body

    async def patch(self, kind, name, namespace, change):
        if self.problems:
            raise self.problems.pop(0)
        self.patched.append((name, change))
        return change


def canary(name: str = "shop") -> dict:
    meta = {"name": name, "namespace": "demo", "uid": f"uid-{name}", "resourceVersion": "7"}
    return {"apiVersion": "serinus.dev/v1alpha1", "kind": "Canary", "metadata": meta}


@asynccontextmanager
async def posting(server: Server):
    poster = EventPoster(server, "serinus-0")
    task = asyncio.create_task(poster.run())
    try:
        with capture_logs() as poster.logs:
            yield poster
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settle() -> None:
    await asyncio.sleep(0.01)


def test_an_event_says_about_whom_why_and_by_whom(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            poster.post(canary(), "RolledBack", "12 of 40 requests failed", kind="Warning", action="Rollback")
            await settle()
        [event] = server.created
        assert event["metadata"]["namespace"] == "demo"
        assert event["metadata"]["name"].startswith("shop.")
        assert event["regarding"] == {
            "apiVersion": "serinus.dev/v1alpha1",
            "kind": "Canary",
            "name": "shop",
            "namespace": "demo",
            "uid": "uid-shop",
            "resourceVersion": "7",
        }
        told = (event["type"], event["reason"], event["note"], event["action"], event["reportingInstance"])
        assert told == ("Warning", "RolledBack", "12 of 40 requests failed", "Rollback", "serinus-0")
        assert "series" not in event

    in_virtual_time(scenario())


def test_the_same_again_within_ten_minutes_counts_up_one_series(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            for _ in range(3):
                poster.post(canary(), "Waiting", "for requests")
                await asyncio.sleep(500)
        assert len(server.created) == 1
        name = server.created[0]["metadata"]["name"]
        assert [(where, change["series"]["count"]) for where, change in server.patched] == [(name, 2), (name, 3)]

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("second", "pause"),
    [
        pytest.param(("Waiting", "for requests"), 601, id="later than ten minutes after the last"),
        pytest.param(("Waiting", "for approval"), 1, id="with another message"),
        pytest.param(("Paused", "for requests"), 1, id="with another reason"),
    ],
)
def test_a_new_event_is_made(in_virtual_time, second, pause):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            poster.post(canary(), "Waiting", "for requests")
            await asyncio.sleep(pause)
            poster.post(canary(), *second)
            await settle()
        assert (len(server.created), server.patched) == (2, [])

    in_virtual_time(scenario())


def test_repeats_before_the_first_is_sent_make_one_write_with_their_number(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            for _ in range(5):
                poster.post(canary(), "Waiting", "for requests")
            await settle()
        [event] = server.created
        assert event["series"]["count"] == 5
        assert server.patched == []

    in_virtual_time(scenario())


def test_one_object_cannot_post_without_end_and_does_not_silence_another(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            for number in range(BURST + 10):
                poster.post(canary(), "Analysing", f"step {number}")
                await settle()
            assert (len(server.created), poster.dropped) == (BURST, 10)
            poster.post(canary("other"), "Analysing", "step 1")
            await asyncio.sleep(events_module.REFILL_S + 1)
            poster.post(canary(), "Analysing", "later")
            await settle()
        assert len(server.created) == BURST + 2
        assert [line["why"] for line in poster.logs] == ["too many about one object"] * 10

    in_virtual_time(scenario())


def test_the_queue_is_bounded(in_virtual_time, monkeypatch):
    monkeypatch.setattr(events_module, "QUEUE", 3)

    async def scenario():
        server = Server()
        poster = EventPoster(server, "serinus-0")
        with capture_logs() as logs:
            for number in range(5):
                poster.post(canary(f"c{number}"), "Adopted", "yes")
            await poster.drain()
        assert (len(server.created), poster.dropped) == (3, 2)
        assert {line["why"] for line in logs} == {"too many in all"}

    in_virtual_time(scenario())


@pytest.mark.parametrize(
    ("problems", "created", "dropped"),
    [
        pytest.param([Transient("busy", 1.0)], 1, 0, id="a server that is busy is asked once more"),
        pytest.param([Transient("busy"), Transient("busy")], 0, 1, id="and not a third time"),
        pytest.param([Rejected("forbidden")], 0, 1, id="a refusal is final"),
        pytest.param([RuntimeError("odd")], 0, 1, id="a defect does not stop the poster"),
    ],
)
def test_trouble_costs_at_most_the_event(in_virtual_time, problems, created, dropped):
    async def scenario():
        server = Server(*problems)
        async with posting(server) as poster:
            poster.post(canary(), "Adopted", "yes")
            await asyncio.sleep(30)
            assert (len(server.created), poster.dropped) == (created, dropped)
            poster.post(canary("other"), "Adopted", "yes")
            await settle()
        assert len(server.created) == created + 1

    in_virtual_time(scenario())


def test_a_series_whose_event_has_expired_goes_on_in_a_new_one(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            poster.post(canary(), "Waiting", "for requests")
            await settle()
            server.problems.append(NotFound("expired"))
            poster.post(canary(), "Waiting", "for requests")
            await settle()
            poster.post(canary(), "Waiting", "for requests")
            await settle()
        first, second = server.created
        assert first["metadata"]["name"] != second["metadata"]["name"]
        assert second["series"]["count"] == 2
        assert server.patched[0][0] == second["metadata"]["name"]

    in_virtual_time(scenario())


@pytest.mark.parametrize("about", [{}, {"metadata": None}, {"metadata": {"name": "x"}}])
def test_an_object_without_identity_is_dropped_and_does_not_raise(in_virtual_time, about):
    async def scenario():
        async with posting(Server()) as poster:
            poster.post(about, "Adopted", "yes")
            assert poster.dropped == 1

    in_virtual_time(scenario())


def test_long_words_are_cut_to_what_the_server_takes(in_virtual_time):
    async def scenario():
        server = Server()
        async with posting(server) as poster:
            poster.post(canary("n" * 253), "Error", "ü" * 5000)
            await settle()
        [event] = server.created
        assert 1000 < len(event["note"].encode()) <= 1024
        assert len(event["metadata"]["name"]) <= 253

    in_virtual_time(scenario())
