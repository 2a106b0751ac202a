"""Where a message stands in its stream, and how often it was delivered."""

from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
from faststream.nats.message import NatsMessage

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class DeliveryMetadata:
    """Outside a stream (an in-memory broker) a message is the first of it, delivered once."""

    sequence: int = 1
    delivered: int = 1
    time: datetime = EPOCH


def delivery_metadata(message: NatsMessage) -> DeliveryMetadata:
    """The position that the stream wrote into the message."""
    try:
        metadata = message.raw_message.metadata
    except nats.errors.Error:
        return DeliveryMetadata()
    return DeliveryMetadata(metadata.sequence.stream, metadata.num_delivered, metadata.timestamp)
