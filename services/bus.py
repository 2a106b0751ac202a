"""The connection to NATS, and the one place where streams, buckets and consumers are made."""

import asyncio
import contextlib
import json
import re

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig, StreamConfig
from nats.js.errors import BucketNotFoundError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from contracts import topology

RECONNECT_SECONDS = 0.5
GAP = 1_000_000
"""How far above the highest known generation a recreated stream starts: events without a record had sequences too."""
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


async def ensure_topology(bus: Bus, targets: tuple[str, ...] = ("local",)) -> None:
    """Create what is missing of streams, buckets and consumers; leave alone what is there.

    A recreated EVENTS stream starts above the highest generation the registry knows, so that a run of the new
    stream is never taken for an older one.
    """
    for bucket in topology.BUCKETS:
        await _ensure_bucket(bus.js, bucket)
    await _ensure_object_store(bus.js)
    for stream in topology.STREAMS:
        await _ensure_stream(bus, stream)
    for service, subjects in topology.LISTENS.items():
        names = [f"deployer-{target}" for target in targets] if service == "deployer" else [service]
        for name in names:
            for subject in subjects:
                await ensure_consumer(bus.js, name, subject)


async def ensure_consumer(js: JetStreamContext, service: str, subject: str) -> float:
    """The durable pull consumer of `service` for `subject`, created when missing; returns its ack_wait in seconds.

    Raises:
        nats.js.errors.NotFoundError: there is no such stream.
    """
    stream, durable = topology.stream_of(subject), topology.consumer_of(service, subject)
    try:
        info = await js.consumer_info(stream, durable)
    except NotFoundError:
        # With a name the request's subject ends in the filter, so that permissions can say who may read what.
        wanted = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=topology.ACK_WAIT,
            max_deliver=topology.MAX_DELIVER,
        )
        info = await js.add_consumer(stream, wanted)
    return info.config.ack_wait or topology.ACK_WAIT


async def _ensure_bucket(js: JetStreamContext, bucket: topology.Bucket) -> None:
    try:
        await js.key_value(bucket.name)
    except BucketNotFoundError:
        await js.create_key_value(
            KeyValueConfig(bucket=bucket.name, history=bucket.history, ttl=bucket.ttl or None, direct=True)
        )


async def _ensure_object_store(js: JetStreamContext) -> None:
    try:
        await js.object_store(topology.ARTIFACTS)
    except NotFoundError:
        await js.create_object_store(topology.ARTIFACTS)


async def _ensure_stream(bus: Bus, stream: topology.Stream) -> None:
    try:
        await bus.js.stream_info(stream.name)
    except NotFoundError:
        above = await highest_generation(bus) + GAP if stream.name == "EVENTS" else 1
        await bus.js.add_stream(
            StreamConfig(
                name=stream.name,
                subjects=list(stream.subjects),
                max_age=stream.max_age,
                max_bytes=stream.max_bytes,
                duplicate_window=stream.duplicate_window,
                allow_direct=True,
                first_seq=above if above > 1 else None,
            )
        )


async def highest_generation(bus: Bus) -> int:
    """The highest generation any record knows; 1 - GAP when there is none, so that a first stream starts at 1."""
    found = []
    for name in (topology.REGISTRY, topology.PROJECTS):
        bucket = await bus.bucket(name)
        for key in await _keys(bucket):
            if version := re.search(r"\.(\d+)-[0-9a-f]{8}$", key):
                found.append(int(version[1]))
            else:
                record = json.loads((await bucket.get(key)).value or b"{}")
                found.append(int(record.get("order", 0)))
    return max(found, default=1 - GAP)


async def _keys(bucket: KeyValue) -> list[str]:
    try:
        return await bucket.keys()
    except NoKeysError:
        return []


async def _main() -> None:
    from services.settings import BusSettings

    bus = await connect(BusSettings().nats_url, name="topology")
    await ensure_topology(bus)
    await bus.close()


if __name__ == "__main__":
    asyncio.run(_main())
