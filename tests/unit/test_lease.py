"""Leader election in virtual time, against a Lease that conflicts, stalls and fails like the real one."""

import asyncio
import copy
import random

import pytest
from structlog.testing import capture_logs

from serinus.kube.errors import Conflict, NotFound, Transient
from serinus.kube.kinds import LEASE
from serinus.kube.lease import DURATION_S, Lease


def now() -> float:
    return asyncio.get_running_loop().time()


class Server:
    """One stored Lease with optimistic locking."""

    def __init__(self) -> None:
        self.stored: dict | None = None
        self.version = 0
        self.writes = 0

    def keep(self, body: dict) -> dict:
        self.version += 1
        self.writes += 1
        self.stored = copy.deepcopy(body)
        self.stored["metadata"] |= {"resourceVersion": str(self.version), "uid": "u"}
        return copy.deepcopy(self.stored)

    @property
    def holder(self) -> str:
        return self.stored["spec"]["holderIdentity"]


class Wire:
    """One candidate's way to the server, ``lag()`` seconds long; ``cut`` fails at once, ``hung`` never answers."""

    def __init__(self, server: Server, lag=lambda: 0.0) -> None:
        self.server, self.lag = server, lag
        self.cut = self.hung = False

    async def travel(self) -> None:
        if self.cut:
            raise Transient("connection refused")
        await asyncio.sleep(3600 if self.hung else self.lag())

    async def get(self, kind, name, namespace=None):
        assert (kind, name, namespace) == (LEASE, "serinus", "serinus-system")
        await self.travel()
        found = copy.deepcopy(self.server.stored)
        await self.travel()
        if found is None:
            raise NotFound("no lease")
        return found

    async def create(self, kind, body, namespace=None):
        await self.travel()
        if self.server.stored is not None:
            raise Conflict("exists", reason="AlreadyExists")
        kept = self.server.keep(body)
        await self.travel()
        return kept

    async def replace(self, kind, body):
        await self.travel()
        if body["metadata"]["resourceVersion"] != str(self.server.version):
            raise Conflict("stale")
        kept = self.server.keep(body)
        await self.travel()
        return kept


async def stopped(*tasks: asyncio.Task) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def _quiet():
    with capture_logs():
        yield


def test_the_first_candidate_leads_at_once_and_keeps_leading(in_virtual_time):
    async def scenario():
        server = Server()
        lease = Lease(Wire(server), "a")
        start = now()
        await lease.acquire()
        assert (now() - start, lease.held, server.holder) == (0, True, "a")
        lost = []
        task = asyncio.create_task(lease.hold(lambda: lost.append(now())))
        await asyncio.sleep(100)
        assert lease.held
        assert lost == []
        assert server.writes == pytest.approx(100 / 3, abs=2)
        assert server.stored["spec"]["leaseTransitions"] == 0
        await stopped(task)

    in_virtual_time(scenario())


def test_a_clean_stop_hands_over_within_a_second(in_virtual_time):
    async def scenario():
        server = Server()
        first, second = Lease(Wire(server), "a"), Lease(Wire(server), "b")
        await first.acquire()
        holding = asyncio.create_task(first.hold(lambda: None))
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(10)
        assert not second.held
        await stopped(holding)
        assert (first.held, server.holder) == (False, "")
        released = now()
        await waiting
        assert now() - released <= 1
        assert server.holder == "b"
        assert server.stored["spec"]["leaseTransitions"] == 1

    in_virtual_time(scenario())


