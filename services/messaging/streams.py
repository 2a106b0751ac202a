"""The one place where streams, buckets and consumers are made: `python -m services.messaging.streams`."""

import asyncio
import json
import re

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, KeyValueConfig, StreamConfig
from nats.js.errors import BucketNotFoundError, NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from contracts import subjects
from services.messaging.connection import Bus, connect

GAP = 1_000_000
"""How far above the highest known generation a recreated stream starts: events without a record had sequences too."""


async def ensure_topology(bus: Bus, targets: tuple[str, ...] = ("local",)) -> None:
    """Create what is missing of streams, buckets and consumers; leave alone what is there.

    A recreated EVENTS stream starts above the highest generation the registry knows, so that a run of the new
    stream is never taken for an older one.
    """
    for bucket in subjects.BUCKETS:
        await _ensure_bucket(bus.js, bucket)
    await _ensure_object_store(bus.js)
    for stream in subjects.STREAMS:
        await _ensure_stream(bus, stream)
    for service, heard in subjects.LISTENS.items():
        names = [f"deployer-{target}" for target in targets] if service == "deployer" else [service]
        for name in names:
            for subject in heard:
                await ensure_consumer(bus.js, name, subject)


async def ensure_consumer(js: JetStreamContext, service: str, subject: str) -> float:
    """The durable pull consumer of `service` for `subject`, created when missing; returns its ack_wait in seconds.

    Raises:
        nats.js.errors.NotFoundError: there is no such stream.
    """
    stream, durable = subjects.stream_of(subject), subjects.consumer_of(service, subject)
    try:
        info = await js.consumer_info(stream, durable)
    except NotFoundError:
        # With a name the request's subject ends in the filter, so that permissions can say who may read what.
        wanted = ConsumerConfig(
            name=durable,
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=subjects.ACK_WAIT,
            max_deliver=subjects.MAX_DELIVER,
        )
        info = await js.add_consumer(stream, wanted)
    return info.config.ack_wait or subjects.ACK_WAIT


async def _ensure_bucket(js: JetStreamContext, bucket: subjects.BucketSpec) -> None:
    try:
        await js.key_value(bucket.name)
    except BucketNotFoundError:
        await js.create_key_value(
            KeyValueConfig(bucket=bucket.name, history=bucket.history, ttl=bucket.ttl or None, direct=True)
        )


async def _ensure_object_store(js: JetStreamContext) -> None:
    try:
        await js.object_store(subjects.ARTIFACTS)
    except NotFoundError:
        await js.create_object_store(subjects.ARTIFACTS)


async def _ensure_stream(bus: Bus, stream: subjects.StreamSpec) -> None:
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
    for name in (subjects.REGISTRY, subjects.PROJECTS):
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
    from services.messaging.settings import BusSettings

    bus = await connect(BusSettings().nats_url, name="topology")
    await ensure_topology(bus)
    await bus.close()


if __name__ == "__main__":
    asyncio.run(_main())
