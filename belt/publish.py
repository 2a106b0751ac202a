"""Publishes events in the name of a person."""

from collections.abc import Mapping
from datetime import UTC, datetime

from contracts import cloudevents
from contracts.events import Event, subject_of
from services.messaging import Bus

SOURCE = "belt"


async def publish(bus: Bus, event: Event, *, id: str, run: str | None = None) -> int:
    """Publish `event` and return its sequence in the stream, which becomes the generation of its run."""
    own = cloudevents.run_of(SOURCE, id, event.model)
    written = cloudevents.headers(event, id=id, source=SOURCE, run=run or own, generation=0, time=datetime.now(UTC))
    del written["ce-generation"]  # the workers take the sequence in the stream instead
    return await send(bus, subject_of(event), cloudevents.body(event), written)


async def send(bus: Bus, subject: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Publish, wait for the PubAck, and return the sequence in the stream."""
    return (await bus.js.publish(subject, body, headers=dict(headers))).seq
