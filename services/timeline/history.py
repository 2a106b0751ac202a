"""Reads the streams: the events so far, live ones, and log lines. The bus forgets a reader a minute after it left."""

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
"""Messages asked for at a time; an event is a few kB."""
POLL_SECONDS = 2.0
AGAIN_SECONDS = 0.5
IDLE_SECONDS = 60.0
"""After which the server forgets a reader that went away."""


@dataclass(frozen=True)
class Happened:
    """An event with its envelope, or a log line."""

    event: tuple[Event, Envelope] | None = None
    log: Mapping[str, Any] | None = None


Next = Callable[[], Awaitable[Happened]]


async def events(bus: Bus) -> list[tuple[Event, Envelope]]:
    """All events of the stream, oldest first; what cannot be read is a dead letter's matter and left out."""
    return [found async for message in _stored(bus.js, "EVENTS", ">") if (found := _event(message))]


async def logs(bus: Bus) -> tuple[list[Mapping[str, Any]], int]:
    """All log lines that are kept, oldest first, and the sequence in their stream to go on from."""
    lines, upcoming = [], 1
    async for message in _stored(bus.js, "LOGS", "logs.>"):
        upcoming = message.metadata.sequence.stream + 1
        if found := _log(message):
            lines.append(found)
    return lines, upcoming


async def follow_events(bus: Bus, start: int | None = None) -> AsyncIterator[tuple[Event, Envelope]]:
    """Events as they come, from sequence `start` on (default: only new ones). Outlives a reconnect; never ends."""
    async for message in _follow(bus, "EVENTS", ">", start):
        if found := _event(message):
            yield found


async def follow_logs(bus: Bus, start: int | None = None) -> AsyncIterator[Mapping[str, Any]]:
    """Log lines as they come, from sequence `start` of their stream on (default: only new ones)."""
    async for message in _follow(bus, "LOGS", "logs.>", start):
        if found := _log(message):
            yield found


@asynccontextmanager
async def happenings(bus: Bus, start: int | None = None) -> AsyncIterator[Next]:
    """Events (from sequence `start` on) and new log lines, one by one as they come.

    Yields a function to await for the next one; it raises what ended a reader, a connection closed for good.
    """
    queue: asyncio.Queue[Happened] = asyncio.Queue()
    # Where new ones begin is settled before the caller goes on: nothing it causes is missed.
    starts = start or await next_sequence(bus, "EVENTS"), await next_sequence(bus, "LOGS")

    async def read_events() -> None:
        async for event in follow_events(bus, starts[0]):
            queue.put_nowait(Happened(event=event))

    async def read_logs() -> None:
        async for line in follow_logs(bus, starts[1]):
            queue.put_nowait(Happened(log=line))

    readers = [asyncio.create_task(read_events()), asyncio.create_task(read_logs())]
    try:
        yield lambda: _first(queue, readers)
    finally:
        await _ended(readers)


async def _ended(readers: "list[asyncio.Task[None]]") -> None:
    # More than once if need be: a cancellation that meets the end of nats-py's wait is taken for that end.
    left = set(readers)
    while left:
        for reader in left:
            reader.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
    await asyncio.gather(*readers, return_exceptions=True)


async def _first(queue: "asyncio.Queue[Happened]", readers: "list[asyncio.Task[None]]") -> Happened:
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
    """The sequence that the next message of `stream` gets."""
    return (await bus.js.stream_info(stream)).state.last_seq + 1


async def _stored(js: JetStreamContext, stream: str, subject: str) -> AsyncIterator[Msg]:
    reader = await _reader(js, stream, subject, None)
    try:
        left = (await reader.consumer_info()).num_pending or 0
        while left:
            messages = await reader.fetch(min(BATCH, left), timeout=10)
            for message in messages:
                yield message
            left = messages[-1].metadata.num_pending
    finally:
        await js.delete_consumer(stream, (await reader.consumer_info()).name)
        await reader.unsubscribe()


async def _follow(bus: Bus, stream: str, subject: str, start: int | None) -> AsyncIterator[Msg]:
    upcoming = start or await next_sequence(bus, stream)
    while True:
        try:
            reader = await _reader(bus.js, stream, subject, upcoming)
            while True:
                for message in await _some(reader, upcoming):
                    upcoming = message.metadata.sequence.stream + 1
                    yield message
        except (nats.errors.Error, APIError, ServiceUnavailableError, TimeoutError):
            # The bus or the reader went away: a new reader goes on where this one stopped.
            if bus.nc.is_closed:
                raise
            await asyncio.sleep(AGAIN_SECONDS)


async def _some(reader: JetStreamContext.PullSubscription, upcoming: int) -> list[Msg]:
    """What has come; nothing when it is quiet.

    Raises:
        TimeoutError: the server has sent more than arrived: nobody would send it again.
    """
    try:
        return await reader.fetch(BATCH, timeout=POLL_SECONDS)
    except (nats.errors.TimeoutError, TimeoutError):
        # Quiet, or gone? The server answers the second with an error.
        sent = (await reader.consumer_info()).delivered
        if sent and sent.stream_seq >= upcoming:
            raise TimeoutError(f"message {upcoming} was sent and did not arrive") from None
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