def test_a_holder_that_dies_is_succeeded_after_the_duration_by_the_candidates_own_clock(in_virtual_time):
    async def scenario():
        server = Server()
        await Lease(Wire(server), "a").acquire()
        server.stored["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"  # another machine's clock does not matter
        second, start = Lease(Wire(server), "b"), now()
        await second.acquire()
        assert DURATION_S <= now() - start <= DURATION_S + 1

    in_virtual_time(scenario())


@pytest.mark.parametrize("fault", ["cut", "hung"])
def test_a_holder_that_cannot_renew_has_lost_after_ten_seconds(in_virtual_time, fault):
    async def scenario():
        server = Server()
        wire = Wire(server)
        lease, lost = Lease(wire, "a"), []
        await lease.acquire()
        task = asyncio.create_task(lease.hold(lambda: lost.append(now())))
        await asyncio.sleep(30)
        setattr(wire, fault, True)
        start = now()
        await task
        assert 7 <= lost[0] - start <= 10
        assert not lease.held

    in_virtual_time(scenario())


def test_a_short_outage_costs_nothing(in_virtual_time):
    async def scenario():
        wire = Wire(Server())
        lease, lost = Lease(wire, "a"), []
        await lease.acquire()
        task = asyncio.create_task(lease.hold(lambda: lost.append(1)))
        await asyncio.sleep(9.5)
        wire.cut = True
        await asyncio.sleep(5)
        wire.cut = False
        await asyncio.sleep(30)
        assert (lost, lease.held) == ([], True)
        await stopped(task)

    in_virtual_time(scenario())


def test_a_holder_whose_process_stood_still_does_not_believe_that_it_leads(in_virtual_time):
    async def scenario():
        lease, lost = Lease(Wire(Server()), "a"), []
        await lease.acquire()
        asyncio.get_running_loop().jump.now += 11
        assert not lease.held
        await lease.hold(lambda: lost.append(1))
        assert lost == [1]

    in_virtual_time(scenario())


def test_a_lease_taken_by_force_is_noticed_with_the_next_renewal(in_virtual_time):
    async def scenario():
        server = Server()
        lease, lost = Lease(Wire(server), "a"), []
        await lease.acquire()
        task = asyncio.create_task(lease.hold(lambda: lost.append(now())))
        await asyncio.sleep(1)
        stolen = copy.deepcopy(server.stored)
        stolen["spec"]["holderIdentity"] = "thief"
        server.keep(stolen)
        start = now()
        await task
        assert lost[0] - start <= 3
        assert server.holder == "thief"

    in_virtual_time(scenario())


def test_a_write_by_another_program_does_not_cost_the_lease(in_virtual_time):
    async def scenario():
        server = Server()
        lease, lost = Lease(Wire(server), "a"), []
        await lease.acquire()
        task = asyncio.create_task(lease.hold(lambda: lost.append(1)))
        for _ in range(20):
            await asyncio.sleep(1.5)
            server.keep({**server.stored, "metadata": {**server.stored["metadata"], "annotations": {}}})
        assert (lost, lease.held) == ([], True)
        await stopped(task)

    in_virtual_time(scenario())


def test_a_stop_while_the_server_is_away_ends_soon(in_virtual_time):
    async def scenario():
        wire = Wire(Server())
        lease = Lease(wire, "a")
        await lease.acquire()
        task = asyncio.create_task(lease.hold(lambda: None))
        await asyncio.sleep(1)
        wire.hung = True
        start = now()
        await stopped(task)
        assert now() - start <= 3
        assert not lease.held

    in_virtual_time(scenario())


@pytest.mark.parametrize("seed", range(8))
def test_two_never_hold_at_once_whatever_network_and_stops_do(in_virtual_time, seed):
    async def scenario():
        chance = random.Random(seed)
        server = Server()
        wires = [Wire(server, lag=lambda: chance.choice((0.0, 0.01, 0.5, 4.0))) for _ in range(3)]
        leases = [Lease(wire, name) for wire, name in zip(wires, "abc", strict=True)]

        async def candidate(lease: Lease) -> None:
            while True:
                await lease.acquire()
                holding = asyncio.create_task(lease.hold(lambda: None))
                try:
                    await asyncio.wait([holding], timeout=chance.uniform(1, 120))
                finally:
                    await stopped(holding)

        tasks = [asyncio.create_task(candidate(lease)) for lease in leases]
        led = set()
        for _ in range(6000):
            await asyncio.sleep(0.25)
            if chance.random() < 0.02:
                wire = chance.choice(wires)
                wire.cut, wire.hung = chance.choice([(False, False), (False, False), (True, False), (False, True)])
            holders = [lease.identity for lease in leases if lease.held]
            assert len(holders) <= 1
            led.update(holders)
        assert len(led) == 3
        await stopped(*tasks)

    in_virtual_time(scenario())
