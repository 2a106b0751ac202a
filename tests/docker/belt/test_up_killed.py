"""The containers of a `belt up` that ends: asked to, they finish; killed, the next one on the home removes them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from belt.local import containers
from belt.local.home import Home
from contracts.events import ImagePushed
from services.messaging.connection import connect
from tests.chaos.faults import Hurt
from tests.docker import tiny
from tests.docker.registries import Registry
from tests.integration.services.deployer.rollouts import await_event, publish

pytestmark = pytest.mark.timeout(300)
IN_CONTAINERS = {"DEPLOYER_SERVERS": "containers"}


@pytest.fixture
def belts(home: Path) -> Iterator[Callable[..., Hurt]]:
    """Starts a `belt up` on the one home, with settings."""
    started: list[Hurt] = []

    def start(**settings: str) -> Hurt:
        started.append(Hurt(home, **settings))
        started[-1].up()
        return started[-1]

    yield start
    for belt in started:
        belt.end()


@pytest.fixture
def serving(image: ImagePushed, engine: docker.DockerClient, home: Path) -> Iterator[Callable[[], list[Any]]]:
    """The containers of the home, running or not; removed in the end."""

    def found() -> list[Any]:
        mine = {"label": f"dev.bentobelt.belt={containers.label(Home(home))}"}
        return list(engine.containers.list(all=True, filters=mine))

    yield found
    for container in found():
        container.remove(force=True)


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, shared_registry: Registry) -> Iterator[ImagePushed]:
    """A version that was built elsewhere."""
    pushed = tiny.push(engine, shared_registry, 1)
    yield pushed
    tiny.remove(engine, pushed.image)


async def deploy(belt: Hurt, image: ImagePushed) -> None:
    bus = await connect(belt.nats_url(), reconnect=False)
    await publish(bus, image, id="push", generation=1)
    await await_event(bus, "model.deployed")
    await bus.close()


async def test_when_it_stops_they_finish(
    belts: Callable[..., Hurt],
    image: ImagePushed,
    serving: Callable[[], list[Any]],
    engine: docker.DockerClient,
    home: Path,
) -> None:
    belt, began = belts(**IN_CONTAINERS), int(time.time())
    await deploy(belt, image)
    [container] = serving()
    belt.down()
    assert serving() == []
    filters = {"container": container.id, "event": "die"}
    died = engine.events(since=began, until=int(time.time()) + 1, decode=True, filters=filters)
    assert [event["Actor"]["Attributes"]["exitCode"] for event in died] == ["0"]
    assert not (home / "run" / "containers").exists()


async def test_after_a_kill_the_next_one_removes_them_whatever_it_is_set_to(
    belts: Callable[..., Hurt], image: ImagePushed, serving: Callable[[], list[Any]]
) -> None:
    first = belts(**IN_CONTAINERS)
    await deploy(first, image)
    first.kill_itself()
    [container] = serving()
    assert container.status == "running"
    belts(DEPLOYER_SERVERS="processes")
    assert serving() == []


async def test_an_engine_that_is_away_does_not_keep_it_from_stopping(
    belts: Callable[..., Hurt], home: Path, tmp_path: Path
) -> None:
    belt = belts(**IN_CONTAINERS, DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    belt.down()
    assert (home / "run" / "containers").exists()
    assert not (home / "nats.url").exists()
