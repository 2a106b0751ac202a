"""Messages, waits and queries that tests of a worker on a real bus share."""

import json
from pathlib import Path

from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts import cloudevents, subjects
from contracts.events import DataPushed
from services.messaging.connection import Bus
from services.messaging.streams import MAX_DELIVER
from tests.waiting import eventually

PUSH = json.dumps({"model": "digits", "dataset": "/x"}).encode()


def push(reason: str, model: str = "digits") -> bytes:
    return cloudevents.body(DataPushed(model=model, dataset="/x", reason=reason))


async def impatient(bus: Bus, seconds: float = 1.0) -> None:
    """Recreate the trainer's consumer with a short ack_wait: a test need not wait half a minute for a takeover."""
    durable = subjects.consumer_of("trainer", "data.pushed")
    await bus.js.delete_consumer("EVENTS", durable)
    await bus.js.add_consumer(
        "EVENTS",
        ConsumerConfig(
            durable_name=durable,
            filter_subject="data.pushed",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=seconds,
            max_deliver=MAX_DELIVER,
        ),
    )


async def kept(bus: Bus, subject: str) -> list[Msg]:
    """All messages of a subject in its stream."""
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
    reader = await bus.js.pull_subscribe(subject, stream=subjects.stream_of(subject), config=config)
    pending = (await reader.consumer_info()).num_pending
    found = await reader.fetch(pending, timeout=5) if pending else []
    await reader.unsubscribe()
    return found


async def wait_for(bus: Bus, subject: str, count: int = 1, seconds: float = 30.0) -> list[Msg]:
    async def enough() -> list[Msg]:
        found = await kept(bus, subject)
        return found if len(found) >= count else []

    return await eventually(enough, seconds)


async def idle(bus: Bus) -> bool:
    info = await bus.js.consumer_info("EVENTS", subjects.consumer_of("trainer", "data.pushed"))
    return (info.num_pending, info.num_ack_pending) == (0, 0)


def lines(calls: Path) -> list[str]:
    return calls.read_text().splitlines()
