"""Which servers answer: asked patiently, for slow is not dead, and again now and then, for what hangs does not end."""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog

from services.deployer.backends.protocol import Server, ServerBackend
from services.deployer.readiness import Checks, DidNotStart, Lost

log = structlog.get_logger()
YOUNG = 60.0
"""Seconds since its start in which a server that does not answer may still be about to."""
ASKED, PAUSE = 3, 0.5
"""How often in a row a server may leave us without an answer, and the seconds in between. A single answer may take five
seconds as it is, and on a loaded machine a healthy server takes its time.
"""
LOOKS = 10
"""Looks of the watch from one question to the next."""
Started = tuple[str, float]
"""Id of a server and since when: what its engine has started again under the same id is another one."""


class Liveness:
    """Remembers who answered when last asked."""

    def __init__(self, servers: ServerBackend, checks: Checks) -> None:
        self._servers, self._checks = servers, checks
        self._heard: dict[Started, int] = {}
        """Servers that this process has checked or adopted → looks since they last answered."""
        self._deaf: set[Started] = set()

    async def relies_on(self, server: Server) -> bool:
        """Whether a living server can be relied on: checked by whoever started it, and it answers when it is asked, at
        first and then at every tenth look.
        """
        key = _started(server)
        looks = self._heard.get(key, LOOKS) + 1
        if looks <= LOOKS:
            self._heard[key] = looks
            return True
        if not self._servers.is_checked(server) or not await self.answers(server):
            return False
        if key not in self._heard:
            log.info("adopted", model=server.model, version=server.version, server=server.id)
        self.note(server)
        return True

    async def answers(self, server: Server) -> bool:
        """Whether a checked server answers; what its engine has just started again has the time that a start takes.

        One that does not is deaf from now on.
        """
        if _started(server) not in self._heard and time.time() - server.since < YOUNG:
            with contextlib.suppress(DidNotStart, Lost):
                await self._checks.ready(server)
        for pause in (*(PAUSE,) * (ASKED - 1), 0.0):
            if await self._checks.answers(server):
                return True
            await asyncio.sleep(pause)
        log.warning("does not answer", model=server.model, version=server.version, server=server.id)
        self._heard.pop(_started(server), None)
        self._deaf.add(_started(server))
        return False

    def note(self, server: Server) -> None:
        """It answered just now."""
        self._heard[_started(server)] = 0

    def deaf(self, server: Server) -> bool:
        """Whether it was asked in vain. It may recover, but is to be replaced."""
        return _started(server) in self._deaf

    def forgive(self, servers: Iterable[Server]) -> None:
        """Let them be asked again."""
        self._deaf.difference_update(map(_started, servers))

    def forget(self, server: Server) -> None:
        """It was ended."""
        self.forgive([server])
        self._heard.pop(_started(server), None)


def _started(server: Server) -> Started:
    return server.id, server.since
