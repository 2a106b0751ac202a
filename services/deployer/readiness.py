"""What a new server must show before it gets traffic: that it is ready, and that it answers as the judged model did."""

import asyncio
import time
from typing import Protocol

import httpx

from contracts.features import Probe
from services.deployer.backends.servers import Server, Servers
from services.deployer.domain import check_predictions
from services.deployer.gateway import VERSION_HEADER
from services.messaging import Permanent

PROBE_HEADERS = {"X-Bentobelt-Probe": "1"}
"""Serving does not log such requests as traffic."""
POLL = 0.02
LOOK = 0.2
"""Seconds between two looks at whether a server that is not ready yet still lives: each may be a call to an engine."""


class DidNotStart(Permanent):
    """The version never got ready; the message ends with its log."""


class Lost(Exception):
    """The server died of a signal nobody here sent, or stopped answering; another start may do."""

    attempts = 1
    """The deployer itself has started it a second time by then."""


class Checks(Protocol):
    """Asks servers over HTTP."""

    async def ready(self, server: Server) -> None:
        """Return once the server is ready.

        Raises:
            DidNotStart: it ended or took too long.
            Lost: something outside ended it.
        """
        ...

    async def answers(self, server: Server) -> bool:
        """Whether it answers with its version right now."""
        ...

    async def predictions(self, server: Server, probe: Probe) -> None:
        """Compare its predictions with the probe's.

        Raises:
            PredictionsDiffer: they are not the same.
            Lost: it does not answer.
        """
        ...


class HttpChecks:
    """The checks on a real server."""

    def __init__(self, servers: Servers, seconds: float) -> None:
        self._servers, self._seconds = servers, seconds
        self._client = httpx.AsyncClient(timeout=10.0, headers=PROBE_HEADERS)

    async def ready(self, server: Server) -> None:
        deadline, looked = time.monotonic() + self._seconds, time.monotonic()
        while not await self._is_ready(server):
            if time.monotonic() - looked > LOOK:
                await self._servers.look()
                looked = time.monotonic()
            if not self._servers.alive(server):
                ending = await self._servers.ending(server)
                kind = Lost if ending.again else DidNotStart
                raise kind(f"{server.model} {server.version} ended before it was ready: {ending.words}")
            if time.monotonic() > deadline:
                words = (await self._servers.ending(server)).words
                raise DidNotStart(
                    f"{server.model} {server.version} was not ready within {self._seconds:.0f} s; its log ends: {words}"
                )
            await asyncio.sleep(POLL)

    async def answers(self, server: Server) -> bool:
        try:
            answer = await self._client.get(f"{server.url}/info", timeout=5.0)
        except httpx.TransportError:
            return False
        return bool(answer.headers.get(VERSION_HEADER) == server.version)

    async def predictions(self, server: Server, probe: Probe) -> None:
        if not probe.rows:
            return
        try:
            answer = await self._client.post(f"{server.url}/predict", json={"rows": probe.rows})
        except httpx.TransportError as error:
            raise Lost(f"{server.model} {server.version} does not answer: {error!r}") from error
        if answer.status_code != 200:
            words = (await self._servers.ending(server)).words
            raise DidNotStart(
                f"{server.model} {server.version} answers held-out rows with {answer.status_code}: "
                f"{answer.text[:500]}; its log ends: {words}"
            )
        check_predictions(probe, tuple(one["prediction"] for one in answer.json()["predictions"]))

    async def close(self) -> None:
        await self._client.aclose()

    async def _is_ready(self, server: Server) -> bool:
        # A process's socket is bound before the server runs: a request waits in its backlog until the server takes it.
        # A container's port may be another program's by now: only its own version says that it is the one.
        try:
            answer = await self._client.get(f"{server.url}/readyz", timeout=5.0)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.headers.get(VERSION_HEADER) == server.version
