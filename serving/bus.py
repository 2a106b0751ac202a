"""The connection to the bus. The bus may be unavailable at any time, also when the server starts; no request waits
for it.
"""

import asyncio
import logging
from datetime import UTC, datetime
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from contracts import cloudevents, subjects
from contracts.events import Event
from contracts.packaged_model import Manifest

log = logging.getLogger("bentobelt.serving")

RECONNECT_SECONDS = 0.5
"""Time between two attempts to connect."""


class BusUnavailable(Exception):
    """The bus did not confirm the message. It may have stored it all the same."""


def event_headers(event: Event, manifest: Manifest) -> dict[str, str]:
    """Return the headers of an event of this version: a new id, and the run that the version comes from."""
    generation = int(manifest.version.split("-")[0])
    run, now = manifest.run, datetime.now(UTC)
    return cloudevents.headers(event, id=uuid4().hex, source="serving", run=run, generation=generation, time=now)


class ServingBus:
    """Publishes messages and waits at most `ack_seconds` for their confirmation.

    The server lists this client's connection under `name`.
    """

    def __init__(self, url: str, name: str, ack_seconds: float) -> None:
        self._url, self._name, self._ack_seconds = url, name, ack_seconds
        self._nc = Client()
        self._js: JetStreamContext | None = None
        self._last_error = ""

    async def keep_connected(self) -> None:
        """Connect, and connect again whenever the client has closed; runs until cancelled.

        The client reconnects by itself after an outage. It closes when a connected server reports an error, for
        example that its credentials are no longer valid.
        """
        while True:
            self._nc, self._js, closed = Client(), None, asyncio.Event()
            try:
                await self._connect(closed)
                self._js, self._last_error = self._nc.jetstream(), ""
                await closed.wait()
                log.error("the bus closed the connection: %s; connecting again", self._nc.last_error)
            except (nats.errors.Error, OSError) as error:
                await self._log_error(error)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connect(self, closed: asyncio.Event) -> None:
        async def on_closed() -> None:
            closed.set()

        await self._nc.connect(
            self._url.split(","),
            name=self._name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # seconds, fractions too
            connect_timeout=2,
            inbox_prefix=subjects.inbox_prefix("serving"),
            error_cb=self._log_error,
            closed_cb=on_closed,
        )

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Publish and wait for the PubAck.

        Raises:
            BusUnavailable: not connected, no PubAck in time, or no stream has the subject.
        """
        if self._js is None or not self._nc.is_connected:
            raise BusUnavailable("the bus is unavailable")
        try:
            await self._js.publish(subject, body, timeout=self._ack_seconds, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"the bus did not confirm: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Disconnect. No message is pending then, because every publish is awaited."""
        await self._nc.close()

    async def _log_error(self, error: Exception) -> None:
        """Log an error of the connection. Every attempt during an outage fails alike: the first is a warning."""
        await asyncio.sleep(0)
        text = str(error) or type(error).__name__
        log.log(logging.DEBUG if text == self._last_error else logging.WARNING, "bus: %s", text)
        self._last_error = text
