"""ContainerBackend as servers, on a real engine and with real registries."""

import asyncio
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import docker
import pytest

from contracts.events import ImagePushed
from services.deployer.backends.containers import ALWAYS, ContainerBackend, NoImage, remove_all
from services.deployer.backends.engine import ServingEngine
from services.deployer.backends.images import ImageCache
from services.deployer.backends.protocol import BackendAway, Server
from services.deployer.domain import PredictionsDiffer
from services.deployer.readiness import DidNotStart, HttpChecks, Lost
from services.docker_engine import DockerTrouble, ImageMissing, RegistryAway, Unauthorized
from services.host import free_port
from services.storage.registry import Deployed
from tests.docker import tiny
from tests.docker.registries import PASSWORD, USER, Registry

Pushed = dict[str, ImagePushed]


@pytest.fixture(scope="module")
def images(engine: docker.DockerClient, shared_registry: Registry) -> Iterator[Pushed]:
    modes = ("good", "dies", "eats", "never", "wrong")
    pushed = {mode: tiny.push(engine, shared_registry, number, mode) for number, mode in enumerate(modes, 1)}
    yield pushed
    for event in pushed.values():
        tiny.remove(engine, event.image)


@pytest.fixture
def target(engine: docker.DockerClient) -> Iterator[str]:
    """A target of the test's own; its containers are removed in the end."""
    name = f"test-{uuid4().hex[:8]}"
    yield name
    for container in engine.containers.list(all=True, filters={"label": f"dev.bentobelt.target={name}"}):
        container.remove(force=True)


def servers(target: str, **options: object) -> ContainerBackend:
    engine = ServingEngine()
    own = {
        "belt": "test",
        "target": target,
        "network": "host",
        "nats_url": "nats://127.0.0.1:4222",
        "grace": 5.0,
        **options,
    }
    return ContainerBackend(engine, ImageCache(engine), **own)  # type: ignore[arg-type]


def deployed(event: ImagePushed) -> Deployed:
    return Deployed(image=event, run="r", generation=int(event.version.split("-")[0]))


async def checked(containers: ContainerBackend, event: ImagePushed, seconds: float = 20.0) -> Server:
    """A server that has passed the checks of a rollout."""
    server = await containers.start(deployed(event))
    checks = HttpChecks(containers, seconds)
    try:
        await checks.ready(server)
        await checks.predictions(server, event.probe)
    finally:
        await checks.close()
    await containers.mark_checked(server)
    return server


