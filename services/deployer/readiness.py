"""Checks of a new server before it gets traffic: it is ready, and it predicts what the evaluated model predicted."""

import asyncio
import time
from typing import Protocol

import httpx

from contracts.features import Probe
from services.deployer.backends.protocol import Server, ServerBackend
from services.deployer.domain import check_predictions
from services.deployer.gateway import VERSION_HEADER
from services.messaging import Permanent

PROBE_HEADERS = {"X-Bentobelt-Probe": "1"}
"""A server does not log requests with this header as traffic."""
POLL = 0.02
REFRESH_SECONDS = 0.2
"""Pause between two checks that a server which is not ready yet still runs: each may be a call to an engine."""


class DidNotStart(Permanent):
    """The version did not become ready; the message ends with the end of its log."""


class Lost(Exception):
    """A signal from outside ended the server, or it stopped answering. Another start may succeed."""

    attempts = 1
    """The rollout has started it a second time before this error leaves it."""


class Checks(Protocol):
    """Checks of a server, made over HTTP."""

    async def ready(self, server: Server) -> None:
        """Wait until the server is ready.

        Raises:
            DidNotStart: it ended, or was not ready in time.
            Lost: something outside ended it.
        """
        ...

    async def answers(self, server: Server) -> bool:
        """Return whether the server answers one request now, and with its own version."""
        ...

    async def predictions(self, server: Server, probe: Probe) -> None:
        """Compare the server's predictions with those of the probe.

        Raises:
            PredictionsDiffer: they are not the same.
            DidNotStart: it refuses the rows.
            Lost: it does not answer.
        """
        ...


class HttpChecks:
    """The checks of a real server. `seconds` limits how long it may take until it is ready."""

    def __init__(self, servers: ServerBackend, seconds: float) -> None:
        self._servers, self._seconds = servers, seconds
        self._client = httpx.AsyncClient(timeout=10.0, headers=PROBE_HEADERS)

    async def ready(self, server: Server) -> None:
        refreshed = time.monotonic()
        deadline = refreshed + self._seconds
        while not await self._is_ready(server):
            if time.monotonic() - refreshed > REFRESH_SECONDS:
                await self._servers.refresh()
                refreshed = time.monotonic()
            if not self._servers.is_alive(server):
                report = await self._servers.exit_report(server)
                kind = Lost if report.retryable else DidNotStart
                raise kind(f"{server.model} {server.version} ended before it was ready: {report.log_tail}")
            if time.monotonic() > deadline:
                late = f"{server.model} {server.version} was not ready within {self._seconds:.0f} s"
                raise DidNotStart(f"{late}; its log ends: {await self._log_tail(server)}")
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
            refused = f"{server.model} {server.version} answers held-out rows with {answer.status_code}"
            raise DidNotStart(f"{refused}: {answer.text[:500]}; its log ends: {await self._log_tail(server)}")
        check_predictions(probe, tuple(one["prediction"] for one in answer.json()["predictions"]))

    async def close(self) -> None:
        await self._client.aclose()

    async def _is_ready(self, server: Server) -> bool:
        # The socket of a process is bound before its server runs: a request waits there until the server takes it.
        # The port of a container may belong to another program by now, so the answer has to name the version.
        try:
            answer = await self._client.get(f"{server.url}/readyz", timeout=5.0)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.headers.get(VERSION_HEADER) == server.version

    async def _log_tail(self, server: Server) -> str:
        return (await self._servers.exit_report(server)).log_tail
