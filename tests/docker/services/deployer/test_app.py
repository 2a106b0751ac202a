"""Rollouts of containers: a real engine, registry, bus and Traefik, and a deployer process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import docker
import pytest

from contracts.events import DeploymentFailed, ImagePushed, ModelDeployed
from services.messaging.connection import Bus
from tests.chaos.faults import impatient
from tests.docker import tiny
from tests.docker.deployments import Deployment, gateway
from tests.docker.registries import Registry
from tests.integration.services.deployer.rollouts import Traffic, serves, version
from tests.waiting import eventually, until

GOOD = range(1, 6)
BAD = {6: "dies", 7: "eats", 8: "never", 9: "wrong"}


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient, shared_registry: Registry) -> Iterator[dict[int, ImagePushed]]:
    pushed = {number: tiny.push(engine, shared_registry, number) for number in GOOD}
    pushed |= {number: tiny.push(engine, shared_registry, number, mode) for number, mode in BAD.items()}
    yield pushed
    for event in pushed.values():
        tiny.remove(engine, event.image)


@pytest.fixture
async def target(bus: Bus, nats_url: str, tmp_path: Path, engine: docker.DockerClient) -> AsyncIterator[Deployment]:
    # Sequences of this stream, and with them rollbacks, must come after the generations of the images.
    for number in range(20):
        await bus.js.publish("alert.raised", b"{}", headers={"Nats-Msg-Id": str(number)})
    with gateway(tmp_path) as traefik:
        host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        deployment = Deployment(bus, nats_url, traefik, tmp_path / "deployer", engine, host)
        deployment.start()
        yield deployment
        deployment.stop()
        deployment.clear()


async def test_versions_roll_out_and_back_under_traffic_without_a_failed_request(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    first = await target.expect(ModelDeployed)
    assert (first.version, first.image, first.previous) == (version(1), images[1].image, None)
    with Traffic(target.url) as traffic:
        for number in GOOD[1:]:
            await target.push(images[number])
            deployed = await target.expect(ModelDeployed, number)
            assert (deployed.version, deployed.previous) == (version(number), version(number - 1))
        await target.back()
        back = await target.expect(ModelDeployed, 6)
        assert (back.version, back.reason, back.previous) == (version(4), "rollback", None)
        await target.serves(version(4))
        await target.back(to=version(1))  # its container is gone by now: it is started again
        await target.expect(ModelDeployed, 7)
    assert traffic.failures == []
    assert set(traffic.answered) == {version(number) for number in GOOD}
    assert serves(target.url) == version(1)
    until(lambda: set(target.containers) == {version(1)})


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (6, "DidNotStart", "no model in here"),
        (7, "DidNotStart", "raise serve.memory"),
        (8, "DidNotStart", "was not ready within 3 s"),
        (9, "PredictionsDiffer", "the deployed one 7"),
    ],
)
async def test_a_bad_version_fails_with_a_reason_and_the_live_one_goes_on(
    target: Deployment, images: dict[int, ImagePushed], bad: int, error: str, says: str
) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    if BAD[bad] == "never":
        target.stop()
        target.start(DEPLOYER_READY_SECONDS="3")
    with Traffic(target.url, clients=1) as traffic:
        await target.push(images[bad])
        failed = await target.expect(DeploymentFailed)
        assert (failed.version, failed.error, failed.target) == (version(bad), error, target.target)
        assert says in failed.message
        until(lambda: set(target.containers) == {version(1)})
    assert traffic.failures == []
    assert set(traffic.answered) == {version(1)}


async def test_a_container_that_dies_comes_back(target: Deployment, images: dict[int, ImagePushed]) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    died = target.containers[version(1)]
    os.kill(died.attrs["State"]["Pid"], signal.SIGKILL)
    until(lambda: "restarted by its engine" in target.log() or "starting again" in target.log())
    await target.serves(version(1))
    target.containers[version(1)].remove(force=True)
    until(lambda: "starting again" in target.log())
    await target.serves(version(1))


async def test_a_killed_deployer_is_followed_by_one_that_adopts(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    for number in (1, 2):
        await target.push(images[number])
    await target.expect(ModelDeployed, 2)
    running = {found.name for found in target.containers.values()}
    target.kill()
    assert serves(target.url) == version(2)
    with Traffic(target.url, clients=2) as traffic:
        target.start()
        await target.back()
        back = await target.expect(ModelDeployed, 3)
    assert (back.version, traffic.failures) == (version(1), [])
    assert serves(target.url) == version(1)
    assert target.containers[version(1)].name in running


async def test_a_deployer_killed_in_the_middle_of_a_rollout_leaves_nothing_unchecked_in_use(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    await target.push(images[8])  # never ready: it is being waited for
    until(lambda: version(8) in target.containers)
    await impatient(target.bus)
    target.kill()
    target.start(DEPLOYER_READY_SECONDS="1")
    failed = await target.expect(DeploymentFailed)
    assert failed.version == version(8)
    until(lambda: set(target.containers) == {version(1)})
    await target.serves(version(1))


async def test_after_everything_was_removed_live_and_previous_come_back(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    for number in (1, 2):
        await target.push(images[number])
    await target.expect(ModelDeployed, 2)
    target.stop()
    target.clear()
    target.start()
    await target.serves(version(2))
    until(lambda: set(target.containers) == {version(1), version(2)})


async def test_while_the_registry_is_away_a_rollout_waits_and_what_is_live_answers(
    target: Deployment, images: dict[int, ImagePushed], registry: Registry, engine: docker.DockerClient
) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    elsewhere = tiny.push(engine, registry, 20)
    registry.stop()
    with Traffic(target.url, clients=1) as traffic:
        await target.push(elsewhere)
        until(lambda: "will be tried again" in target.log())
        assert serves(target.url) == version(1)
        await asyncio.to_thread(registry.start)
        await target.expect(ModelDeployed, 2)
        await target.serves(version(20))
    assert traffic.failures == []
    tiny.remove(engine, elsewhere.image)


async def test_refused_credentials_fail_at_once_and_name_the_setting(
    target: Deployment, private_registry: Registry, engine: docker.DockerClient
) -> None:
    await target.push(tiny.push(engine, private_registry, 21))
    failed = await target.expect(DeploymentFailed)
    assert (failed.error, failed.attempts) == ("Unauthorized", 1)
    assert "DEPLOYER_REGISTRY_CREDENTIALS" in failed.message


async def test_a_rollback_needs_no_registry(
    target: Deployment, images: dict[int, ImagePushed], registry: Registry, engine: docker.DockerClient
) -> None:
    pushed = [tiny.push(engine, registry, number) for number in (11, 12, 13)]
    for count, event in enumerate(pushed, 1):
        await target.push(event)
        await target.expect(ModelDeployed, count)
    await eventually(lambda: asyncio.to_thread(lambda: set(target.containers) == {version(12), version(13)}))
    registry.stop()
    await target.back(to=version(11))
    await target.expect(ModelDeployed, 4)
    await target.serves(version(11))
    for event in pushed:
        tiny.remove(engine, event.image)
