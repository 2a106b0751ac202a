"""How a version gets the traffic: start it, check it, record it as live, move the route, keep one, end the rest.

The slow part (start and checks) runs beside the old version and holds nothing. The switch is short: under the
model's lease what is live is read and decided on again, written by revision, and only then the route moves. A kill
between any two steps is made good by the redelivered message or by the watch: what runs is found by its record, what is
live by the registry, and the route follows the registry. A recorded version is live: a gateway that is away is waited
for, however long, because giving up would leave a live version that nobody was told of.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from contracts.events import ImagePushed
from services.deployer.backends.protocol import Server, ServerBackend
from services.deployer.domain import decide, released, rolled_back, wanted
from services.deployer.gateway import Gateway, NotSwitched
from services.deployer.liveness import Liveness
from services.deployer.readiness import Checks, Lost
from services.storage import Deployed, Live

log = structlog.get_logger()
LEASE_WAIT = 5.0
FOLLOWS = 1.0
"""Seconds in which a gateway has followed for certain; needed where the version that answers does not tell."""


class DeploymentRegistry(Protocol):
    """The registry's part that a rollout writes; `services.storage.registry.Registry` is one."""

    async def live(self, model: str, target: str = "local") -> Live | None: ...
    async def lives(self) -> list[Live]: ...
    async def put_live(self, live: Live, expected: Live | None) -> None: ...
    async def image(self, model: str, version: str, target: str = "local") -> Deployed | None: ...
    async def put_image(self, deployed: Deployed, target: str = "local") -> None: ...


class Lease(Protocol):
    """`services.messaging.leases.Leases` is one."""

    def hold(self, name: str, wait: float = 0.0) -> contextlib.AbstractAsyncContextManager[None]: ...


