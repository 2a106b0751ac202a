"""A model's traffic on the bus: one durable consumer that is read in order.

Reading starts behind the position in the saved state, not behind the consumer's own: the consumer is created again at
each start. So no message is counted twice and none is lost, wherever the last reader was killed. Within a session, a
lost delivery shows as a gap in the consumer's numbering; the session then starts again.
"""

import asyncio
import contextlib
from typing import Any, Protocol

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError, ServerError

from contracts import subjects
from services.messaging import ACK_WAIT, Bus
from services.monitor.ingest.payloads import (
    FeedbackLabel,
    MalformedPayload,
    PredictionBatch,
    parse_feedback,
    parse_predictions,
)
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import TrafficMessage

STREAM = "PREDICTIONS"
FETCH_MESSAGES = 64
"""Largest number of messages in one fetch; a message may contain a thousand rows."""
RETRY_SECONDS = (0.1, 0.5)
"""Pauses between attempts to create the consumer."""
PARALLEL_READS = 32
DEAD_LETTER_BYTES = 4096
"""Size that is reserved in a dead letter for the headers that describe it."""
HEADER_BYTES = 64 * 1024
"""Largest size of the headers that the bus accepts in a stream."""


class DeliveryGap(Exception):
    """A delivery was lost. The messages after it must not be counted before it."""


class RowSource(Protocol):
    """Access to the rows of earlier messages."""

    async def read_rows(self, positions: RowPositions) -> dict[str, list[Any]]:
        """Read rows again, as lists of equal length: `column:<feature>`, `prediction` and, if labelled, `label`."""
        ...


def consumer_of(model: str) -> str:
    """Return the name of the durable consumer of a model's traffic."""
    return subjects.consumer_of("monitor", f"traffic.{model}")


class TrafficStream:
    """The traffic of one model, read from the bus."""

    def __init__(self, bus: Bus, model: str) -> None:
        self._bus, self.model = bus, model
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._expected = 1
        self._last: Msg | None = None

    async def open(self, position: int) -> int:
        """Start reading behind `position`. Return it, or 0 when the stream has been created anew and is shorter."""
        info = await self._bus.js.stream_info(STREAM)
        if info.state.last_seq < position:
            position = 0
        await self.close()
        durable = consumer_of(self.model)
        with contextlib.suppress(NotFoundError):
            await self._bus.js.delete_consumer(STREAM, durable)
        config = ConsumerConfig(
            durable_name=durable,
            filter_subjects=[f"predictions.{self.model}", f"feedback.{self.model}"],
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=position + 1,
            ack_policy=AckPolicy.ALL,
            ack_wait=ACK_WAIT,
            max_ack_pending=100_000,
        )
        await self._add_consumer(config)
        self._subscription = await self._bus.js.pull_subscribe_bind(consumer=durable, stream=STREAM)
        self._expected, self._last = 1, None
        return position

    async def _add_consumer(self, config: ConsumerConfig) -> None:
        """Add the consumer. nats-server answers 500 while it still removes the files of the consumer before it."""
        for pause in RETRY_SECONDS:
            with contextlib.suppress(ServerError):
                await self._bus.js.add_consumer(STREAM, config)
                return
            await asyncio.sleep(pause)
        await self._bus.js.add_consumer(STREAM, config)

    async def fetch(self, seconds: float) -> list[TrafficMessage]:
        """Return new messages, or [] after `seconds` without any. Malformed ones become dead letters.

        Raises:
            DeliveryGap: the stream must be opened again.
        """
        assert self._subscription is not None
        try:
            messages = await self._subscription.fetch(FETCH_MESSAGES, timeout=seconds)
        except TimeoutError:
            return []
        return [await self._read(message) for message in messages]

    async def _read(self, message: Msg) -> TrafficMessage:
        sequence = message.metadata.sequence
        if sequence.consumer != self._expected:
            raise DeliveryGap(f"delivery {self._expected} of consumer {consumer_of(self.model)} was lost")
        self._expected, self._last = self._expected + 1, message
        try:
            return TrafficMessage(sequence.stream, _parse(message.subject, message.data))
        except MalformedPayload as error:
            await self._dead_letter(message, str(error))
            return TrafficMessage(sequence.stream, [])  # An empty message only advances the position.

    async def ack(self) -> None:
        """Acknowledge all fetched messages: they are in the saved state."""
        if self._last is not None:
            await self._last.ack()
            self._last = None

    async def close(self) -> None:
        """Stop reading."""
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            with contextlib.suppress(nats.errors.Error):  # The connection is closed, and the subscription with it.
                await subscription.unsubscribe()

    async def read_rows(self, positions: RowPositions) -> dict[str, list[Any]]:
        """Read rows again from the bus. Rows that the bus has dropped are left out."""
        wanted = set(positions.sequence.tolist())
        if positions.label_sequence is not None:
            wanted |= set(positions.label_sequence.tolist())
        limit = asyncio.Semaphore(PARALLEL_READS)
        messages = dict(await asyncio.gather(*(self._message(sequence, limit) for sequence in sorted(wanted))))
        return collect_rows(positions, messages)

    async def _message(self, sequence: int, limit: asyncio.Semaphore) -> tuple[int, Any]:
        async with limit:
            try:
                message = await self._bus.js.get_msg(STREAM, seq=sequence, direct=True)
            except NotFoundError:
                return sequence, None
        try:
            return sequence, _parse(message.subject or "", message.data or b"")
        except MalformedPayload:  # An earlier release has counted it, with weaker checks.
            return sequence, None

    async def _dead_letter(self, message: Msg, reason: str) -> None:
        consumer, sequence = consumer_of(self.model), message.metadata.sequence.stream
        letter = {
            "Dead-Reason": reason,
            "Dead-Subject": message.subject,
            "Dead-Consumer": consumer,
            "Dead-Sequence": str(sequence),
            "Dead-Delivered": "1",
            "Nats-Msg-Id": f"dlq:{consumer}:{message.subject}:{sequence}",
        }
        body, kept = _cut(message, self._bus.nc.max_payload - DEAD_LETTER_BYTES)
        await self._bus.js.publish(f"dlq.{consumer}.{message.subject}", body, headers=kept | letter)


