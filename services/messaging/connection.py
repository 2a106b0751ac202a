"""The connection to NATS."""

import contextlib

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

RECONNECT_SECONDS = 0.5
PUBLISH_SECONDS = 10.0
"""Time a PubAck may take: a server that has just come back replays its streams first."""


class Bus:
    """What adapters hold on to before there is a connection; `connected` puts one in."""

    def __init__(self) -> None:
        self._nc: Client | None = None
        self._js: JetStreamContext | None = None
        self._buckets: dict[str, KeyValue] = {}

    def connected(self, nc: Client) -> None:
        """Use this connection from now on."""
        self._nc, self._js, self._buckets = nc, nc.jetstream(timeout=PUBLISH_SECONDS), {}

    @property
    def nc(self) -> Client:
        if self._nc is None:
            raise RuntimeError("the bus is used before it is connected")
        return self._nc

    @property
    def is_connected(self) -> bool:
        """Whether something can be sent right now."""
        return self._nc is not None and self._nc.is_connected

    @property
    def max_payload(self) -> int | None:
        """Bytes that the server takes in one message, headers included; None before there is a connection."""
        return None if self._nc is None else self._nc.max_payload

    @property
    def js(self) -> JetStreamContext:
        if self._js is None:
            raise RuntimeError("the bus is used before it is connected")
        return self._js

    async def bucket(self, name: str) -> KeyValue:
        """The key-value bucket of that name."""
        if name not in self._buckets:
            self._buckets[name] = await self.js.key_value(name)
        return self._buckets[name]

    async def close(self) -> None:
        # While the bus is away there is nobody to flush to, which nats-py says with an error.
        with contextlib.suppress(OSError):
            await self.nc.close()


async def connect(url: str, *, name: str = "belt", patient: bool = True) -> Bus:
    """A connected bus.

    Args:
        url: nats://[user:password@|token@]host:port.
        name: shown by the server's monitoring.
        patient: come back after any outage; otherwise give up after a few seconds.

    Raises:
        nats.errors.NoServersError: nobody answers (not patient).
        nats.errors.AuthorizationError: the credentials are wrong.
    """
    bus = Bus()
    nc = await nats.connect(
        url,
        name=name,
        connect_timeout=3,
        reconnect_time_wait=RECONNECT_SECONDS,
        max_reconnect_attempts=-1 if patient else 3,
        allow_reconnect=patient,
        error_cb=_quiet,
    )
    bus.connected(nc)
    return bus


async def _quiet(_: Exception) -> None:
    # nats-py prints a traceback per failed reconnect otherwise; the state is visible on the connection.
    return None
