"""Keeps what is live alive: adopts what runs, restarts what died, ends what nobody needs; says what does not hold."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from nats.errors import Error as NatsError

from contracts.events import DeploymentFailed
from services.deployer.backends.protocol import BackendAway, Server, ServerBackend
from services.deployer.domain import crash_loop, pause
from services.deployer.gateway import Gateway
from services.deployer.rollout import DeploymentRegistry, Rollout
from services.storage import Live

log = structlog.get_logger()
STEADY_SECONDS = 60.0
"""A version that lived this long has not crashed at its start."""
CRASHES_TOLD = 5
"""After this many starts in a row that did not hold a person is told."""
Tell = Callable[[DeploymentFailed, str], Awaitable[None]]
"""Publishes an event that no message caused, with an id that is the same for the same occurrence."""


@dataclass
class _Starts:
    """How often a version was started again lately, and when the last start was over, well or not."""

    crashes: int = 0
    last: float = field(default=float("-inf"))

    def due(self, now: float) -> bool:
        return now >= self.last + pause(self.crashes)

    def note(self, now: float) -> None:
        self.crashes = self.crashes + 1 if now - self.last < STEADY_SECONDS + pause(self.crashes) else 1


class Reconciler:
    """Looks at the servers of one target for as long as the deployer lives."""

    def __init__(
        self,
        target: str,
        registry: DeploymentRegistry,
        rollout: Rollout,
        servers: ServerBackend,
        gateway: Gateway,
        tell: Tell,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target, self._registry, self._rollout = target, registry, rollout
        self._servers, self._gateway, self._tell, self._seconds, self._clock = servers, gateway, tell, seconds, clock
        self._told: set[str] = set()
        self._seeing = True
        self._models: set[str] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[tuple[str, str], _Starts] = defaultdict(_Starts)

    async def run(self) -> None:
        """Look again and again; a look that fails (bus away, version broken) is made up for by a later one."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._seconds)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def look(self) -> None:
        """Begin to put right every model where something is not as it should be; models do not wait for each other."""
        if not await self._sees():
            return
        for model in await self._known():
            before = self._tasks.get(model)
            if before is None or before.done():
                if before is not None and (error := before.exception()) is not None:
                    log.error("could not be put right", model=model, error=f"{type(error).__name__}: {error}")
                self._tasks[model] = asyncio.create_task(self._tend(model))

    async def settle(self) -> None:
        """Wait until what the last look began is done."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _sees(self) -> bool:
        """Whether it is known what runs. While it is not, nothing is undone: servers may well go on answering."""
        try:
            await self._servers.refresh()
        except BackendAway as error:
            if self._seeing:
                log.warning("what is live stays routed", error=str(error))
            self._seeing = False
            return False
        self._seeing = True
        return True

    async def _known(self) -> set[str]:
        if self._models is None:  # after a start nothing may run yet: what should is in the registry
            try:
                self._models = {live.model for live in await self._registry.lives() if live.target == self._target}
            except (NatsError, TimeoutError) as error:
                log.warning("the registry does not answer", error=repr(error))
                return set()
        self._models |= {server.model for server in self._servers.all()}
        return self._models

    async def _tend(self, model: str) -> None:
        # In this order: what runs is seen after what is routed and live, which another replica may just have changed.
        routed, live = self._gateway.address(model), await self._rollout.live(model)
        await self._servers.refresh()
        if live is not None:
            self._refuse(live.model, routed)
            await self._revive(live, live.version)
            await self._route(live)
            if live.previous is not None:
                await self._revive(live, live.previous)
            await self._clear(live)

    async def _revive(self, live: Live, version: str) -> None:
        server = self._rollout.running(live.model, version)
        if server is not None:
            await self._note_restart(live, server)
            if await self._rollout.adopt(server):
                return
        starts = self._starts[live.model, version]
        deployed = await self._registry.image(live.model, version, self._target)
        if deployed is None or (live.model, version) in self._rollout.busy or not starts.due(self._clock()):
            return
        same = (one for one in self._servers.all() if (one.model, one.version) == (live.model, version))
        if any(self._servers.owned_by_other_replica(one) for one in same):
            return
        await self._note_crash(live, version, "starting again")
        try:
            await self._rollout.checked(deployed)
        finally:
            starts.last = self._clock()

    async def _note_restart(self, live: Live, server: Server) -> None:
        """What an engine starts again by itself counts as well: a person would never hear of it."""
        before = self._rollout.since.setdefault(server.id, server.since)
        if before != server.since:
            self._rollout.since[server.id] = server.since
            await self._note_crash(live, server.version, "was started again by its engine")
            self._starts[live.model, server.version].last = self._clock()

    async def _note_crash(self, live: Live, version: str, what: str) -> None:
        starts = self._starts[live.model, version]
        starts.note(self._clock())
        words = await self._last_words(live.model, version)
        log.warning(what, model=live.model, version=version, attempt=starts.crashes, last_words=words)
        if version == live.version and starts.crashes >= CRASHES_TOLD:
            await self._tell_once(live, starts.crashes, words)

    async def _route(self, live: Live) -> None:
        server = self._rollout.running(live.model, live.version)
        if server is None:
            return
        if self._gateway.address(live.model) != server.url:
            async with self._rollout.switching(live.model):
                # Read again: between the look and the lease another version may have become live.
                now = await self._rollout.live(live.model)
                if now is None or now.version != live.version:
                    return
                self._rollout.point(now, server)
        if not self._rollout.settled(live.model):
            await self._rollout.arrive(live, server)

    def _refuse(self, model: str, routed: str | None) -> None:
        # Better a clear 503 than requests to a port that may be another program's by now. Without the lease, which a
        # dead deployer may hold: should another one point at the same moment, it sees that it did not arrive.
        alive = {server.url for server in self._servers.all() if self._servers.is_alive(server)}
        if routed is not None and routed not in alive and self._gateway.address(model) == routed:
            self._gateway.route(model, None)

    async def _clear(self, live: Live) -> None:
        # Read again, and nothing awaited before the choice: no version can become live in between.
        if self._rollout.leftovers(live) and (now := await self._rollout.live(live.model)) is not None:
            await self._rollout.retire(now)

    async def _tell_once(self, live: Live, crashes: int, words: str) -> None:
        """Let a person know, once for as long as this version stays live."""
        id = f"{live.target}.{live.model}.{live.version}.{live.since}"
        if id in self._told:
            return
        await self._tell(crash_loop(live, crashes, words), id)
        self._told.add(id)

    async def _last_words(self, model: str, version: str) -> str:
        dead = [s for s in self._servers.all() if (s.model, s.version) == (model, version)]
        return (await self._servers.exit_report(dead[-1])).log_tail[-1000:] if dead else ""