def ask(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


async def test_an_image_is_pulled_by_digest_runs_in_its_sandbox_and_ends(
    engine: docker.DockerClient, images: Pushed, target: str
) -> None:
    containers, event = servers(target), images["good"]
    assert not tiny.has(engine, event.image)
    server = await checked(containers, event)
    assert containers.is_alive(server)
    assert ask(f"{server.url}/info") == {
        "version": event.version, "image": event.image, "nats": "nats://127.0.0.1:4222",
    }  # fmt: skip
    assert ask(f"{server.url}/sandbox") == {
        "uid": 1034, "capabilities": 0, "no_new_privileges": True,
        "root": False, "home": False, "tmp": True, "runs_from_tmp": False,
    }  # fmt: skip
    settings = engine.api.inspect_container(server.id)["HostConfig"]
    assert (settings["Memory"], settings["MemorySwap"], settings["NanoCpus"]) == (2**28, 2**28, 500_000_000)
    assert (settings["ReadonlyRootfs"], settings["CapDrop"], settings["PidsLimit"]) == (True, ["ALL"], 256)
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert settings["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    await containers.stop(server)
    assert containers.all() == []


async def test_only_what_was_checked_comes_back_by_itself_and_the_next_deployer_sees_it(
    engine: docker.DockerClient, images: Pushed, target: str
) -> None:
    containers = servers(target)
    server = await containers.start(deployed(images["good"]))
    policy = engine.api.inspect_container(server.id)["HostConfig"]["RestartPolicy"]["Name"]
    assert (policy, containers.is_checked(server)) == ("no", False)
    await containers.mark_checked(server)
    policy = engine.api.inspect_container(server.id)["HostConfig"]["RestartPolicy"]["Name"]
    assert (policy, containers.is_checked(server)) == (ALWAYS, True)
    successor = servers(target)
    await successor.refresh()
    assert successor.all() == [server]
    assert successor.is_alive(server)
    assert successor.is_checked(server)
    others = servers("another")
    await others.refresh()
    assert server not in others.all()


@pytest.mark.parametrize(
    ("mode", "error", "says"),
    [
        ("dies", DidNotStart, "exit code 1\nno model in here"),
        ("eats", DidNotStart, "killed for using more than its 256 MiB: raise serve.memory in model.yaml"),
        ("never", DidNotStart, "was not ready within 1 s"),
        ("wrong", PredictionsDiffer, "the evaluated model predicted 0, the deployed one 7"),
    ],
)
async def test_what_does_not_hold_says_why(
    images: Pushed, target: str, mode: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        await checked(servers(target), images[mode], seconds=1.0 if mode == "never" else 30.0)


async def test_a_server_that_somebody_killed_may_be_started_again(
    engine: docker.DockerClient, images: Pushed, target: str
) -> None:
    containers = servers(target)
    never = await containers.start(deployed(images["never"]))
    engine.api.kill(never.id)
    await containers.refresh()
    checks = HttpChecks(containers, 10.0)
    with pytest.raises(Lost, match="signal 9"):
        await checks.ready(never)
    engine.api.remove_container(never.id)
    await containers.refresh()
    with pytest.raises(Lost, match="somebody removed its container"):
        await checks.ready(never)
    await checks.close()


async def test_a_port_that_was_taken_meanwhile_is_no_fault_of_the_version(images: Pushed, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = iter([other.getsockname()[1], free_port()])
        containers = servers(target, pick_port=lambda: next(ports))
        with pytest.raises(Lost, match=f"another program took http://127.0.0.1:{other.getsockname()[1]} first"):
            await checked(containers, images["good"])
        await checked(containers, images["good"])


async def test_on_a_network_of_its_own_a_server_is_reached_by_name(
    engine: docker.DockerClient, images: Pushed, target: str
) -> None:
    network = engine.networks.create(target)
    try:
        containers = servers(target, network=target)
        server = await containers.start(deployed(images["good"]))
        assert server.url == f"http://{server.id}:3000"
        script = (
            "import socket, time, urllib.request as u\n"
            "def tried():\n"
            "    try: return u.urlopen(%r, timeout=5).status == 200\n"
            "    except OSError: return False\n"
            "while not tried(): time.sleep(0.05)\n"
        )
        for url in (f"{server.url}/readyz", "http://serving:3000/readyz"):
            engine.containers.run(
                "python:3.11-slim", ["python3", "-c", script % url], network=target, remove=True, labels=_of(target)
            )
        await containers.stop(server)
        missing = servers(target, network="no-such-network")
        with pytest.raises(DockerTrouble, match=r"no-such-network.*DEPLOYER_NETWORK"):
            await missing.start(deployed(images["good"]))
        assert containers.all() == []
    finally:
        for container in engine.containers.list(all=True, filters={"label": f"dev.bentobelt.target={target}"}):
            container.remove(force=True)
        network.remove()


def _of(target: str) -> dict[str, str]:
    return {"dev.bentobelt.target": target}


async def test_what_cannot_be_pulled_says_why(
    engine: docker.DockerClient, images: Pushed, private_registry: Registry, target: str, tmp_path: Path
) -> None:
    event = tiny.push(engine, private_registry, 1)
    with pytest.raises(Unauthorized, match="DEPLOYER_REGISTRY_CREDENTIALS"):
        await ImageCache(ServingEngine()).fetch(event.image)
    file = tmp_path / "credentials"
    with pytest.raises(Unauthorized, match="DEPLOYER_REGISTRY_CREDENTIALS names cannot be read"):
        await ImageCache(ServingEngine(file)).fetch(event.image)
    file.write_text(f"{USER}:wrong\n")
    with pytest.raises(Unauthorized, match=private_registry.address):
        await ImageCache(ServingEngine(file)).fetch(event.image)
    file.write_text(f"{USER}:{PASSWORD}\n")
    stored = ImageCache(ServingEngine(file))
    with pytest.raises(ImageMissing, match="sha256:0000"):
        await stored.fetch(event.image.partition("@")[0] + "@sha256:" + "0" * 64)
    private_registry.stop()
    with pytest.raises(RegistryAway, match=private_registry.address):
        await stored.fetch(event.image)
    private_registry.start()
    await stored.fetch(event.image)
    private_registry.stop()
    await stored.fetch(event.image)  # it is there: no registry is asked
    tiny.remove(engine, event.image)


async def test_a_packed_bento_is_not_for_containers(images: Pushed, target: str) -> None:
    packed = images["good"].model_copy(update={"image": "bento+nats://artifacts/x"})
    with pytest.raises(NoImage, match="BUILDER_IMAGES=docker"):
        await servers(target).start(deployed(packed))


async def test_belts_that_share_an_engine_never_see_each_others_containers(images: Pushed, target: str) -> None:
    ours, theirs = servers(target, belt=f"ours-{target}"), servers(target, belt=f"theirs-{target}")
    mine = await ours.start(deployed(images["good"]))
    other = await theirs.start(deployed(images["good"]))
    await ours.refresh()
    assert [server.id for server in ours.all()] == [mine.id]
    await asyncio.to_thread(remove_all, f"ours-{target}")
    for containers in (ours, theirs):
        await containers.refresh()
    assert ([server.id for server in ours.all()], [server.id for server in theirs.all()]) == ([], [other.id])


async def test_an_engine_that_is_away_is_told_and_what_was_seen_stands(
    images: Pushed, target: str, tmp_path: Path
) -> None:
    away = ServingEngine(url=f"unix://{tmp_path}/docker.sock")
    containers = ContainerBackend(
        away,
        ImageCache(away),
        belt="test",
        target=target,
        network="host",
        nats_url="nats://127.0.0.1:1",
        grace=5.0,
    )
    with pytest.raises(BackendAway, match="No Docker engine answers"):
        await containers.refresh()


async def test_old_images_are_removed_those_in_use_and_those_of_others_are_not(
    engine: docker.DockerClient, registry: Registry, target: str
) -> None:
    events = [tiny.push(engine, registry, number) for number in range(1, 8)]
    containers = servers(target)
    for event in events:
        await containers._images.fetch(event.image)
    engine.api.tag(events[1].image, "not-ours", "latest")
    oldest = await containers.start(deployed(events[0]))
    newest = await containers.start(deployed(events[6]))
    await containers.stop(newest)
    # The first is in use, the second has a name of somebody else's, the last three are the newest.
    assert [tiny.has(engine, event.image) for event in events] == [True, True, False, False, True, True, True]
    await containers.stop(oldest)
    assert not tiny.has(engine, events[0].image)
    assert tiny.has(engine, "python:3.11-slim")
    for event in events:
        tiny.remove(engine, event.image)
    tiny.remove(engine, "not-ours:latest")
