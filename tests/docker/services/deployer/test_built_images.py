"""Rollouts of what the builder really makes: examples/digits, from approval to traffic."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest

from contracts.events import ImagePushed, ModelDeployed
from contracts.values import Value
from services.builder.domain import pushed
from services.messaging.connection import Bus
from tests.docker import tiny
from tests.docker.deployments import Deployment, gateway
from tests.docker.makers import Maker
from tests.docker.registries import Registry
from tests.integration.services.deployer.rollouts import Traffic, serves, version
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(600)
"""The first image of an environment needs its runtime built: a minute, or more where much else goes on."""

MODEL, NUMBERS = "digits", (1, 2, 3)


@pytest.fixture(scope="module")
def images(
    engine: docker.DockerClient, shared_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[int, ImagePushed]]:
    """Three versions of the example, built and pushed; the engine has only their runtime."""
    built = asyncio.run(_build(tmp_path_factory.mktemp("built"), shared_registry.address))
    for event in built.values():
        if tiny.has(engine, event.image):  # the builder has removed the oldest already
            tiny.remove(engine, engine.images.get(event.image).id)
    yield built
    for event in built.values():
        tiny.remove(engine, event.image)


async def _build(home: Path, registry: str) -> dict[int, ImagePushed]:
    built = {}
    async with Maker(home, registry) as maker:
        for number in NUMBERS:
            event = await maker.example(MODEL, number, trees=20)
            spec = await maker.bentos.spec(event)
            spec = spec.model_copy(update={"serve": spec.serve.model_copy(update={"memory": 512 * tiny.MIB})})
            built[number] = pushed(event, await maker.make(event), spec)
    return built


@pytest.fixture
async def target(bus: Bus, nats_url: str, tmp_path: Path, engine: docker.DockerClient) -> AsyncIterator[Deployment]:
    for number in range(6):  # a rollback's order comes after the generations of the images
        await bus.js.publish("alert.raised", b"{}", headers={"Nats-Msg-Id": str(number)})
    with gateway(tmp_path) as traefik:
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        deployment = Deployment(bus, nats_url, traefik, tmp_path / "deployer", engine, host, model=MODEL)
        deployment.start()
        yield deployment
        deployment.stop()
        deployment.clear()


async def test_built_images_roll_out_and_back_under_traffic_without_a_failed_request(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    row: dict[str, Value] = images[1].probe.rows[0]
    await target.push(images[1])
    await target.expect(ModelDeployed)
    with Traffic(target.url, model=MODEL, row=row) as traffic:
        for number in NUMBERS[1:]:
            await target.push(images[number])
            await target.expect(ModelDeployed, number)
        await target.back()
        back = await target.expect(ModelDeployed, 4)
        assert (back.version, back.reason) == (version(2), "rollback")
        await eventually(lambda: asyncio.to_thread(lambda: serves(target.url, MODEL, row) == version(2)))
    assert traffic.failures == []
    assert set(traffic.answered) == {version(number) for number in NUMBERS}
    inside = target.containers[version(2)]
    code, said = inside.exec_run(["python", "-c", "open('/bento/x', 'w')"])
    assert code != 0
    assert b"Read-only file system" in said
