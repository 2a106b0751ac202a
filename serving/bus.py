"""The connection to the bus: it may be away at the start and at any time, and nobody waits for it."""

import asyncio
import logging

import nats
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from contracts import subjects

log = logging.getLogger("bentobelt.serving")

RECONNECT = 0.5
"""Seconds between attempts to reach the bus."""


class BusAway(Exception):
    """The bus did not confirm the message; it may or may not have it."""


class ServingBus:
    """Publishes with confirmation, or says that it cannot.

    Args:
        url: of nats-server, credentials in it.
        name: what this client is called in the server's list of connections.
        ack_seconds: how long to wait for a confirmation.
    """

    def __init__(self, url: str, name: str, ack_seconds: float) -> None:
        self._url, self._name, self._seconds = url, name, ack_seconds
        self._nc = Client()
        self._js: JetStreamContext | None = None
        self._said = ""

    async def keep_connected(self) -> None:
        """Connect, however long that takes, and anew when the client has given up; for ever.

        The client comes back by itself after an outage. It closes for good when a server that it is connected to says
        an error, such as that its credentials are no longer valid.
        """
        while True:
            self._nc, self._js, closed = Client(), None, asyncio.Event()
            try:
                await self._connect(closed)
                self._js, self._said = self._nc.jetstream(), ""
                await closed.wait()
                log.error("the bus ended the connection: %s; connecting anew", self._nc.last_error)
            except (nats.errors.Error, OSError) as error:
                await self._note(error)
            await asyncio.sleep(RECONNECT)

    async def _connect(self, closed: asyncio.Event) -> None:
        async def note_closed() -> None:
            closed.set()

        await self._nc.connect(
            self._url.split(","),
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT,  # type: ignore[arg-type]  # seconds, fractions too
            connect_timeout=2,
            inbox_prefix=subjects.inbox_prefix("serving"),
            error_cb=self._note,
            closed_cb=note_closed,
        )

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Publish and wait for the PubAck.

        Raises:
            BusAway: not connected, no answer in time, or no stream takes it.
        """
        if self._js is None or not self._nc.is_connected:
            raise BusAway("the bus is away")
        try:
            await self._js.publish(subject, body, timeout=self._seconds, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise BusAway(f"the bus did not confirm: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Disconnect; nothing is pending, because every publish was awaited."""
        await self._nc.close()

    async def _note(self, error: Exception) -> None:
        """Every attempt fails with the same words while the bus is away: they are said once."""
        await asyncio.sleep(0)
        said = str(error) or type(error).__name__
        log.log(logging.DEBUG if said == self._said else logging.WARNING, "bus: %s", said)
        self._said = said
