"""Read a message: its place in the stream, its payload and its envelope."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
from nats.aio.msg import Msg

from contracts import cloudevents, subjects
from contracts.cloudevents import Envelope
from contracts.events import Event

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class DeliveryMetadata:
    """A message's place in its stream and the number of its deliveries, this one included.

    The defaults hold for a message of no stream, as an in-memory broker delivers it.
    """

    sequence: int = 1
    delivered: int = 1
    time: datetime = EPOCH


@dataclass(frozen=True)
class RawMessage:
    """A message that is not one of our events, such as a dead letter or a log line."""

    subject: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    sequence: int
    time: datetime


def delivery_metadata(message: Msg) -> DeliveryMetadata:
    """Return the metadata that the server added to a delivered message."""
    try:
        metadata = message.metadata
    except nats.errors.Error:
        return DeliveryMetadata()
    return DeliveryMetadata(metadata.sequence.stream, metadata.num_delivered, metadata.timestamp)


def decode_event(message: Msg) -> tuple[Event, Envelope]:
    """Return the event in a message and its envelope.

    Raises:
        Unreadable: the payload does not fit the schema of its subject.
    """
    metadata = delivery_metadata(message)
    return cloudevents.read(message.subject, message.headers, message.data, metadata.sequence, metadata.time)


def decode_raw(message: Msg) -> tuple[RawMessage, Envelope]:
    """Return a message unchanged, with an envelope made of what its headers and its place in the stream say."""
    metadata = delivery_metadata(message)
    headers = {name.lower(): value for name, value in (message.headers or {}).items()}
    raw = RawMessage(message.subject, headers, message.data, metadata.sequence, metadata.time)
    envelope = Envelope(
        id=f"{subjects.stream_of(raw.subject)}:{raw.sequence}",
        source="nats",
        subject=raw.subject,
        time=raw.time,
        model=headers.get("ce-subject") or "unknown",
        run=headers.get("ce-correlationid", ""),
        generation=raw.sequence,
        sequence=raw.sequence,
    )
    return raw, envelope


def version_of(event: Event, envelope: Envelope) -> str | None:
    """Return the version that an event names, or None; an event that starts a run names the version it will lead to."""
    if envelope.subject in cloudevents.STARTS_A_RUN:
        return cloudevents.version_of(envelope.generation, envelope.run)
    version = getattr(event, "version", None)
    return version if isinstance(version, str) else None
