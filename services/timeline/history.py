"""Readers of the event and log streams: everything that is stored, and live what is new.

Each reader is a consumer of its own, which the server removes a minute after the reader went away.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, ServiceUnavailableError

from contracts import cloudevents
from contracts.cloudevents import Envelope, Unreadable
from contracts.events import Event
from services.messaging import Bus

BATCH = 500
"""Messages per request; an event has a few kB."""
POLL_SECONDS = 2.0
RETRY_SECONDS = 0.5
IDLE_SECONDS = 60.0
"""Time after which the server removes the consumer of a reader that went away."""


@dataclass(frozen=True)
class StreamItem:
    """An event with its envelope, or a log line."""

    event: tuple[Event, Envelope] | None = None
    log: Mapping[str, Any] | None = None


NextItem = Callable[[], Awaitable[StreamItem]]


async def events(bus: Bus) -> list[tuple[Event, Envelope]]:
    """Return all events of the stream, oldest first. Unreadable messages, which become dead letters, are left out."""
    return [found async for message in _read_stored(bus.js, "EVENTS", ">") if (found := _event(message))]


async def logs(bus: Bus) -> tuple[list[Mapping[str, Any]], int]:
    """Return all stored log lines, oldest first, and the sequence in their stream that the next line gets."""
    lines, upcoming = [], 1
    async for message in _read_stored(bus.js, "LOGS", "logs.>"):
        upcoming = message.metadata.sequence.stream + 1
        if found := _log(message):
            lines.append(found)
    return lines, upcoming


async def follow_events(bus: Bus, start: int | None = None) -> AsyncIterator[tuple[Event, Envelope]]:
    """Yield events as they arrive, from sequence `start` on (default: new ones only), across reconnects. Never ends."""
    async for message in _follow(bus, "EVENTS", ">", start):
        if found := _event(message):
            yield found


async def follow_logs(bus: Bus, start: int | None = None) -> AsyncIterator[Mapping[str, Any]]:
    """Yield log lines as they arrive, from sequence `start` of their stream on (default: new ones only)."""
    async for message in _follow(bus, "LOGS", "logs.>", start):
        if found := _log(message):
            yield found


@asynccontextmanager
async def follow_all(bus: Bus, start: int | None = None) -> AsyncIterator[NextItem]:
    """Follow events (from sequence `start` on) and new log lines together.

    Yields a function to await for the next item. It raises the error that ended a reader, such as a closed connection.
    """
    queue: asyncio.Queue[StreamItem] = asyncio.Queue()
    # Both positions are fixed before the caller goes on, so that no event it causes is missed.
    starts = start or await next_sequence(bus, "EVENTS"), await next_sequence(bus, "LOGS")

    async def read_events() -> None:
        async for event in follow_events(bus, starts[0]):
            queue.put_nowait(StreamItem(event=event))

    async def read_logs() -> None:
        async for line in follow_logs(bus, starts[1]):
            queue.put_nowait(StreamItem(log=line))

    readers = [asyncio.create_task(read_events()), asyncio.create_task(read_logs())]
    try:
        yield lambda: _next_item(queue, readers)
    finally:
        await _cancel_all(readers)


async def _cancel_all(readers: "list[asyncio.Task[None]]") -> None:
    # Repeated until all have ended: nats-py can take a cancellation at the end of its wait for its own timeout.
    running = set(readers)
    while running:
        for reader in running:
            reader.cancel()
        _, running = await asyncio.wait(running, timeout=RETRY_SECONDS)
    await asyncio.gather(*readers, return_exceptions=True)


async def _next_item(queue: "asyncio.Queue[StreamItem]", readers: "list[asyncio.Task[None]]") -> StreamItem:
    getting = asyncio.create_task(queue.get())
    try:
        await asyncio.wait({getting, *readers}, return_when=asyncio.FIRST_COMPLETED)
        for reader in readers:
            if reader.done():
                reader.result()
        return await getting
    finally:
        getting.cancel()


async def next_sequence(bus: Bus, stream: str) -> int:
    """Return the sequence that the next message of `stream` gets."""
    return (await bus.js.stream_info(stream)).state.last_seq + 1


async def _read_stored(js: JetStreamContext, stream: str, subject: str) -> AsyncIterator[Msg]:
    reader = await _reader(js, stream, subject, None)
    try:
        pending = (await reader.consumer_info()).num_pending or 0
        while pending:
            messages = await reader.fetch(min(BATCH, pending), timeout=10)
            for message in messages:
                yield message
            pending = messages[-1].metadata.num_pending
    finally:
        await js.delete_consumer(stream, (await reader.consumer_info()).name)
        await reader.unsubscribe()


async def _follow(bus: Bus, stream: str, subject: str, start: int | None) -> AsyncIterator[Msg]:
    upcoming = start or await next_sequence(bus, stream)
    while True:
        try:
            reader = await _reader(bus.js, stream, subject, upcoming)
            while True:
                for message in await _fetch(reader, upcoming):
                    upcoming = message.metadata.sequence.stream + 1
                    yield message
        except (nats.errors.Error, APIError, ServiceUnavailableError, TimeoutError):
            # The bus or the consumer went away: a new consumer goes on where this one stopped.
            if bus.nc.is_closed:
                raise
            await asyncio.sleep(RETRY_SECONDS)


async def _fetch(reader: JetStreamContext.PullSubscription, upcoming: int) -> list[Msg]:
    """Return the messages that have arrived; an empty list when there are none.

    Raises:
        TimeoutError: a message that the server has delivered did not arrive, and the server will not send it again.
    """
    try:
        return await reader.fetch(BATCH, timeout=POLL_SECONDS)
    except (nats.errors.TimeoutError, TimeoutError):
        # Either there are no messages or the consumer is gone; for the latter the server answers with an error.
        sent = (await reader.consumer_info()).delivered
        if sent and sent.stream_seq >= upcoming:
            raise TimeoutError(f"message {upcoming} was delivered and did not arrive") from None
        return []


async def _reader(
    js: JetStreamContext, stream: str, subject: str, start: int | None
) -> JetStreamContext.PullSubscription:
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        inactive_threshold=IDLE_SECONDS,
        mem_storage=True,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE if start else DeliverPolicy.ALL,
        opt_start_seq=start,
    )
    return await js.pull_subscribe(subject, stream=stream, config=config)


def _event(message: Msg) -> tuple[Event, Envelope] | None:
    at = message.metadata
    try:
        return cloudevents.read(message.subject, message.headers, message.data, at.sequence.stream, at.timestamp)
    except Unreadable:
        return None


def _log(message: Msg) -> Mapping[str, Any] | None:
    try:
        line = json.loads(message.data)
    except ValueError:
        return None
    return {"subject": message.subject, **line} if isinstance(line, dict) else None
