"""Serving's connection to a real nats-server that refuses it for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services.messaging.connection import connect
from services.messaging.streams import ensure_topology
from serving.bus import BusUnavailable, ServingBus
from tests.conftest import NatsServer
from tests.waiting import eventually


def users(password: str) -> str:
    return f"authorization {{ users: [{{ user: serving, password: {password} }}] }}\n"


@asynccontextmanager
async def kept(server: NatsServer) -> AsyncIterator[ServingBus]:
    bus = ServingBus(url(server), "serving-digits", 1.0)
    keeping = asyncio.create_task(bus.keep_connected())
    yield bus
    assert not keeping.done()
    keeping.cancel()
    await bus.close()


def url(server: NatsServer) -> str:
    return server.url.replace("://", "://serving:right@")


async def publishes(bus: ServingBus) -> bool:
    try:
        await bus.publish("predictions.digits", b"{}", {})
    except BusUnavailable:
        return False
    return True


async def refuses(bus: ServingBus) -> bool:
    return not await publishes(bus)


def restart(server: NatsServer) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("change", [NatsServer.reload, restart])
async def test_other_credentials_stop_it_only_until_its_own_are_valid_again(
    nats_server: NatsServer, change: Callable[[NatsServer], None], caplog: pytest.LogCaptureFixture
) -> None:
    nats_server.config = users("right")
    restart(nats_server)
    topology = await connect(url(nats_server))
    await ensure_topology(topology)
    await topology.close()
    async with kept(nats_server) as bus:
        await eventually(lambda: publishes(bus))
        nats_server.config = users("another")
        change(nats_server)
        await eventually(lambda: refuses(bus))

        async def is_logged() -> bool:
            return "Authorization Violation" in caplog.text

        await eventually(is_logged)
        nats_server.config = users("right")
        change(nats_server)
        await eventually(lambda: publishes(bus))


async def test_it_may_begin_while_its_credentials_are_refused(nats_server: NatsServer) -> None:
    nats_server.config = users("another")
    restart(nats_server)
    async with kept(nats_server) as bus:
        assert await refuses(bus)
        nats_server.config = users("right")
        nats_server.reload()
        topology = await connect(url(nats_server))
        await ensure_topology(topology)
        await topology.close()
        await eventually(lambda: publishes(bus))
