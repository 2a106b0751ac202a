"""Rollout of a version: start it, check it, record it as live, move the route, keep the previous one, end the rest.

The slow part (start and checks) runs beside the live version and holds no lease. The switch is short: under the lease
of the model the live version is read and decided on again, written by revision, and only then the route moves.

A kill between any two steps is repaired by the redelivered message or by the reconciler: the backend has a record of
every server, the registry of the live version, and the route follows the registry. A recorded version is live. So a
gateway that does not answer is waited for, however long: giving up would leave a live version without an event.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from services.deployer.backends.protocol import Server
from services.deployer.domain import decide, released, versions_to_run
from services.deployer.gateway import Gateway, NotSwitched
from services.deployer.server_pool import DeploymentRegistry, ServerPool
from services.storage import Deployed, Live

log = structlog.get_logger()
LEASE_SECONDS = 5.0
"""Longest wait for another deployer that switches the same model."""
FOLLOW_SECONDS = 1.0
"""A gateway has followed a change of its route within this time, also where its answer cannot show it."""
NextLive = Callable[[Live | None, Live], Live]
"""The live record to write, from the present one and the plain record of the new version."""


class Lease(Protocol):
    """Locks of the bus; `services.messaging.Leases` is one."""

    def hold(self, name: str, wait: float = 0.0) -> contextlib.AbstractAsyncContextManager[None]: ...


class Rollout:
    """Moves the traffic of one target between versions."""

    def __init__(
        self, target: str, registry: DeploymentRegistry, leases: Lease, pool: ServerPool, gateway: Gateway
    ) -> None:
        self._target, self._registry, self._leases = target, registry, leases
        self._pool, self._gateway = pool, gateway
        self._confirmed: dict[str, str] = {}
        """Model → the address that its requests were last seen to reach through the gateway."""

    async def live(self, model: str) -> Live | None:
        return await self._registry.live(model, self._target)

    async def roll_out(self, deployed: Deployed, order: int, next_live: NextLive = released) -> Live:
        """Give a version the traffic: a pushed one, or with `rolled_back` one that a person wants back.

        Args:
            deployed: the version with its probe.
            order: generation of the decision; the highest one wins.
            next_live: makes the live record.

        Returns: the live version afterwards: this one, or a newer one that won.

        Raises:
            DidNotStart, PredictionsDiffer, Lost: the version failed its checks; the live version stays.
            Conflict, LeaseTaken, LeaseLost: another deployer switched the model at the same time.
        """
        while True:
            try:
                return await self._attempt(deployed, order, next_live)
            except NotSwitched as error:
                # From the start again: the server may have died meanwhile, or a newer version may have won.
                log.warning("waiting for the gateway", error=str(error))

    async def _attempt(self, deployed: Deployed, order: int, next_live: NextLive) -> Live:
        """Do all steps in order. The reconciler ends the servers that nobody needs any more."""
        image, began = deployed.image, time.monotonic()
        live = await self.live(image.model)
        if live and decide(live, image.version, order) == "superseded":
            return live
        with self._pool.in_rollout(image):
            server = await self._pool.checked(deployed)
            async with self.switching(image.model):
                live = await self._record(deployed, order, next_live)
                if live.version != image.version:
                    return live
                self.point(live, server)
            await self.confirm_route(live, server)
            seconds = round(time.monotonic() - began, 3)
            log.info("live", url=server.url, previous=live.previous, seconds=seconds)
            return live

    async def _record(self, deployed: Deployed, order: int, next_live: NextLive) -> Live:
        """Decide again and record the version as live, unless a newer one has won; return the live one.

        The record is written before the route moves: a deployer that lost its lease fails here.
        """
        image = deployed.image
        live = await self.live(image.model)
        if live and decide(live, image.version, order) != "deploy":
            return live
        plain = Live(
            model=image.model,
            version=image.version,
            image=image.image,
            url=self._gateway.url(image.model),
            target=self._target,
            order=order,
            run=deployed.run,
            since=time.time(),
        )
        new = next_live(live, plain)
        await self._registry.put_live(new, live)
        return new

    def switching(self, model: str) -> contextlib.AbstractAsyncContextManager[None]:
        """Hold the lease of the model: no other deployer of this target switches it meanwhile."""
        return self._leases.hold(f"deployer.{self._target}.{model}", LEASE_SECONDS)

    def point(self, live: Live, server: Server) -> None:
        """Send the model's requests to `server`. Call it only while `switching` is held."""
        if self._gateway.address(live.model) != server.url:
            self._gateway.route(live.model, server.url)

    async def confirm_route(self, live: Live, server: Server) -> None:
        """Wait until the model's requests are seen to reach `server`.

        Call it without the lease: a gateway that does not answer must not stop other decisions on the model.

        Raises:
            NotSwitched: they do not reach it in time.
        """
        await self._gateway.wait_for(live.model, live.version)
        if any(self._pool.liveness.is_unresponsive(other) for other in self._pool.of(live.model, live.version)):
            # The server that is being replaced has the same version. It may have recovered and given this answer.
            await asyncio.sleep(FOLLOW_SECONDS)
        self._confirmed[live.model] = server.url

    def is_route_confirmed(self, model: str) -> bool:
        """Return whether the gateway was seen to follow its last change; until then the old server gets requests."""
        return model in self._confirmed and self._confirmed[model] == self._gateway.address(model)

    def leftovers(self, live: Live) -> list[Server]:
        """Return the servers of the model that nobody needs; none before its route is confirmed."""
        return self._pool.unneeded(live.model, versions_to_run(live)) if self.is_route_confirmed(live.model) else []

    async def end_leftovers(self, live: Live) -> None:
        """End all `leftovers`. This takes as long as their last requests."""
        await asyncio.gather(*(self._pool.stop(server) for server in self.leftovers(live)))
