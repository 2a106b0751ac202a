"""Liveness of servers: a server is unresponsive after 3 failed requests in a row, and is asked again every 10th pass.

A server that hangs does not end, so it has to be asked again and again. On a loaded machine a healthy server may take
its time, so one failed request is not enough.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog

from services.deployer.backends.protocol import Server, ServerBackend
from services.deployer.readiness import Checks, DidNotStart, Lost

log = structlog.get_logger()
STARTUP_SECONDS = 60.0
"""A server that does not answer may still be starting for this long after its start."""
ATTEMPTS, PAUSE = 3, 0.5
"""Failed requests in a row that make a server unresponsive, and the seconds in between. Each may take 5 seconds."""
PASSES = 10
"""Passes of the reconciler from one request to the next."""
Start = tuple[str, float]
"""Id of a server and the time of its start: after a restart by its engine it has to prove itself again."""


class Liveness:
    """The result of the last liveness check of each server."""

    def __init__(self, servers: ServerBackend, checks: Checks) -> None:
        self._servers, self._checks = servers, checks
        self._passes: dict[Start, int] = {}
        """Servers that answered this process → passes since their last answer."""
        self._unresponsive: set[Start] = set()

    async def is_reliable(self, server: Server) -> bool:
        """Return whether a living server may get traffic: it has passed its checks and answers.

        It is asked at the first call and then at every 10th.
        """
        key = _start(server)
        passes = self._passes.get(key, PASSES) + 1
        if passes <= PASSES:
            self._passes[key] = passes
            return True
        if not self._servers.is_checked(server) or not await self.responds(server):
            return False
        if key not in self._passes:
            log.info("adopted", model=server.model, version=server.version, server=server.id)
        self.mark_alive(server)
        return True

    async def responds(self, server: Server) -> bool:
        """Return whether a checked server answers; if it does not, it is unresponsive from now on.

        A server that its engine has just restarted gets the time of a start first.
        """
        if _start(server) not in self._passes and time.time() - server.since < STARTUP_SECONDS:
            with contextlib.suppress(DidNotStart, Lost):
                await self._checks.ready(server)
        for pause in (*(PAUSE,) * (ATTEMPTS - 1), 0.0):
            if await self._checks.answers(server):
                return True
            await asyncio.sleep(pause)
        log.warning("unresponsive", model=server.model, version=server.version, server=server.id)
        self._passes.pop(_start(server), None)
        self._unresponsive.add(_start(server))
        return False

    def mark_alive(self, server: Server) -> None:
        """Record that the server answered just now."""
        self._passes[_start(server)] = 0

    def is_unresponsive(self, server: Server) -> bool:
        """Return whether the server failed its last check. It may recover, but is to be replaced."""
        return _start(server) in self._unresponsive

    def reset(self, servers: Iterable[Server]) -> None:
        """Forget that these servers were unresponsive, so that they are asked again."""
        self._unresponsive.difference_update(map(_start, servers))

    def forget(self, server: Server) -> None:
        """Drop everything known of a server that was ended."""
        self.reset([server])
        self._passes.pop(_start(server), None)


def _start(server: Server) -> Start:
    return server.id, server.since
