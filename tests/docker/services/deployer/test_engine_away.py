"""An engine that goes away and comes back: a second dockerd of the test's own, which can be ended."""

import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import docker
import pytest

from contracts.events import ImagePushed, ModelDeployed
from services.deployer.backends.engine import ServingEngine
from services.deployer.backends.images import ImageCache
from services.docker_engine import NoSpace
from services.messaging.connection import Bus
from tests.docker import tiny
from tests.docker.conftest import Dockerd
from tests.docker.deployments import Deployment, gateway
from tests.docker.registries import Registry
from tests.integration.services.deployer.rollouts import Traffic, serves, version
from tests.waiting import until


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient, shared_registry: Registry) -> dict[int, ImagePushed]:
    """Pushed by the machine's own engine, pulled by the other one."""
    good = {number: tiny.push(engine, shared_registry, number) for number in (1, 2)}
    return good | {3: tiny.push(engine, shared_registry, 3, "slow")}


@pytest.fixture
def dockerd(engine_of_its_own: Callable[[Path], Dockerd], tmp_path: Path) -> Dockerd:
    return engine_of_its_own(tmp_path / "docker")


@pytest.fixture
async def target(bus: Bus, nats_url: str, tmp_path: Path, dockerd: Dockerd) -> AsyncIterator[Deployment]:
    own = docker.DockerClient(dockerd.url)
    with gateway(tmp_path) as traefik:
        deployment = Deployment(bus, nats_url, traefik, tmp_path / "deployer", own, dockerd.url)
        deployment.start()
        yield deployment
        deployment.stop()
        deployment.clear()
    own.close()


async def test_after_the_engine_was_away_the_same_containers_serve_with_and_without_a_deployer(
    target: Deployment, dockerd: Dockerd, images: dict[int, ImagePushed]
) -> None:
    for count, number in enumerate((1, 2), 1):
        await target.push(images[number])
        await target.expect(ModelDeployed, count)
    names = {found.name for found in target.containers.values()}
    dockerd.kill()
    until(lambda: "live versions stay routed" in target.log())
    assert serves(target.url) == version(2)  # a container outlives an engine that crashed
    dockerd.start()
    await target.serves(version(2))
    until(lambda: target.log().count('"adopted"') == 2)
    await target.serves(version(2))
    assert {found.name for found in target.containers.values()} == names
    target.stop()
    dockerd.kill()
    dockerd.start()
    await target.serves(version(2))
    target.start()
    until(lambda: target.log().count('"adopted"') >= 4)
    assert {found.name for found in target.containers.values()} == names
    assert "starting again" not in target.log()
    await target.serves(version(2))


async def test_an_engine_that_dies_in_the_middle_of_a_rollout_delays_it_and_no_more(
    target: Deployment, dockerd: Dockerd, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    with Traffic(target.url, clients=1) as traffic:
        await target.push(images[3])
        until(lambda: version(3) in target.containers)
        dockerd.kill()
        until(lambda: "will be tried again" in target.log())
        assert serves(target.url) == version(1)
    assert traffic.failures == []
    dockerd.start()
    deployed = await target.expect(ModelDeployed, 2)
    assert (deployed.version, deployed.previous) == (version(3), version(1))
    await target.serves(version(3))
    until(lambda: set(target.containers) == {version(1), version(3)})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--recursive", folder], check=True)


async def test_no_space_for_an_image_says_so(
    small_disk: Path, engine_of_its_own: Callable[[Path], Dockerd], images: dict[int, ImagePushed]
) -> None:
    dockerd = engine_of_its_own(small_disk / "docker")
    with pytest.raises(NoSpace, match="docker system df"):
        await ImageCache(ServingEngine(url=dockerd.url)).fetch(images[1].image)
