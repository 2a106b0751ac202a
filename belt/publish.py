"""Publishes events on behalf of a person."""

from collections.abc import Mapping
from datetime import UTC, datetime

from contracts import cloudevents
from contracts.events import Event, subject_of
from services.messaging import Bus

SOURCE = "belt"


async def publish(bus: Bus, event: Event, *, id: str, run: str | None = None) -> int:
    """Put `event` on the bus as a person's own: it decides with its own sequence. Returns that sequence."""
    own = cloudevents.run_of(SOURCE, id, event.model)
    written = cloudevents.headers(event, id=id, source=SOURCE, run=run or own, generation=0, time=datetime.now(UTC))
    del written["ce-generation"]  # the sequence that the stream gives it
    return await send(bus, subject_of(event), cloudevents.body(event), written)


async def send(bus: Bus, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Publish and wait for the PubAck; returns the sequence in the stream."""
    return (await bus.js.publish(subject, body, headers=dict(headers))).seq
