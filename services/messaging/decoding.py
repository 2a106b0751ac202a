"""What a message says: an event of ours or anything else, and which run and version it is about."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from faststream.nats.message import NatsMessage

from contracts import cloudevents, subjects
from contracts.cloudevents import Envelope
from contracts.events import Event
from services.messaging.position import DeliveryMetadata


@dataclass(frozen=True)
class RawMessage:
    """A message that is no event of ours: a dead letter, a log line."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    time: datetime


def decode_event(message: NatsMessage, at: DeliveryMetadata) -> tuple[Event, Envelope]:
    """The event in a message and its envelope.

    Raises:
        Unreadable: it is none, or not what its subject promises.
    """
    raw = message.raw_message
    return cloudevents.read(raw.subject, raw.headers, raw.data, at.sequence, at.time)


def decode_raw(message: NatsMessage, at: DeliveryMetadata) -> tuple[RawMessage, Envelope]:
    """A message as it is, and an envelope for what has none."""
    headers = {name.lower(): value for name, value in (message.raw_message.headers or {}).items()}
    raw = RawMessage(message.raw_message.subject, headers, message.raw_message.data, at.sequence, at.time)
    about = Envelope(
        id=f"{subjects.stream_of(raw.subject)}:{raw.sequence}",
        source="nats",
        subject=raw.subject,
        time=raw.time,
        model=headers.get("ce-subject") or "unknown",
        run=headers.get("ce-correlationid", ""),
        generation=raw.sequence,
        sequence=raw.sequence,
    )
    return raw, about


def version(about: Envelope, event: Event) -> str | None:
    """The version that an event is about, if it is about one: what starts a run is about the one to come."""
    if about.subject in cloudevents.STARTS_A_RUN:
        return cloudevents.version_of(about.generation, about.run)
    named = getattr(event, "version", None)
    return named if isinstance(named, str) else None
