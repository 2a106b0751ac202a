"""A target with its bus, its gateway and a deployer process that runs containers."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker

from contracts.events import Event, ImagePushed, RollbackRequested
from services.messaging.connection import Bus
from tests.docker.tiny import MODEL
from tests.integration.services.deployer import rollouts
from tests.integration.services.deployer.rollouts import await_event, publish
from tests.waiting import eventually


class Deployment:
    """A target of the test's own.

    Args:
        engine: what runs its containers; `host` is where the deployer finds it.
        model: what it deploys.
    """

    def __init__(
        self,
        bus: Bus,
        nats_url: str,
        gateway: tuple[str, Path],
        home: Path,
        engine: docker.DockerClient,
        host: str,
        model: str = MODEL,
    ) -> None:
        self.bus, self.url, self.home, self.engine, self._nats_url = bus, gateway[0], home, engine, nats_url
        self.model = model
        self.target = f"test-{uuid4().hex[:8]}"
        self._environ = {
            "DEPLOYER_TARGET": self.target,
            "DEPLOYER_SERVERS": "containers",
            "DEPLOYER_GATEWAY_URL": self.url,
            "DEPLOYER_ROUTES": str(gateway[1]),
            "DEPLOYER_READY_SECONDS": "20",
            "DOCKER_HOST": host,
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

    def kill(self) -> None:
        """End the deployer as a crash would."""
        self.worker.kill()
        self.worker.wait()

    async def push(self, image: ImagePushed) -> None:
        number = int(image.version.split("-")[0])
        await publish(self.bus, image, id=f"push{number}", generation=number)

    async def back(self, to: str | None = None) -> None:
        await publish(self.bus, RollbackRequested(model=self.model, to=to, by="ada", reason="worse"), id=f"back-{to}")

    async def expect(self, kind: type[Event], count: int = 1, seconds: float = 60.0) -> Any:
        return (await await_event(self.bus, kind.subject, count, seconds))[-1]

    async def serves(self, version: str) -> None:
        """Wait until `version` answers through the gateway."""
        await eventually(lambda: asyncio.to_thread(lambda: rollouts.serves(self.url) == version))

    @property
    def containers(self) -> dict[str, Any]:
        """Version → its running container; the newest when there are two."""
        found = self.engine.containers.list(filters={"label": f"dev.bentobelt.target={self.target}"})
        return {one.labels["dev.bentobelt.version"]: one for one in reversed(found)}

    def log(self) -> str:
        return (self.home / "worker.log").read_text()

    def clear(self) -> None:
        """Remove every container of the target."""
        found = self.engine.containers.list(all=True, filters={"label": f"dev.bentobelt.target={self.target}"})
        for container in found:
            container.remove(force=True)


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, Path]]:
    """A real Traefik: its URL and the folder of its routes."""
    routes = folder / "gateway" / "routes"
    with rollouts.traefik(folder, routes) as url:
        yield url, routes
