"""The connection to NATS, and JetStream and the buckets behind it."""

import contextlib

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

RECONNECT_SECONDS = 0.5
PUBLISH_SECONDS = 10.0
"""Time limit of a PubAck: a server that has just restarted replays its streams first."""


class Bus:
    """The bus as adapters hold it from the start on; the connection is put in by `connected`."""

    def __init__(self) -> None:
        self._nc: Client | None = None
        self._js: JetStreamContext | None = None
        self._buckets: dict[str, KeyValue] = {}

    def connected(self, nc: Client) -> None:
        """Use `nc` from now on."""
        self._nc, self._js, self._buckets = nc, nc.jetstream(timeout=PUBLISH_SECONDS), {}

    @property
    def nc(self) -> Client:
        if self._nc is None:
            raise RuntimeError("the bus is used before it is connected")
        return self._nc

    @property
    def is_connected(self) -> bool:
        """True while something can be sent."""
        return self._nc is not None and self._nc.is_connected

    @property
    def max_payload(self) -> int | None:
        """Bytes that the server accepts in one message, headers included; None before there is a connection."""
        return None if self._nc is None else self._nc.max_payload

    @property
    def js(self) -> JetStreamContext:
        if self._js is None:
            raise RuntimeError("the bus is used before it is connected")
        return self._js

    async def bucket(self, name: str) -> KeyValue:
        """Return the key-value bucket `name`."""
        if name not in self._buckets:
            self._buckets[name] = await self.js.key_value(name)
        return self._buckets[name]

    async def close(self) -> None:
        # While the bus is away nothing can be flushed, and nats-py raises an error.
        with contextlib.suppress(OSError):
            await self.nc.close()


async def connect(url: str, *, name: str = "belt", reconnect: bool = True) -> Bus:
    """Return a connected bus.

    Args:
        url: nats://[user:password@|token@]host:port.
        name: name of the connection in the server's monitoring.
        reconnect: reconnect after any outage; otherwise raise after a few seconds without the bus.

    Raises:
        nats.errors.NoServersError: no server answers (without `reconnect`).
        nats.errors.AuthorizationError: the credentials are wrong.
    """
    bus = Bus()
    nc = await nats.connect(
        url,
        name=name,
        connect_timeout=3,
        reconnect_time_wait=RECONNECT_SECONDS,
        max_reconnect_attempts=-1 if reconnect else 3,
        allow_reconnect=reconnect,
        error_cb=_ignore,
    )
    bus.connected(nc)
    return bus


async def _ignore(_: Exception) -> None:
    # Without a callback nats-py prints a traceback for each failed reconnect. `is_connected` shows the state.
    return None
