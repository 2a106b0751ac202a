"""The reconciler keeps live versions running: adopts, starts and ends servers, corrects routes, reports crash loops."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from nats.errors import Error as NatsError

from contracts.events import DeploymentFailed
from services.deployer.backends.protocol import BackendAway, Server, ServerBackend
from services.deployer.domain import crash_loop, restart_pause
from services.deployer.gateway import Gateway
from services.deployer.rollout import Rollout
from services.deployer.server_pool import DeploymentRegistry, ServerPool
from services.storage import Live

log = structlog.get_logger()
STEADY_SECONDS = 60.0
"""A server that ran for this long has not crashed at its start."""
CRASHES_REPORTED = 5
"""Crashes in a row after which the crash loop is reported."""
LOG_TAIL = 1000
"""Characters of the log in a report."""
Report = Callable[[DeploymentFailed, str], Awaitable[None]]
"""Publishes an event that no message caused. The id is the same for the same occurrence."""


@dataclass
class _RestartCount:
    """Number of crashes of a version in a row, and the end of its last start, successful or not."""

    crashes: int = 0
    last: float = -math.inf

    def is_due(self, now: float) -> bool:
        return now >= self.last + restart_pause(self.crashes)

    def add_crash(self, now: float) -> None:
        self.crashes = self.crashes + 1 if now - self.last < STEADY_SECONDS + restart_pause(self.crashes) else 1


class Reconciler:
    """Compares what runs on one target with what should run, for as long as the deployer lives."""

    def __init__(
        self,
        target: str,
        registry: DeploymentRegistry,
        rollout: Rollout,
        pool: ServerPool,
        servers: ServerBackend,
        gateway: Gateway,
        report: Report,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target, self._registry, self._rollout, self._pool = target, registry, rollout, pool
        self._servers, self._gateway = servers, gateway
        self._report, self._seconds, self._clock = report, seconds, clock
        self._reported: set[str] = set()
        self._backend_answers = True
        self._models: set[str] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._restarts: dict[tuple[str, str], _RestartCount] = defaultdict(_RestartCount)

    async def run(self) -> None:
        """Make a pass every `seconds`. A later pass makes up for one that fails (no bus, a broken version)."""
        try:
            while True:
                await self.start_pass()
                await asyncio.sleep(self._seconds)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def start_pass(self) -> None:
        """Start to reconcile every model, each in a task of its own: models do not wait for each other."""
        if not await self._refresh():
            return
        for model in await self._known_models():
            before = self._tasks.get(model)
            if before is None or before.done():
                if before is not None and (error := before.exception()) is not None:
                    log.error("reconciling failed", model=model, error=f"{type(error).__name__}: {error}")
                self._tasks[model] = asyncio.create_task(self._reconcile(model))

    async def finish_pass(self) -> None:
        """Wait until the tasks of the last pass are done."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _refresh(self) -> bool:
        """Return whether the running servers are known. If not, nothing is changed: they may still serve."""
        try:
            await self._servers.refresh()
        except BackendAway as error:
            if self._backend_answers:
                log.warning("live versions stay routed", error=str(error))
            self._backend_answers = False
            return False
        self._backend_answers = True
        return True

    async def _known_models(self) -> set[str]:
        if self._models is None:  # right after a start nothing may run yet, so the registry is read
            try:
                self._models = {live.model for live in await self._registry.lives() if live.target == self._target}
            except (NatsError, TimeoutError) as error:
                log.warning("the registry does not answer", error=repr(error))
                return set()
        self._models |= {server.model for server in self._servers.all()}
        return self._models

    async def _reconcile(self, model: str) -> None:
        # Another replica may just have changed the route and the live version, so the servers are read after both.
        routed, live = self._gateway.address(model), await self._rollout.live(model)
        await self._servers.refresh()
        if live is not None:
            self._remove_dead_route(live.model, routed)
            await self._ensure_running(live, live.version)
            await self._ensure_routed(live)
            if live.previous is not None:
                await self._ensure_running(live, live.previous)
            await self._end_leftovers(live)

    def _remove_dead_route(self, model: str, routed: str | None) -> None:
        # The port of a dead server may belong to another program by now; a 503 is better. This needs no lease, which
        # a dead deployer may still hold: a deployer that moves the route just now notices that it was not followed.
        alive = {server.url for server in self._servers.all() if self._servers.is_alive(server)}
        if routed is not None and routed not in alive and self._gateway.address(model) == routed:
            self._gateway.route(model, None)

    async def _ensure_running(self, live: Live, version: str) -> None:
        server = self._pool.running(live.model, version)
        if server is not None:
            await self._count_engine_restart(live, server)
            if await self._pool.liveness.is_reliable(server):
                return
        restarts = self._restarts[live.model, version]
        deployed = await self._registry.image(live.model, version, self._target)
        if deployed is None or self._pool.is_in_rollout(live.model, version) or not restarts.is_due(self._clock()):
            return
        if any(self._servers.owned_by_other_replica(other) for other in self._pool.of(live.model, version)):
            return
        await self._count_crash(live, version, "starting again")
        try:
            await self._pool.checked(deployed)
        finally:
            restarts.last = self._clock()

    async def _ensure_routed(self, live: Live) -> None:
        server = self._pool.running(live.model, live.version)
        if server is None:
            return
        if self._gateway.address(live.model) != server.url:
            async with self._rollout.switching(live.model):
                # Another version may have become live before this lease was held.
                now = await self._rollout.live(live.model)
                if now is None or now.version != live.version:
                    return
                self._rollout.point(now, server)
        if not self._rollout.is_route_confirmed(live.model):
            await self._rollout.confirm_route(live, server)

    async def _end_leftovers(self, live: Live) -> None:
        # The live version is read again, and no await lies between this and the choice: it cannot change in between.
        if self._rollout.leftovers(live) and (now := await self._rollout.live(live.model)) is not None:
            await self._rollout.end_leftovers(now)

    async def _count_engine_restart(self, live: Live, server: Server) -> None:
        """Count a restart by the engine as a crash too: nobody would notice such a crash loop otherwise."""
        before = self._pool.last_start.setdefault(server.id, server.since)
        if before != server.since:
            self._pool.last_start[server.id] = server.since
            await self._count_crash(live, server.version, "restarted by its engine")
            self._restarts[live.model, server.version].last = self._clock()

    async def _count_crash(self, live: Live, version: str, message: str) -> None:
        restarts = self._restarts[live.model, version]
        restarts.add_crash(self._clock())
        servers = self._pool.of(live.model, version)
        log_tail = (await self._servers.exit_report(servers[-1])).log_tail[-LOG_TAIL:] if servers else ""
        log.warning(message, model=live.model, version=version, attempt=restarts.crashes, log_tail=log_tail)
        if version == live.version and restarts.crashes >= CRASHES_REPORTED:
            # A crash loop is reported once for as long as this version stays live.
            id = f"{live.target}.{live.model}.{live.version}.{live.since}"
            if id not in self._reported:
                await self._report(crash_loop(live, restarts.crashes, log_tail), id)
                self._reported.add(id)