class Rollout:
    """Moves the traffic of one target between versions."""

    def __init__(
        self,
        target: str,
        registry: DeploymentRegistry,
        leases: Lease,
        servers: ServerBackend,
        checks: Checks,
        gateway: Gateway,
    ) -> None:
        self._target, self._registry, self._leases = target, registry, leases
        self._servers, self._checks, self._gateway = servers, checks, gateway
        self._starting: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.busy: set[tuple[str, str]] = set()
        """Model and version of what is being started: not live yet, and nobody's leftover either."""
        self.since: dict[str, float] = {}
        """Id of a server → when what runs under it was last known to have been started."""
        self._ending: set[str] = set()
        """Ids of servers on their way out: they may still answer, but nothing is to be built on them."""
        self._hearing = Liveness(servers, checks)
        self._arrived: dict[str, str] = {}
        """Model → the address that its requests were last seen to reach through the gateway."""

    async def live(self, model: str) -> Live | None:
        return await self._registry.live(model, self._target)

    async def release(self, deployed: Deployed, order: int) -> Live:
        """Give a pushed version the traffic.

        Args:
            deployed: what to start, with its probe.
            order: generation that decided.

        Returns: what is live afterwards, this version or the newer one that won.

        Raises:
            DidNotStart, PredictionsDiffer, Lost: it did not show what it must; what is live goes on.
            Conflict, LeaseTaken, LeaseLost: another deployer was at it.
        """
        return await self._roll_out(deployed, order, released)

    async def roll_back(self, deployed: Deployed, order: int) -> Live:
        """The same for a version that a person wants back."""
        return await self._roll_out(deployed, order, lambda live, new: rolled_back(live, new) if live else new)

    async def _roll_out(self, deployed: Deployed, order: int, record: Callable[[Live | None, Live], Live]) -> Live:
        while True:
            try:
                return await self._attempt(deployed, order, record)
            except NotSwitched as error:
                # Everything is looked at anew: the server may have died meanwhile, or a newer version have won.
                log.warning("waiting for the gateway", error=str(error))

    async def _attempt(self, deployed: Deployed, order: int, record: Callable[[Live | None, Live], Live]) -> Live:
        image, began = deployed.image, time.monotonic()
        live = await self.live(image.model)
        if live and decide(live, image.version, order) == "superseded":
            return live
        async with self._being_started(image):
            server = await self.checked(deployed)
            live = await self._switch(deployed, order, server, record)
            if live.version == image.version:
                await self.arrive(live, server)
                seconds = round(time.monotonic() - began, 3)
                log.info("live", url=server.url, previous=live.previous, seconds=seconds)
            return live

    async def checked(self, deployed: Deployed) -> Server:
        """A server of the version that is ready and predicts what it should: the one that runs, or a new one.

        Raises:
            DidNotStart, PredictionsDiffer: it never will.
            Lost: it died of something outside, twice.
        """
        image = deployed.image
        async with self._starting[image.model, image.version]:
            await self._servers.refresh()
            running = self.running(image.model, image.version)
            if running is not None:
                if self._servers.is_checked(running):
                    if await self._hearing.answers(running):
                        return running
                elif not self._servers.owned_by_other_replica(
                    running
                ):  # another replica's is its own affair until it is old
                    await self._end(running)  # left half started by a deployer that died
            return await self._new(deployed)

    async def _new(self, deployed: Deployed) -> Server:
        """A new server. What does not answer is left alone until then: it may be live, and slow is not dead."""
        before = self._of(deployed.image.model, deployed.image.version)
        with contextlib.ExitStack() as failed:
            failed.callback(self._hearing.forgive, before)
            try:
                server = await self._started(deployed)
            except Lost as error:
                log.warning("starting once more", error=str(error))
                server = await self._started(deployed)
            failed.pop_all()
            return server

    def running(self, model: str, version: str) -> Server | None:
        """The living server of a version, unless it hangs; of several the one that gets the traffic, or the newest."""
        alive = [server for server in self._of(model, version) if self._servers.is_alive(server)]
        found = [server for server in alive if server.id not in self._ending and not self._hearing.deaf(server)]
        routed = self._gateway.address(model)
        return max(found, key=lambda server: (server.url == routed, server.since), default=None)

    def _of(self, model: str, version: str) -> list[Server]:
        return [server for server in self._servers.all() if (server.model, server.version) == (model, version)]

    async def adopt(self, server: Server) -> bool:
        """Whether a living server can be relied on; asked at every look of the watch."""
        return await self._hearing.relies_on(server)

    def point(self, live: Live, server: Server) -> None:
        """Send the model's requests to `server`; only while `switching` is held."""
        if self._gateway.address(live.model) != server.url:
            self._gateway.route(live.model, server.url)

    async def arrive(self, live: Live, server: Server) -> None:
        """Wait until the model's requests are seen to reach `server`.

        Without the lease: a gateway that is away must not keep anybody from deciding on another version.

        Raises:
            NotSwitched: they do not yet.
        """
        await self._gateway.wait_for(live.model, live.version)
        if any(self._hearing.deaf(other) for other in self._of(live.model, live.version)):
            # The one that is being replaced may have recovered, and have answered in the new one's place.
            await asyncio.sleep(FOLLOWS)
        self._arrived[live.model] = server.url

    def settled(self, model: str) -> bool:
        """Whether the gateway is seen to have followed its last change: until then the old server gets requests."""
        return model in self._arrived and self._arrived[model] == self._gateway.address(model)

    async def retire(self, live: Live) -> None:
        """End what is neither live, nor kept warm, nor being started. Takes as long as their last requests."""
        await asyncio.gather(*(self._end(server) for server in self.leftovers(live)))

    def leftovers(self, live: Live) -> list[Server]:
        """Servers of the model that nobody needs: other versions, second copies, dead ones."""
        if not self.settled(live.model):
            return []
        kept = [self.running(live.model, version) for version in wanted(live)]
        found = [server for server in self._servers.all() if server.model == live.model and server not in kept]
        return [server for server in found if not self._in_use(server) and server.id not in self._ending]

    def _in_use(self, server: Server) -> bool:
        routed = self._gateway.address(server.model) == server.url and self._servers.is_alive(server)
        return routed or (server.model, server.version) in self.busy or self._servers.owned_by_other_replica(server)

    async def _end(self, server: Server) -> None:
        self._ending.add(server.id)
        try:
            await self._servers.stop(server)
        finally:
            self._ending.discard(server.id)
            self._hearing.forget(server)

    @contextlib.asynccontextmanager
    async def switching(self, model: str) -> AsyncIterator[None]:
        """While held, no other deployer of this target moves the model."""
        async with self._leases.hold(f"deployer.{self._target}.{model}", LEASE_WAIT):
            yield

    async def _switch(
        self, deployed: Deployed, order: int, server: Server, record: Callable[[Live | None, Live], Live]
    ) -> Live:
        image = deployed.image
        async with self.switching(image.model):
            live = await self.live(image.model)
            match decide(live, image.version, order):
                case "superseded":
                    assert live is not None
                    return live
                case "deploy":
                    new = record(live, self._live(deployed, order))
                    # Written before the route moves: a deployer that lost its lease cannot move it any more.
                    await self._registry.put_live(new, live)
                case _:
                    assert live is not None
                    new = live
            self.point(new, server)
            return new

    def _live(self, deployed: Deployed, order: int) -> Live:
        image = deployed.image
        return Live(
            model=image.model,
            version=image.version,
            image=image.image,
            url=self._gateway.url(image.model),
            target=self._target,
            order=order,
            run=deployed.run,
            since=time.time(),
        )

    async def _started(self, deployed: Deployed) -> Server:
        began = time.monotonic()
        server = await self._servers.start(deployed)
        started = time.monotonic()
        async with contextlib.AsyncExitStack() as unchecked:
            # Whatever happens, cancelled too: an unchecked server is not left behind.
            unchecked.push_async_callback(self._end, server)
            await self._checks.ready(server)
            ready = time.monotonic()
            await self._checks.predictions(server, deployed.image.probe)
            # Before it counts as checked: whatever is adopted can be started again, and a warm version costs no write.
            await self._registry.put_image(deployed, self._target)
            unchecked.pop_all()
        await self._servers.mark_checked(server)
        self._hearing.note(server)
        self.since[server.id] = server.since
        times = {"start": started - began, "ready": ready - started, "predictions": time.monotonic() - ready}
        log.info("checked", server=server.id, url=server.url, **times)
        return server

    @contextlib.asynccontextmanager
    async def _being_started(self, image: ImagePushed) -> AsyncIterator[None]:
        key = (image.model, image.version)
        self.busy.add(key)
        try:
            yield
        finally:
            self.busy.discard(key)
