"""What every worker shares: connect, subscribe, emit, heartbeat, retry, dead letter, hand over.

A handler gets an event and its envelope and returns the events that follow. The worker does the rest, in an order
that survives a kill at any point: outputs are published (PubAck awaited) and recorded before the input is
acknowledged; a message seen before re-emits what was recorded; ids are derived from the cause, so that a repeated
output is the same message.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import nats.errors
import structlog
from faststream.exceptions import NackMessage, RejectMessage
from faststream.message import StreamMessage
from faststream.nats import NatsBroker
from faststream.nats.message import NatsMessage
from opentelemetry.sdk.trace import TracerProvider

from contracts import envelope, topology
from contracts.envelope import Envelope, Unreadable
from contracts.events import Event, StageFailed
from services import health, logs
from services.bus import RECONNECT_SECONDS, Bus
from services.consumers import WATCH_SECONDS, Consumers
from services.inbox import Entry, Inbox, KvInbox, done, failed_once_more
from services.outbox import Emit, Outbox, trace_context
from services.position import Position, position
from services.settings import BusSettings

__all__ = ["Emit", "Permanent", "Raw", "Worker", "log"]

E = TypeVar("E", bound=Event)
log = structlog.get_logger()

LOG_SECONDS = 0.1


class Permanent(Exception):
    """What can never succeed, however often it is tried; the text is for a person."""

    permanent = True


@dataclass(frozen=True)
class Raw:
    """A message that is no event of ours: a dead letter, a log line."""

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    time: datetime


Outcome = Iterable[Event | Emit]
Handler = Callable[[E, Envelope], Awaitable[Outcome]]
RawHandler = Callable[[Raw, Envelope], Awaitable[Outcome]]


@dataclass(frozen=True)
class _Delivery:
    """One delivery of a message, read, and what is to be done about it."""

    message: NatsMessage
    at: Position
    about: Envelope
    event: Event | None
    consumer: str
    call: Callable[[], Awaitable[Outcome]]


class Worker:
    """One service on the bus. Replicas share their durable consumers.

    Args:
        service: the room's name; its durables, logs and metrics carry it.
        settings: where the bus is.
        failed: what to emit when an event is given up; without it there is only the dead letter.
        consumer: name in the durables when it differs from the service (a deployer's target).
        inbox: memory of handled messages; default: its bucket on the bus.
    """

    def __init__(
        self,
        service: str,
        settings: BusSettings,
        *,
        failed: type[StageFailed] | None = None,
        consumer: str | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self.service, self.settings, self.bus = service, settings, Bus()
        self.broker = NatsBroker(
            settings.nats_url,
            name=consumer or service,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # nats-py takes fractions
            connect_timeout=3,
            decoder=_whole,
            apply_types=False,
            logger=None,
            graceful_timeout=5.0,
            closed_cb=self._closed,
            error_cb=_on_error,
        )
        self._consumer, self._failed = consumer or service, failed
        self._inbox = inbox or KvInbox(self.bus)
        self._outbox = Outbox(self.broker, self._consumer)
        self._consumers = Consumers(self.broker, self.bus, self._consumer)
        self._background: list[Callable[[], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._running: set[asyncio.Task[Outcome]] = set()
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._tracer = TracerProvider().get_tracer("bentobelt")

    # -- what a room uses ------------------------------------------------------------------------------------

    def on(self, *events: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Subscribe a handler to events, each through a durable of its own."""

        def subscribe(handler: Handler[E]) -> Handler[E]:
            for event in events:
                self._consumers.add(event.subject, self._reader(handler))
            return handler

        return subscribe

    def on_raw(self, subject: str) -> Callable[[RawHandler], RawHandler]:
        """Subscribe a handler to messages that are no events: `dlq.>`, `logs.serving.*`."""

        def subscribe(handler: RawHandler) -> RawHandler:
            self._consumers.add(subject, self._raw_reader(handler))
            return handler

        return subscribe

    def background(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` beside the consumers for as long as the worker lives; its failure ends the worker."""
        self._background.append(task)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""
        self._closers.append(close)

    async def emit(self, emit: Event | Emit, about: Envelope) -> None:
        """Publish what follows from the message `about`; returns when the stream has it."""
        await self._outbox.publish([self._outbox.output(emit, about)])

    async def emit_root(self, event: Event, *, id: str) -> None:
        """Publish an event that no message caused; `id` must be the same for the same occurrence."""
        await self._outbox.publish([self._outbox.root(event, id)])

    def run(self) -> NoReturn:
        """Live until SIGTERM or SIGINT; exits 0 then, 1 when something it needs is gone for good."""
        shipper = logs.LogShipper(self.service, self.bus)
        logs.configure(self.service, self.settings.log_level, shipper)
        asyncio.run(self._live(shipper))
        sys.exit(self._exit_code)

    def health(self) -> dict[str, Any]:
        """Whether every consumer exists and is polled; what `/health` answers."""
        connected = self.broker._connection is not None and self.broker._connection.is_connected
        return {
            "healthy": connected and self._consumers.healthy() and not self._stop.is_set(),
            "service": self.service,
            "connected": connected,
            "consumers": self._consumers.report(),
            "busy": len(self._running),
        }

    # -- life ------------------------------------------------------------------------------------------------

    async def _live(self, shipper: logs.LogShipper) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server, listening = health.server(self.health, self.settings.http_host, self.settings.http_port)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        shipping = asyncio.create_task(_every(LOG_SECONDS, shipper.flush))
        stopped = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(self._work())
        await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        await self._hand_over(working)
        shipping.cancel()
        with contextlib.suppress(RuntimeError):  # never connected
            await shipper.flush()
        if self.broker._connection is not None:
            await self.broker.stop()
        server.should_exit = True
        await serving

    async def _work(self) -> None:
        await self._connect()
        await self._consumers.ready()
        await self.broker.start()
        log.info("started", pid=os.getpid(), consumers=self._consumers.subjects)
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(WATCH_SECONDS, self._consumers.watch))
            for task in self._background:
                group.create_task(_forever(task))

    async def _hand_over(self, working: asyncio.Task[None]) -> None:
        """Stop at once: what runs is given back to the bus for another replica."""
        failed = working.done() and working.exception()
        if failed:
            log.error("worker failed", exc_info=failed)
            self._exit_code = 1
        self._stop.set()
        self._consumers.stop()  # or what is given back would come straight back here
        for task in list(self._running):
            task.cancel()
        working.cancel()
        await asyncio.wait({working})
        for close in self._closers:
            await close()

    async def _connect(self) -> None:
        """Connect, however long the bus takes to appear."""
        while True:
            try:
                self.bus.connected(await self.broker.connect())
                return
            except (nats.errors.NoServersError, OSError, TimeoutError) as error:
                url = self.settings.nats_url.rsplit("@", 1)[-1]  # without credentials
                log.warning("the bus does not answer yet", url=url, error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _closed(self) -> None:
        if not self._stop.is_set():
            log.error("the connection to the bus is closed for good; check the credentials in NATS_URL")
            self._exit_code = 1
            self._stop.set()

    # -- one message -----------------------------------------------------------------------------------------

    def _reader(self, handler: Handler[E]) -> Callable[[NatsMessage], Awaitable[None]]:
        async def consume(message: NatsMessage) -> None:
            at, raw = position(message), message.raw_message
            try:
                event, about = envelope.read(raw.subject, raw.headers, raw.data, at.sequence, at.time)
            except Unreadable as error:
                await self._reject(message, at, str(error))
            if about.subject in envelope.STARTS_A_RUN:
                # A repeated identity is the same run and keeps the generation it had first.
                first = await self._inbox.first_generation(about.run, about.generation)
                about = about.model_copy(update={"generation": first})
            consumer = topology.consumer_of(self._consumer, about.subject)
            call: Callable[[], Awaitable[Outcome]] = lambda: handler(event, about)  # type: ignore[arg-type]  # noqa: E731
            await self._deliver(_Delivery(message, at, about, event, consumer, call))

        return consume

    def _raw_reader(self, handler: RawHandler) -> Callable[[NatsMessage], Awaitable[None]]:
        async def consume(message: NatsMessage) -> None:
            at, raw = position(message), message.raw_message
            headers = {name.lower(): value for name, value in (raw.headers or {}).items()}
            letter = Raw(raw.subject, headers, raw.data, at.sequence, at.time)
            about = _about(letter)
            consumer = topology.consumer_of(self._consumer, about.subject)
            await self._deliver(_Delivery(message, at, about, None, consumer, lambda: handler(letter, about)))

        return consume

    async def _deliver(self, delivery: _Delivery) -> None:
        """Deal with a message, or raise what makes FastStream give it back."""
        about, at, outcome, started = delivery.about, delivery.at, "retried", time.monotonic()
        with self._context(about, delivery.event):
            entry = await self._inbox.entry(delivery.consumer, about.identity)
            try:
                if entry.outputs is not None:
                    await self._outbox.publish(entry.outputs)
                    outcome = "repeated"
                elif at.delivered - 1 - entry.errors >= topology.MAX_LOST:
                    await self._give_up(delivery, _lost(at), at.delivered)
                    outcome = "lost"
                else:
                    outcome = await self._attempt(delivery, entry)
            finally:
                health.EVENTS.labels(self.service, about.subject, outcome).inc()
                health.SECONDS.labels(self.service, about.subject).observe(time.monotonic() - started)

    async def _attempt(self, delivery: _Delivery, entry: Entry) -> str:
        identity = delivery.about.identity
        try:
            emits = await self._handle(delivery)
            outputs = [self._outbox.output(emit, delivery.about) for emit in emits]
            await self._outbox.publish(outputs)
            await self._inbox.record(delivery.consumer, identity, done(outputs))
            return "done"
        except asyncio.CancelledError:
            log.info("handed over")
            raise NackMessage() from None
        except Exception as error:
            errors = entry.errors + 1
            if not _is_permanent(error) and errors < getattr(error, "attempts", topology.MAX_ERRORS):
                await self._inbox.record(delivery.consumer, identity, failed_once_more(entry))
                delay = topology.RETRY_DELAYS[min(errors, len(topology.RETRY_DELAYS)) - 1]
                log.warning("will be tried again", error=_text(error), attempt=errors, seconds=delay, exc_info=True)
                raise NackMessage(delay=delay) from error
            await self._give_up(delivery, error, errors)
            return "failed"

    async def _handle(self, delivery: _Delivery) -> Outcome:
        """Run the handler beside a heartbeat that keeps the message ours."""
        task = asyncio.create_task(_started(delivery.call))
        heartbeat = asyncio.create_task(_every(self._consumers.heartbeat, delivery.message.in_progress))
        self._running.add(task)
        try:
            return await task
        finally:
            self._running.discard(task)
            heartbeat.cancel()
            task.cancel()

    async def _give_up(self, delivery: _Delivery, error: Exception, attempts: int) -> None:
        """Say that the stage failed, once; keep what could have succeeded as a dead letter."""
        log.error("given up", error=_text(error), attempts=attempts, exc_info=error)
        outputs = []
        if self._failed and delivery.event is not None:
            failure = self._failure(self._failed, delivery.about, delivery.event, error, attempts)
            outputs.append(self._outbox.output(failure, delivery.about))
        await self._outbox.publish(outputs)
        if not _is_permanent(error) or not outputs:
            await self._outbox.dead_letter(delivery.message, delivery.at, _text(error))
        await self._inbox.record(delivery.consumer, delivery.about.identity, done(outputs))

    def _failure(
        self, failed: type[StageFailed], about: Envelope, event: Event, error: Exception, attempts: int
    ) -> StageFailed:
        extra = {"target": self.settings.target} if hasattr(self.settings, "target") else {}
        return failed(
            model=event.model,
            version=_version(about, event),
            error=getattr(error, "error", type(error).__name__),
            message=str(error) or repr(error),
            attempts=attempts,
            **extra,
        )

    async def _reject(self, message: NatsMessage, at: Position, reason: str) -> NoReturn:
        """What can never be read is kept for a person, and the queue goes on."""
        subject = message.raw_message.subject
        log.error("unreadable", subject=subject, sequence=at.sequence, reason=reason)
        await self._outbox.dead_letter(message, at, reason)
        health.EVENTS.labels(self.service, subject, "unreadable").inc()
        raise RejectMessage()

    @contextlib.contextmanager
    def _context(self, about: Envelope, event: Event | None) -> Iterator[None]:
        """Bind run, model and version to every log line, and continue the trace."""
        parent = trace_context.extract({"traceparent": about.traceparent}) if about.traceparent else None
        with (
            structlog.contextvars.bound_contextvars(
                run=about.run, model=about.model, version=event and _version(about, event), event_id=about.id
            ),
            self._tracer.start_as_current_span(f"{self.service} {about.subject}", context=parent),
        ):
            yield


async def _whole(message: StreamMessage[Any]) -> StreamMessage[Any]:
    """FastStream's decoder: none. The worker reads messages itself, so that a bad payload is its own affair."""
    return message


async def _started(call: Callable[[], Awaitable[Outcome]]) -> Outcome:
    return await call()


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await action()


async def _forever(task: Callable[[], Awaitable[None]]) -> None:
    await task()
    raise RuntimeError("a background task ended")


async def _on_error(error: Exception) -> None:
    log.debug("bus", error=str(error))


def _about(raw: Raw) -> Envelope:
    """An envelope for what has none."""
    return Envelope(
        id=f"{topology.stream_of(raw.subject)}:{raw.sequence}",
        source="nats",
        subject=raw.subject,
        time=raw.time,
        model=raw.headers.get("ce-subject") or "unknown",
        run=raw.headers.get("ce-correlationid", ""),
        generation=raw.sequence,
        sequence=raw.sequence,
    )


def _version(about: Envelope, event: Event) -> str | None:
    if about.subject in envelope.STARTS_A_RUN:
        return envelope.version_of(about.generation, about.run)
    version = getattr(event, "version", None)
    return version if isinstance(version, str) else None


def _is_permanent(error: Exception) -> bool:
    return getattr(error, "permanent", False)


def _lost(at: Position) -> Exception:
    return RuntimeError(f"the worker died {at.delivered - 1} times while it handled this; it will not be tried again")


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
