"""One belt for all faults: whatever one test does to it, the next one finds it at work."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from contracts.subjects import WORKERS
from services.messaging.connection import Bus, connect
from tests.chaos.faults import Hurt, Traffic, idle, impatient
from tests.chaos.held import MODEL, Held
from tests.waiting import eventually


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    return Held(tmp_path_factory.mktemp("held"))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, held: Held) -> Iterator[Hurt]:
    belt = Hurt(tmp_path_factory.mktemp("chaos") / "home")
    try:
        belt.up()
        asyncio.run(_make_impatient(belt))
        for worker in WORKERS:
            belt.kill(worker)
        first = belt.push(held.project)
        assert first["outcome"] == "deployed", first
        yield belt
    finally:
        held.release_all()
        belt.end()


async def _make_impatient(belt: Hurt) -> None:
    bus = await connect(belt.nats_url())
    await impatient(bus)
    await bus.close()


@pytest.fixture
async def bus(running: Hurt) -> AsyncIterator[Bus]:
    connected = await connect(running.nats_url())
    yield connected
    await connected.close()


@pytest.fixture
async def belt(running: Hurt, bus: Bus, held: Held) -> AsyncIterator[Hurt]:
    """The belt with nothing under way and a version live."""
    await eventually(lambda: idle(bus), 60)
    running.version(MODEL)
    yield running
    held.release_all()


@pytest.fixture
def traffic(belt: Hurt) -> Iterator[Traffic]:
    """Requests all the time; what fails is for the test to judge."""
    with Traffic(str(belt.http.base_url)) as asking:
        yield asking
