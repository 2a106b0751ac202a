"""The servers of one target: started and checked, chosen for a version, ended."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

import structlog

from contracts.events import ImagePushed
from services.deployer.backends.protocol import Server, ServerBackend
from services.deployer.gateway import Gateway
from services.deployer.liveness import Liveness
from services.deployer.readiness import Checks, Lost
from services.storage import Deployed, Live

log = structlog.get_logger()


class DeploymentRegistry(Protocol):
    """The part of the registry that a deployer uses; `services.storage.Registry` is one."""

    async def live(self, model: str, target: str = "local") -> Live | None: ...
    async def lives(self) -> list[Live]: ...
    async def put_live(self, live: Live, expected: Live | None) -> None: ...
    async def image(self, model: str, version: str, target: str = "local") -> Deployed | None: ...
    async def put_image(self, deployed: Deployed, target: str = "local") -> None: ...


class ServerPool:
    """Servers of one target, with what this process knows about them."""

    def __init__(
        self, target: str, registry: DeploymentRegistry, servers: ServerBackend, checks: Checks, gateway: Gateway
    ) -> None:
        self._target, self._registry, self._servers = target, registry, servers
        self._checks, self._gateway = checks, gateway
        self.liveness = Liveness(servers, checks)
        self.last_start: dict[str, float] = {}
        """Id of a server → its last known start, in unix seconds."""
        self._starting: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_rollout: set[tuple[str, str]] = set()
        self._stopping: set[str] = set()
        """Ids of servers that are being ended: they may still answer, but must not be chosen."""

    async def checked(self, deployed: Deployed) -> Server:
        """Return a server of the version that is ready and predicts correctly: the running one, or a new one.

        Raises:
            DidNotStart, PredictionsDiffer: the version can never pass its checks.
            Lost: something outside ended its server, twice.
        """
        image = deployed.image
        async with self._starting[image.model, image.version]:
            await self._servers.refresh()
            server = self.running(image.model, image.version)
            if server is not None and self._servers.is_checked(server):
                if await self.liveness.responds(server):
                    return server
            elif server is not None and not self._servers.owned_by_other_replica(server):
                await self.stop(server)  # left by a deployer that died during the checks
            return await self._new(deployed)

    def of(self, model: str, version: str) -> list[Server]:
        """Return the recorded servers of a version, dead ones too."""
        return [server for server in self._servers.all() if (server.model, server.version) == (model, version)]

    def running(self, model: str, version: str) -> Server | None:
        """Return the living, responsive server of a version; of several the routed one, or else the newest."""
        candidates = [
            server
            for server in self.of(model, version)
            if self._servers.is_alive(server)
            and server.id not in self._stopping
            and not self.liveness.is_unresponsive(server)
        ]
        routed = self._gateway.address(model)
        return max(candidates, key=lambda server: (server.url == routed, server.since), default=None)

    def unneeded(self, model: str, versions: frozenset[str]) -> list[Server]:
        """Return the servers of a model that can be ended: other versions than these, second copies, dead ones."""
        kept = [self.running(model, version) for version in versions]
        others = [server for server in self._servers.all() if server.model == model and server not in kept]
        return [server for server in others if not self._is_needed(server) and server.id not in self._stopping]

    async def stop(self, server: Server) -> None:
        """End a server after its last requests."""
        self._stopping.add(server.id)
        try:
            await self._servers.stop(server)
        finally:
            self._stopping.discard(server.id)
            self.liveness.forget(server)

    @contextlib.contextmanager
    def in_rollout(self, image: ImagePushed) -> Iterator[None]:
        """Keep the servers of a version from being ended, although the version is not live yet."""
        self._in_rollout.add((image.model, image.version))
        try:
            yield
        finally:
            self._in_rollout.discard((image.model, image.version))

    def is_in_rollout(self, model: str, version: str) -> bool:
        return (model, version) in self._in_rollout

    def _is_needed(self, server: Server) -> bool:
        routed = self._gateway.address(server.model) == server.url and self._servers.is_alive(server)
        return (
            routed or self.is_in_rollout(server.model, server.version) or self._servers.owned_by_other_replica(server)
        )

    async def _new(self, deployed: Deployed) -> Server:
        """Start and check a new server; try a second time if something outside ends the first.

        An unresponsive server of this version stays until then: it may be live, and it may recover.
        """
        before = self.of(deployed.image.model, deployed.image.version)
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.liveness.reset, before)
            try:
                server = await self._start_and_check(deployed)
            except Lost as error:
                log.warning("starting once more", error=str(error))
                server = await self._start_and_check(deployed)
            on_failure.pop_all()
            return server

    async def _start_and_check(self, deployed: Deployed) -> Server:
        began = time.monotonic()
        server = await self._servers.start(deployed)
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as on_failure:
            # On cancellation too: an unchecked server is not left behind.
            on_failure.push_async_callback(self.stop, server)
            await self._checks.ready(server)
            ready = time.monotonic()
            await self._checks.predictions(server, deployed.image.probe)
            # The image is recorded before the server counts as checked, so that every adopted server can be started
            # again.
            await self._registry.put_image(deployed, self._target)
            on_failure.pop_all()
        await self._servers.mark_checked(server)
        self.liveness.mark_alive(server)
        self.last_start[server.id] = server.since
        times = {"start": started - began, "ready": ready - started, "predictions": time.monotonic() - ready}
        log.info("checked", server=server.id, url=server.url, **times)
        return server