def _parse(subject: str, body: bytes) -> PredictionBatch | list[FeedbackLabel]:
    return parse_predictions(body) if subject.startswith("predictions.") else parse_feedback(body)


def _cut(message: Msg, limit: int) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a message, cut to `limit` bytes: a larger dead letter could not be published."""
    # The bus evaluates headers that begin with "Nats-", such as an expected stream name, and would refuse the letter.
    kept = {name: value for name, value in (message.headers or {}).items() if not name.lower().startswith("nats-")}
    size = sum(len(f"{name}{value}".encode()) + 4 for name, value in kept.items())
    if size > HEADER_BYTES - DEAD_LETTER_BYTES:
        kept, size = {}, 0
    if len(message.data) + size > limit:
        kept["Dead-Bytes"] = str(len(message.data))
    return message.data[: limit - size], kept


def collect_rows(positions: RowPositions, messages: dict[int, Any]) -> dict[str, list[Any]]:
    """Collect rows from whole messages, one list per column. Rows whose message or label is missing are left out."""
    found: dict[str, list[Any]] = {}
    count = 0
    for index, (sequence, row) in enumerate(zip(positions.sequence.tolist(), positions.row.tolist(), strict=True)):
        batch, label = messages[sequence], None
        if positions.label_sequence is not None and positions.label_row is not None:
            labels = messages[int(positions.label_sequence[index])]
            label = labels[int(positions.label_row[index])].label if labels else None
            if label is None:
                continue
        if batch is None:
            continue
        for name, values in batch.columns.items():
            found.setdefault(f"column:{name}", [None] * count).append(values[row])
        found.setdefault("prediction", []).append(batch.predictions[row])
        if label is not None:
            found.setdefault("label", []).append(label)
        count += 1
        for column in found.values():
            column.extend([None] * (count - len(column)))
    return found
