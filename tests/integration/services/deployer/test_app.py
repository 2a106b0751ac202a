"""Real rollouts: nats-server, Traefik, a deployer process, and BentoML serving real Bentos."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from contracts.artifact_ref import JOBLIB
from contracts.events import DeploymentFailed, Event, ImagePushed, ModelDeployed, ModelSuperseded, RollbackRequested
from services.builder.bento import JOB, BentoBuilder, use_store
from services.builder.domain import pushed
from services.builder.packed import PackedBentos
from services.deployer.backends.processes import Record, stop_all
from services.deployer.gateway import Traefik
from services.messaging.connection import Bus
from services.sandbox.client import Sandbox
from services.sandbox.environments import Environments
from services.storage.artifact_store import FsspecArtifactStore
from tests.integration.services.deployer import rollouts
from tests.integration.services.deployer.rollouts import Traffic, await_event, publish, serves, traefik, version
from tests.waiting import eventually, until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def images(store: Path) -> dict[int, ImagePushed]:
    """Images 1 to 3 are good, 4 cannot be loaded, 5 predicts otherwise than it was judged."""
    return asyncio.run(_build(store))


async def _build(store: Path) -> dict[int, ImagePushed]:
    artifacts = FsspecArtifactStore(f"file://{store}/artifacts", store / "cache")
    (store / "cache").mkdir()
    use_store(store / "builds")
    environments = Environments(store / "envs", artifacts)
    forks = Sandbox(environments, [JOB])
    bentos = BentoBuilder(forks, artifacts, store / "builds", seconds=60, keep=9)
    packed, built = PackedBentos(artifacts, store / "builds"), {}
    for number in (1, 2, 3, 4, 5):
        event = await rollouts.approved(artifacts, environments.base, number)
        if number == 4:
            event = event.model_copy(update={"artifact": await artifacts.put(b"no pickle at all", JOBLIB)})
        if number == 5:
            wrong = event.probe.model_copy(update={"predictions": (7, 7)})
            event = event.model_copy(update={"probe": wrong})
        async with bentos.build(event, f"run{number}") as bento:
            built[number] = pushed(event, await packed.make(event, f"run{number}", bento), bento.spec)
    await forks.close()
    return built


class Deployment:
    """A target with its bus and gateway."""

    def __init__(self, bus: Bus, nats_url: str, url: str, home: Path, routes: Path, store: Path) -> None:
        self.bus, self.url, self.home, self._nats_url = bus, url, home, nats_url
        self._environ = {
            "DEPLOYER_GATEWAY_URL": url,
            "DEPLOYER_ROUTES": str(routes),
            "ARTIFACTS_URL": f"file://{store}/artifacts",
        }
        self.worker: subprocess.Popen[bytes]
        self._stack = contextlib.ExitStack()

    def start(self, **environ: str) -> None:
        """Start a deployer process."""
        self._stack = contextlib.ExitStack()
        environ = self._environ | environ
        self.worker = self._stack.enter_context(rollouts.worker("deployer", self.home, self._nats_url, **environ))

    def stop(self) -> None:
        self._stack.close()

    async def push(self, image: ImagePushed, id: str | None = None) -> None:
        number = int(image.version.split("-")[0])
        await publish(self.bus, image, id=id or f"push{number}", generation=number)

    async def back(self, to: str | None = None) -> None:
        event = RollbackRequested(model="tiny", to=to, by="ada", reason="worse")
        await publish(self.bus, event, id=f"back-{to}")

    async def expect(self, kind: type[Event], count: int = 1) -> Event:
        return (await await_event(self.bus, kind.subject, count))[-1]

    @property
    def servers(self) -> list[Record]:
        return [Record.model_validate_json(file.read_text()) for file in self.home.glob("servers/*/server.json")]

    def server(self, number: int) -> Record:
        (found,) = [server for server in self.servers if server.version == version(number)]
        return found


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    routes = tmp_path / "gateway" / "routes"
    with traefik(tmp_path, routes) as url:
        yield url, routes


@pytest.fixture
async def target(
    bus: Bus, nats_url: str, gateway: tuple[str, Path], tmp_path: Path, store: Path
) -> AsyncIterator[Deployment]:
    # 40 000 events ago: sequences of this stream, and with them rollbacks, must come after generations 1 to 5.
    for number in range(6):
        await bus.js.publish("alert.raised", b"{}", headers={"Nats-Msg-Id": str(number)})
    deployment = Deployment(bus, nats_url, gateway[0], tmp_path / "deployer", gateway[1], store)
    deployment.start()
    yield deployment
    deployment.stop()
    stop_all(tmp_path / "deployer")


async def test_versions_roll_out_and_back_under_traffic_without_a_failed_request(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    first = await target.expect(ModelDeployed)
    assert isinstance(first, ModelDeployed)
    assert (first.version, first.previous, first.url) == (version(1), None, f"{target.url}/tiny")
    assert serves(target.url) == version(1)
    with Traffic(target.url) as traffic:
        await target.push(images[2])
        await target.expect(ModelDeployed, 2)
        await target.push(images[3])
        third = await target.expect(ModelDeployed, 3)
        await target.back()
        back = await target.expect(ModelDeployed, 4)
        await eventually(lambda: asyncio.to_thread(lambda: serves(target.url) == version(2)))
        await target.back(to=version(1))
        await target.expect(ModelDeployed, 5)
    assert traffic.failures == []
    assert set(traffic.answered) == {version(1), version(2), version(3)}
    assert isinstance(third, ModelDeployed)
    assert isinstance(back, ModelDeployed)
    assert third.previous == version(2)
    assert (back.version, back.reason, back.previous) == (version(2), "rollback", None)
    assert serves(target.url) == version(1)
    until(lambda: [server.version for server in target.servers] == [version(1)])


async def test_an_older_push_and_a_copy_change_nothing(target: Deployment, images: dict[int, ImagePushed]) -> None:
    await target.push(images[2])
    await target.expect(ModelDeployed)
    await target.push(images[1])
    superseded = await target.expect(ModelSuperseded)
    assert superseded == ModelSuperseded(model="tiny", version=version(1), by=version(2))
    await target.push(images[2], id="again")
    await target.expect(ModelDeployed, 2)
    assert [server.version for server in target.servers] == [version(2)]


async def test_a_killed_server_comes_back_by_itself(target: Deployment, images: dict[int, ImagePushed]) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    killed = target.server(1).pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: target.servers and killed not in {server.pid for server in target.servers})
    assert await eventually(lambda: asyncio.to_thread(serves, target.url)) == version(1)


async def test_a_server_that_hangs_is_replaced(target: Deployment, images: dict[int, ImagePushed]) -> None:
    target.stop()
    target.start(DEPLOYER_WATCH_SECONDS="0.05", DEPLOYER_GRACE_SECONDS="1")
    await target.push(images[1])
    await target.expect(ModelDeployed)
    hangs = target.server(1)
    os.kill(hangs.pid, signal.SIGSTOP)
    until(lambda: len(target.servers) == 2, seconds=60)
    assert hangs.is_alive  # until there is another
    until(lambda: target.servers and not hangs.is_alive, seconds=60)
    assert serves(target.url) == version(1)


async def test_a_killed_deployer_is_followed_by_one_that_adopts(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    await target.push(images[2])
    await target.expect(ModelDeployed, 2)
    running = {server.pid for server in target.servers}
    target.worker.kill()
    target.worker.wait()
    assert serves(target.url) == version(2)
    with Traffic(target.url, clients=2) as traffic:
        target.start()
        await target.back()
        back = await target.expect(ModelDeployed, 3)
    assert isinstance(back, ModelDeployed)
    assert traffic.failures == []
    assert serves(target.url) == version(1)
    assert target.server(1).pid in running


async def test_after_everything_ended_live_and_previous_come_back(
    target: Deployment, images: dict[int, ImagePushed]
) -> None:
    await target.push(images[1])
    await target.push(images[2])
    await target.expect(ModelDeployed, 2)
    gone = target.servers
    target.stop()
    stop_all(target.home)
    assert not (target.home / "servers").exists()
    assert not any(server.is_alive for server in gone)
    target.start()
    assert await eventually(lambda: asyncio.to_thread(serves, target.url)) == version(2)
    until(lambda: {server.version for server in target.servers} == {version(1), version(2)})


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (4, "DidNotStart", "pickle"),
        (5, "PredictionsDiffer", "predicted 7"),
    ],
)
async def test_a_bad_version_fails_with_a_reason_and_the_live_one_goes_on(
    target: Deployment, images: dict[int, ImagePushed], bad: int, error: str, says: str
) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    await target.push(images[bad])
    failed = await target.expect(DeploymentFailed)
    assert isinstance(failed, DeploymentFailed)
    assert (failed.version, failed.error, failed.target) == (version(bad), error, "local")
    assert says in failed.message
    assert serves(target.url) == version(1)
    assert [server.version for server in target.servers] == [version(1)]


async def test_a_probe_is_no_traffic(target: Deployment, images: dict[int, ImagePushed]) -> None:
    await target.push(images[1])
    await target.expect(ModelDeployed)
    assert serves(target.url) == version(1)
    logged = await target.bus.js.subscribe("predictions.tiny", ordered_consumer=True)
    first = json.loads((await logged.next_msg(timeout=10)).data)
    assert first["columns"] == {"a": [0.2], "b": [0.3]}


async def test_a_model_whose_servers_are_gone_is_refused_with_503(gateway: tuple[str, Path]) -> None:
    url, folder = gateway
    routes = Traefik(url, folder, 10.0)
    routes.route("tiny", None)
    async with httpx.AsyncClient(base_url=url) as http:

        async def refusal() -> str | None:
            answer = await http.get("/tiny/info")
            return answer.text if answer.status_code == 503 else None

        assert await eventually(refusal) == "no available server\n"
    await routes.close()
