"""A model's traffic on the bus: one durable consumer, read in order from where the state left off.

The position in the saved state is the truth, not the consumer's: at each start the consumer is made anew behind it.
So nothing is counted twice, and nothing lost, wherever the last reader was killed. Within a session a delivery that
went astray shows as a gap in the consumer's own numbering, and the session starts over.
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
from services.monitor.ingest.payloads import MalformedPayload, parse_feedback, parse_predictions
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import TrafficMessage

STREAM = "PREDICTIONS"
AT_ONCE = 64
"""Messages in one fetch: a message may hold a thousand rows."""
RETRY_SECONDS = (0.1, 0.5)
"""Between attempts to make the consumer anew."""
PARALLEL = 32
LETTER_BYTES = 4096
"""Kept free in a dead letter for what is said of it."""
HEADER_BYTES = 64 * 1024
"""The bus takes no more in a stream."""


class Gap(Exception):
    """A delivery went astray: what follows must not be counted before it."""


class Recent(Protocol):
    """Rows that were seen, read again."""

    async def columns(self, rows: RowPositions) -> dict[str, list[Any]]:
        """Lists of equal length under `column:<feature>`, `prediction` and, of labelled rows, `label`."""
        ...


def consumer_of(model: str) -> str:
    """Name of the durable consumer of a model's traffic."""
    return subjects.consumer_of("monitor", f"traffic.{model}")


class TrafficStream:
    """The traffic of one model."""

    def __init__(self, bus: Bus, model: str) -> None:
        self._bus, self.model = bus, model
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._expected = 1
        self._last: Msg | None = None

    async def open(self, position: int) -> int:
        """Start reading behind `position`; returns it, or 0 when the stream is younger than it."""
        info = await self._bus.js.stream_info(STREAM)
        if info.state.last_seq < position:
            position = 0
        await self.close()
        durable = consumer_of(self.model)
        with contextlib.suppress(NotFoundError):
            await self._bus.js.delete_consumer(STREAM, durable)
        await self._made(_config(durable, self.model, position))
        self._subscription = await self._bus.js.pull_subscribe_bind(consumer=durable, stream=STREAM)
        self._expected, self._last = 1, None
        return position

    async def _made(self, config: ConsumerConfig) -> None:
        """Add the consumer. nats-server may still be removing the files of the one before: it says 500 then."""
        for pause in RETRY_SECONDS:
            with contextlib.suppress(ServerError):
                await self._bus.js.add_consumer(STREAM, config)
                return
            await asyncio.sleep(pause)
        await self._bus.js.add_consumer(STREAM, config)

    async def fetch(self, seconds: float) -> list[TrafficMessage]:
        """What has come, at most a few dozen messages; [] after `seconds` without any. Unreadable ones are put aside.

        Raises:
            Gap: open the stream again.
        """
        assert self._subscription is not None
        try:
            messages = await self._subscription.fetch(AT_ONCE, timeout=seconds)
        except TimeoutError:
            return []
        return [await self._read(message) for message in messages]

    async def _read(self, message: Msg) -> TrafficMessage:
        sequence = message.metadata.sequence
        if sequence.consumer != self._expected:
            raise Gap(f"delivery {self._expected} of {consumer_of(self.model)} went astray")
        self._expected, self._last = self._expected + 1, message
        try:
            if message.subject.startswith("predictions."):
                return TrafficMessage(sequence.stream, parse_predictions(message.data))
            return TrafficMessage(sequence.stream, parse_feedback(message.data))
        except MalformedPayload as error:
            await self._dead_letter(message, str(error))
            return TrafficMessage(sequence.stream, [])  # it only moves the position

    async def ack(self) -> None:
        """All that was fetched is in the saved state."""
        if self._last is not None:
            await self._last.ack()
            self._last = None

    async def close(self) -> None:
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            try:
                await subscription.unsubscribe()
            except nats.errors.Error:
                return  # the connection is gone, and it with it

    async def columns(self, rows: RowPositions) -> dict[str, list[Any]]:
        """Rows read again from the bus; those it has dropped since are left out."""
        wanted = set(rows.sequence.tolist())
        if rows.label_sequence is not None:
            wanted |= set(rows.label_sequence.tolist())
        gate = asyncio.Semaphore(PARALLEL)
        messages = dict(await asyncio.gather(*(self._message(sequence, gate) for sequence in sorted(wanted))))
        return collect(rows, messages)

    async def _message(self, sequence: int, gate: asyncio.Semaphore) -> tuple[int, Any]:
        async with gate:
            try:
                message = await self._bus.js.get_msg(STREAM, seq=sequence, direct=True)
            except NotFoundError:
                return sequence, None
        body, read = (
            message.data or b"",
            parse_predictions if (message.subject or "").startswith("predictions.") else parse_feedback,
        )
        try:
            return sequence, read(body)
        except MalformedPayload:  # it was counted when less was asked of a message
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
        body, kept = _fitting(message, self._bus.nc.max_payload - LETTER_BYTES)
        await self._bus.js.publish(f"dlq.{consumer}.{message.subject}", body, headers=kept | letter)


def _fitting(message: Msg, room: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers to keep of a message. One as large as can be is cut, or its letter could never be sent."""
    # The bus obeys its own headers: what was expected of one stream is refused by another.
    kept = {name: value for name, value in (message.headers or {}).items() if not name.lower().startswith("nats-")}
    size = sum(len(f"{name}{value}".encode()) + 4 for name, value in kept.items())
    if size > HEADER_BYTES - LETTER_BYTES:
        kept, size = {}, 0
    if len(message.data) + size > room:
        kept["Dead-Bytes"] = str(len(message.data))
    return message.data[: room - size], kept


def collect(rows: RowPositions, messages: dict[int, Any]) -> dict[str, list[Any]]:
    """One list per column out of whole messages; rows whose message or label is gone are left out."""
    found: dict[str, list[Any]] = {}
    place = 0
    for index, (sequence, row) in enumerate(zip(rows.sequence.tolist(), rows.row.tolist(), strict=True)):
        source = messages[sequence]
        truth = None
        if rows.label_sequence is not None and rows.label_row is not None:
            labels = messages[int(rows.label_sequence[index])]
            truth = labels[int(rows.label_row[index])].label if labels else None
            if truth is None:
                continue
        if source is None:
            continue
        for name, values in source.columns.items():
            column = found.setdefault(f"column:{name}", [None] * place)
            column.append(values[row])
        found.setdefault("prediction", []).append(source.predictions[row])
        if truth is not None:
            found.setdefault("label", []).append(truth)
        place += 1
        for column in found.values():
            column.extend([None] * (place - len(column)))
    return found


def _config(durable: str, model: str, position: int) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=durable,
        filter_subjects=[f"predictions.{model}", f"feedback.{model}"],
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=position + 1,
        ack_policy=AckPolicy.ALL,
        ack_wait=ACK_WAIT,
        max_ack_pending=100_000,
    )
