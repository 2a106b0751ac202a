"""Create the streams, buckets and durable consumers that are missing: `python -m services.messaging.streams`.

No other place creates a stream. A worker that declared one would reset its settings to defaults.
"""

import asyncio
import json
import re

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig, StreamConfig
from nats.js.errors import BucketNotFoundError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue
from pydantic import BaseModel, ConfigDict

from contracts import subjects
from services.messaging.connection import Bus, connect
from services.messaging.settings import BusSettings

DAY = 24 * 3600.0
MIB = 1024 * 1024

ACK_WAIT = 30.0
"""Seconds after which an unacknowledged message is delivered to another replica."""
MAX_DELIVER = -1
"""No limit: at a limit the server stops delivering a message and nobody notices. Workers limit the attempts."""
FIRST_SEQUENCE_MARGIN = 1_000_000
"""Distance between the highest recorded generation and the first sequence of a recreated stream.

Events without a record had sequences too.
"""


class StreamLimits(BaseModel):
    """Retention of a stream: age of its messages in seconds, and their bytes in all; None is without limit."""

    model_config = ConfigDict(frozen=True)

    max_age: float
    max_bytes: int | None = None
    duplicate_window: float = 120.0


class BucketLimits(BaseModel):
    """Retention of a key-value bucket: age of an entry in seconds (None: for good), and its number of revisions."""

    model_config = ConfigDict(frozen=True)

    ttl: float | None = None
    history: int = 1


STREAM_LIMITS = {
    "EVENTS": StreamLimits(max_age=30 * DAY, duplicate_window=3600.0),
    "PREDICTIONS": StreamLimits(max_age=7 * DAY, max_bytes=2048 * MIB),
    "DLQ": StreamLimits(max_age=30 * DAY, max_bytes=256 * MIB),
    "ADVISORY": StreamLimits(max_age=30 * DAY, max_bytes=64 * MIB),
    "LOGS": StreamLimits(max_age=DAY, max_bytes=256 * MIB),
}
BUCKET_LIMITS = {
    subjects.REGISTRY: BucketLimits(history=8),
    subjects.PROJECTS: BucketLimits(history=8),
    subjects.INBOX: BucketLimits(ttl=31 * DAY),
    subjects.LEASES: BucketLimits(ttl=15.0),
    subjects.MONITOR: BucketLimits(),
}


async def ensure_topology(bus: Bus, targets: tuple[str, ...] = ("local",)) -> None:
    """Create the streams, buckets and consumers that are missing; leave existing ones as they are.

    A recreated EVENTS stream starts above the highest generation in the registry, so that a run of the new stream is
    never taken for an older one.
    """
    for name, limits in BUCKET_LIMITS.items():
        await _ensure_bucket(bus.js, name, limits)
    await _ensure_object_store(bus.js)
    for stream in subjects.STREAMS:
        await _ensure_stream(bus, stream)
    for worker in subjects.WORKERS:
        services = [f"deployer-{target}" for target in targets] if worker == "deployer" else [worker]
        for service in services:
            for subject in subjects.LISTENS[worker]:
                await ensure_consumer(bus.js, service, subject)


async def ensure_consumer(js: JetStreamContext, service: str, subject: str) -> float:
    """Create the durable pull consumer of `service` for `subject` if it is missing; return its ack_wait in seconds.

    Raises:
        nats.js.errors.NotFoundError: there is no such stream.
    """
    stream, durable = subjects.stream_of(subject), subjects.consumer_of(service, subject)
    try:
        info = await js.consumer_info(stream, durable)
    except NotFoundError:
        # With a name, the subject of the request ends in the filter: permissions can say who may read what.
        wanted = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT,
            max_deliver=MAX_DELIVER,
        )
        info = await js.add_consumer(stream, wanted)
    return info.config.ack_wait or ACK_WAIT


async def _ensure_bucket(js: JetStreamContext, name: str, limits: BucketLimits) -> None:
    try:
        await js.key_value(name)
    except BucketNotFoundError:
        config = KeyValueConfig(bucket=name, history=limits.history, ttl=limits.ttl, direct=True)
        await js.create_key_value(config)


async def _ensure_object_store(js: JetStreamContext) -> None:
    try:
        await js.object_store(subjects.ARTIFACTS)
    except NotFoundError:
        await js.create_object_store(subjects.ARTIFACTS)


async def _ensure_stream(bus: Bus, name: str) -> None:
    try:
        await bus.js.stream_info(name)
    except NotFoundError:
        limits, first = STREAM_LIMITS[name], None
        if name == "EVENTS" and (generation := await highest_generation(bus)) is not None:
            first = generation + FIRST_SEQUENCE_MARGIN
        await bus.js.add_stream(
            StreamConfig(
                name=name,
                subjects=list(subjects.STREAMS[name]),
                max_age=limits.max_age,
                max_bytes=limits.max_bytes,
                duplicate_window=limits.duplicate_window,
                allow_direct=True,
                first_seq=first,
            )
        )


async def highest_generation(bus: Bus) -> int | None:
    """Return the highest generation in the registry and the projects, or None when there is no record."""
    found = []
    for name in (subjects.REGISTRY, subjects.PROJECTS):
        bucket = await bus.bucket(name)
        for key in await _keys(bucket):
            if version := re.search(r"\.(\d+)-[0-9a-f]{8}$", key):
                found.append(int(version[1]))
            else:
                record = json.loads((await bucket.get(key)).value or b"{}")
                found.append(int(record.get("order", 0)))
    return max(found, default=None)


async def _keys(bucket: KeyValue) -> list[str]:
    try:
        return await bucket.keys()
    except NoKeysError:
        return []


async def _main() -> None:
    bus = await connect(BusSettings().nats_url, name="topology")
    await ensure_topology(bus)
    await bus.close()


if __name__ == "__main__":
    asyncio.run(_main())
