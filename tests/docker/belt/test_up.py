"""`belt up` on an engine, without compose: images in a registry, containers that serve, and nothing left behind."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.belts import Belt
from tests.docker.registries import Registry

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def belt(home: Path, shared_registry: Registry) -> Iterator[Belt]:
    running = Belt(
        home,
        BUILDER_IMAGES="docker",
        BUILDER_REGISTRY=shared_registry.address,
        DEPLOYER_SERVERS="containers",
    )
    running.up()
    yield running
    running.down()


def test_a_push_is_served_by_a_container_that_ends_with_the_belt(
    belt: Belt, engine: docker.DockerClient, shared_registry: Registry
) -> None:
    told = belt.push("examples/diabetes")
    assert told["outcome"] == "deployed", told
    assert belt.version("diabetes") == told["version"]
    [container] = engine.containers.list(filters={"label": f"dev.bentobelt.version={told['version']}"})
    assert container.labels["dev.bentobelt.image"].startswith(f"{shared_registry.address}/diabetes@sha256:")
    # By its label only this belt's own are found: others may use the engine at the same time.
    mine = {"label": f"dev.bentobelt.belt={container.labels['dev.bentobelt.belt']}"}
    assert engine.containers.list(filters=mine) == [container]
    belt.down()
    assert engine.containers.list(all=True, filters=mine) == []
    belt.up()
