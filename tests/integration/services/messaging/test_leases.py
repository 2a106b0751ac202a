"""Leases on a real nats-server."""

import asyncio

import pytest

from contracts import subjects
from services.messaging.connection import Bus
from services.messaging.leases import LeaseLost, Leases, LeaseTaken, _Holder


async def test_a_lease_has_one_holder_and_is_given_back(bus: Bus) -> None:
    mine, theirs = Leases(bus), Leases(bus)
    for _ in range(2):
        async with mine.hold("deployer.local.digits"):
            with pytest.raises(LeaseTaken):
                async with theirs.hold("deployer.local.digits"):
                    pass
            async with theirs.hold("deployer.local.other"):
                pass
    async with theirs.hold("deployer.local.digits"):
        pass


async def test_a_waiting_one_gets_it_when_it_is_free(bus: Bus) -> None:
    leases, held, order = Leases(bus), asyncio.Event(), list[str]()

    async def first() -> None:
        async with leases.hold("x"):
            held.set()
            await asyncio.sleep(0)
            order.append("first")

    async def second() -> None:
        await held.wait()
        async with leases.hold("x", wait=10):
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_a_lease_of_a_dead_holder_runs_out(bus: Bus) -> None:
    bucket = await bus.bucket(subjects.LEASES)
    await bucket.put("x", _Holder(id="dead", until=0.0).model_dump_json().encode())
    async with Leases(bus).hold("x"):
        pass


async def test_an_error_inside_gives_it_back(bus: Bus) -> None:
    leases = Leases(bus)
    with pytest.raises(ValueError, match="boom"):
        async with leases.hold("x"):
            raise ValueError("boom")
    async with leases.hold("x"):
        pass


async def test_whoever_lost_it_is_stopped(bus: Bus) -> None:
    leases = Leases(bus, ttl=0.3)
    bucket = await bus.bucket(subjects.LEASES)

    async def be_robbed() -> None:
        async with leases.hold("x"):
            await bucket.put("x", _Holder(id="thief", until=1e12).model_dump_json().encode())
            await asyncio.Event().wait()

    with pytest.raises(LeaseLost):
        await be_robbed()
    with pytest.raises(LeaseTaken):
        async with leases.hold("x"):
            pass


async def test_it_is_renewed_while_it_is_held(bus: Bus) -> None:
    leases = Leases(bus, ttl=0.3)
    async with leases.hold("x"):
        with pytest.raises(LeaseTaken):
            async with Leases(bus).hold("x", wait=1.0):
                pass
