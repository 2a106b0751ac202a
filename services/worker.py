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
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.exceptions import NackMessage, RejectMessage
from faststream.message import StreamMessage
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.message import NatsMessage
from nats.js.errors import NotFoundError
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts import envelope, topology
from contracts.envelope import Envelope, Unreadable
from contracts.events import Event, StageFailed, subject_of
from services import health, logs
from services.bus import PUBLISH_SECONDS, RECONNECT_SECONDS, Bus, ensure_consumer
from services.inbox import Entry, Inbox, KvInbox, Output, done, failed_once_more
from services.settings import BusSettings

E = TypeVar("E", bound=Event)
log = structlog.get_logger()
_trace = TraceContextTextMapPropagator()

EPOCH = datetime.fromtimestamp(0, UTC)
WATCH_SECONDS = 5.0
"""Between two looks at the consumers: a deleted one would otherwise go unnoticed."""
LOG_SECONDS = 0.1
PULL = PullSub(batch_size=1, timeout=5.0)


class Permanent(Exception):
    """What can never succeed, however often it is tried; the text is for a person."""

    permanent = True


@dataclass(frozen=True)
class Emit:
    """An event to publish, when more must be said than the event itself."""

    event: Event
    run: str | None = None
    """Default: the run of the message being handled."""
    generation: int | None = None
    """Default: the generation of the message being handled."""
    key: str = ""
    """Tells apart several events on one subject with one cause."""


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
_Call = Callable[[], Awaitable[Outcome]]


@dataclass(frozen=True)
class _Position:
    """Where a message stands in its stream; outside a stream (in-memory tests) the first of it."""

    sequence: int = 1
    delivered: int = 1
    time: datetime = EPOCH


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
        self.service, self.settings = service, settings
        self.bus = Bus()
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
            error_cb=self._on_error,
        )
        self._consumer, self._failed = consumer or service, failed
        self._inbox = inbox or KvInbox(self.bus)
        self._subjects: list[str] = []
        self._background: list[Callable[[], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._running: set[asyncio.Task[Outcome]] = set()
        self._seen: dict[str, float] = {}
        self._heartbeat = topology.HEARTBEAT
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._tracer = TracerProvider().get_tracer("bentobelt")

    # -- what a room uses ------------------------------------------------------------------------------------

    def on(self, *events: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Subscribe a handler to events, each through a durable of its own."""

        def subscribe(handler: Handler[E]) -> Handler[E]:
            for event in events:
                self._subscribe(event.subject, self._reader(handler))
            return handler

        return subscribe

    def on_raw(self, subject: str) -> Callable[[RawHandler], RawHandler]:
        """Subscribe a handler to messages that are no events: `dlq.>`, `logs.serving.*`."""

        def subscribe(handler: RawHandler) -> RawHandler:
            self._subscribe(subject, self._raw_reader(handler))
            return handler

        return subscribe

    def background(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` beside the consumers for as long as the worker lives; its failure ends the worker."""
        self._background.append(task)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""
        self._closers.append(close)

    async def emit(self, emit: Emit, about: Envelope) -> None:
        """Publish what follows from the message `about`; returns when the stream has it."""
        await self._publish(self._output(emit, about))

    async def emit_root(self, event: Event, *, id: str) -> None:
        """Publish an event that no message caused; `id` must be the same for the same occurrence."""
        source = f"bentobelt/{self._consumer}"
        run = envelope.run_of(source, id, event.model)
        written = envelope.headers(event, id=id, source=source, run=run, generation=0, time=datetime.now(UTC))
        await self._publish(Output(subject_of(event), written, envelope.body(event).decode()))

    def run(self) -> NoReturn:
        """Live until SIGTERM or SIGINT; exits 0 then, 1 when something it needs is gone for good."""
        shipper = logs.LogShipper(self.service, self.bus)
        logs.configure(self.service, self.settings.log_level, shipper)
        asyncio.run(self._live(shipper))
        sys.exit(self._exit_code)

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
        await self.connect()
        for subject in self._subjects:
            await self._await_consumer(subject)
        await self.broker.start()
        log.info("started", pid=os.getpid(), consumers=self._subjects)
        async with asyncio.TaskGroup() as group:
            group.create_task(_every(WATCH_SECONDS, self._watch))
            for task in self._background:
                group.create_task(_forever(task))

    async def _hand_over(self, working: asyncio.Task[None]) -> None:
        """Stop at once: what runs is given back to the bus for another replica."""
        failed = working.done() and working.exception()
        if failed:
            log.error("worker failed", exc_info=failed)
            self._exit_code = 1
        self._stop.set()
        for task in list(self._running):
            task.cancel()
        working.cancel()
        await asyncio.wait({working})
        for close in self._closers:
            await close()

    async def connect(self) -> None:
        """Connect, however long the bus takes to appear."""
        while True:
            try:
                self.bus.connected(await self.broker.connect())
                return
            except (nats.errors.NoServersError, OSError, TimeoutError) as error:
                log.warning(
                    "the bus does not answer yet", url=_without_secret(self.settings.nats_url), error=str(error)
                )
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _await_consumer(self, subject: str) -> None:
        for attempt in range(10**9):
            try:
                ack_wait = await ensure_consumer(self.bus.js, self._consumer, subject)
                self._heartbeat = min(self._heartbeat, ack_wait / 3)
                self._seen[subject] = time.monotonic()
                return
            except (NotFoundError, nats.errors.Error) as error:
                if attempt % 20 == 0:
                    stream = topology.stream_of(subject)
                    log.warning(f"waiting for stream {stream}; `python -m services.bus` makes it", error=str(error))
                await asyncio.sleep(RECONNECT_SECONDS / 2)

    async def _watch(self) -> None:
        """See that every consumer still exists; a deleted one would be polled in vain for ever."""
        for subject in self._subjects:
            try:
                await self.bus.js.consumer_info(
                    topology.stream_of(subject), topology.consumer_of(self._consumer, subject)
                )
                self._seen[subject] = time.monotonic()
            except NotFoundError:
                raise RuntimeError(f"the consumer for {subject} was deleted; starting anew makes it again") from None
            except nats.errors.Error:
                return  # the bus is away: /health says so by the age of the last look

    def health(self) -> dict[str, Any]:
        """Whether every consumer exists and is polled; what `/health` answers."""
        now = time.monotonic()
        ages = {subject: round(now - self._seen[subject], 1) for subject in self._seen}
        polled = {s.subject.template: not any(task.done() for task in s.tasks) for s in self._pulls() if s.running}
        fresh = len(ages) == len(self._subjects) and all(age < 3 * WATCH_SECONDS for age in ages.values())
        connected = self.broker._connection is not None and self.broker._connection.is_connected
        healthy = connected and fresh and len(polled) == len(self._subjects) and all(polled.values())
        return {
            "healthy": healthy and not self._stop.is_set(),
            "service": self.service,
            "connected": connected,
            "consumers": {s: {"seen_seconds_ago": ages.get(s), "polled": polled.get(s, False)} for s in self._subjects},
            "busy": len(self._running),
        }

    def _pulls(self) -> list[Any]:
        return [subscriber for subscriber in self.broker.subscribers if hasattr(subscriber, "tasks")]

    async def _closed(self) -> None:
        if not self._stop.is_set():
            log.error("the connection to the bus is closed for good; check the credentials in NATS_URL")
            self._exit_code = 1
            self._stop.set()

    async def _on_error(self, error: Exception) -> None:
        log.debug("bus", error=str(error))

    # -- one message -----------------------------------------------------------------------------------------

    def _subscribe(self, subject: str, consume: Callable[[NatsMessage], Awaitable[None]]) -> None:
        self._subjects.append(subject)
        self.broker.subscriber(
            subject,
            stream=JStream(topology.stream_of(subject), declare=False),
            durable=topology.consumer_of(self._consumer, subject),
            pull_sub=PULL,
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
        )(consume)

    def _reader(self, handler: Handler[E]) -> Callable[[NatsMessage], Awaitable[None]]:
        async def consume(message: NatsMessage) -> None:
            at, raw = _position(message), message.raw_message
            try:
                event, about = envelope.read(raw.subject, raw.headers, raw.data, at.sequence, at.time)
            except Unreadable as error:
                await self._reject(message, at, str(error))
            if about.subject in envelope.STARTS_A_RUN:
                # A repeated identity is the same run and keeps the generation it had first.
                first = await self._inbox.first_generation(about.run, about.generation)
                about = about.model_copy(update={"generation": first})
            await self._deliver(message, at, about, event, lambda: handler(event, about))  # type: ignore[arg-type]

        return consume

    def _raw_reader(self, handler: RawHandler) -> Callable[[NatsMessage], Awaitable[None]]:
        async def consume(message: NatsMessage) -> None:
            at, raw = _position(message), message.raw_message
            headers = {name.lower(): value for name, value in (raw.headers or {}).items()}
            letter = Raw(raw.subject, headers, raw.data, at.sequence, at.time)
            about = Envelope(
                id=f"{topology.stream_of(raw.subject)}:{at.sequence}",
                source="nats",
                subject=raw.subject,
                time=at.time,
                model=headers.get("ce-subject") or "unknown",
                run=headers.get("ce-correlationid", ""),
                generation=at.sequence,
                sequence=at.sequence,
            )
            await self._deliver(message, at, about, None, lambda: handler(letter, about))

        return consume

    async def _deliver(
        self, message: NatsMessage, at: _Position, about: Envelope, event: Event | None, call: _Call
    ) -> None:
        started, outcome = time.monotonic(), "done"
        consumer = topology.consumer_of(self._consumer, about.subject)
        with self._context(about, event):
            entry = await self._inbox.entry(consumer, about.identity)
            try:
                if entry.outputs is not None:
                    outcome = "repeated"
                    await self._publish_all(entry.outputs)
                elif at.delivered - 1 - entry.errors >= topology.MAX_LOST:
                    outcome = "lost"
                    await self._give_up(message, at, about, event, _lost(at), at.delivered)
                else:
                    outcome = await self._attempt(message, at, about, event, call, entry)
            finally:
                health.EVENTS.labels(self.service, about.subject, outcome).inc()
                health.SECONDS.labels(self.service, about.subject).observe(time.monotonic() - started)

    async def _attempt(
        self, message: NatsMessage, at: _Position, about: Envelope, event: Event | None, call: _Call, entry: Entry
    ) -> str:
        consumer = topology.consumer_of(self._consumer, about.subject)
        try:
            outputs = [self._output(emit, about) for emit in await self._handle(message, call)]
            await self._publish_all(outputs)
            await self._inbox.record(consumer, about.identity, done(outputs))
            return "done"
        except asyncio.CancelledError:
            log.info("handed over")
            raise NackMessage() from None
        except Exception as error:
            errors = entry.errors + 1
            if not getattr(error, "permanent", False) and errors < getattr(error, "attempts", topology.MAX_ERRORS):
                await self._inbox.record(consumer, about.identity, failed_once_more(entry))
                delay = topology.RETRY_DELAYS[min(errors, len(topology.RETRY_DELAYS)) - 1]
                log.warning("will be tried again", error=_text(error), attempt=errors, seconds=delay, exc_info=True)
                raise NackMessage(delay=delay) from error
            await self._give_up(message, at, about, event, error, errors)
            return "failed"

    async def _handle(self, message: NatsMessage, call: _Call) -> Outcome:
        """Run the handler beside a heartbeat that keeps the message ours."""
        task = asyncio.create_task(_started(call))
        heartbeat = asyncio.create_task(_every(self._heartbeat, message.in_progress))
        self._running.add(task)
        try:
            return await task
        finally:
            self._running.discard(task)
            heartbeat.cancel()
            task.cancel()

    async def _give_up(
        self, message: NatsMessage, at: _Position, about: Envelope, event: Event | None, error: Exception, attempts: int
    ) -> None:
        """Say that the stage failed, once; keep what could have succeeded as a dead letter."""
        log.error("given up", error=_text(error), attempts=attempts, exc_info=error)
        consumer = topology.consumer_of(self._consumer, about.subject)
        outputs = []
        if self._failed and event is not None:
            outputs.append(self._output(Emit(self._failure(about, event, error, attempts)), about))
        await self._publish_all(outputs)
        if not getattr(error, "permanent", False) or not outputs:
            await self._dead_letter(message, at, f"{type(error).__name__}: {error}")
        await self._inbox.record(consumer, about.identity, done(outputs))

    def _failure(self, about: Envelope, event: Event, error: Exception, attempts: int) -> StageFailed:
        assert self._failed is not None
        extra = {"target": self.settings.target} if hasattr(self.settings, "target") else {}
        return self._failed(
            model=event.model,
            version=_version(about, event),
            error=getattr(error, "error", type(error).__name__),
            message=str(error) or repr(error),
            attempts=attempts,
            **extra,
        )

    async def _reject(self, message: NatsMessage, at: _Position, reason: str) -> NoReturn:
        """What can never be read is kept for a person, and the queue goes on."""
        subject = message.raw_message.subject
        log.error("unreadable", subject=subject, sequence=at.sequence, reason=reason)
        await self._dead_letter(message, at, reason)
        health.EVENTS.labels(self.service, subject, "unreadable").inc()
        raise RejectMessage()

    async def _dead_letter(self, message: NatsMessage, at: _Position, reason: str) -> None:
        raw = message.raw_message
        consumer = topology.consumer_of(self._consumer, raw.subject)
        kept = {name: value for name, value in (raw.headers or {}).items() if name.lower() != "nats-msg-id"}
        letter = {
            "Dead-Reason": " ".join(reason.split())[:2000],
            "Dead-Subject": raw.subject,
            "Dead-Consumer": consumer,
            "Dead-Sequence": str(at.sequence),
            "Dead-Delivered": str(at.delivered),
            "Nats-Msg-Id": f"dlq:{consumer}:{raw.subject}:{at.sequence}:{at.delivered}",
        }
        await self.broker.publish(
            raw.data, f"dlq.{consumer}.{raw.subject}", headers=kept | letter, stream="DLQ", timeout=PUBLISH_SECONDS
        )

    # -- output ----------------------------------------------------------------------------------------------

    def _output(self, emit: Event | Emit, about: Envelope) -> Output:
        emit = emit if isinstance(emit, Emit) else Emit(emit)
        subject = subject_of(emit.event)
        carrier: dict[str, str] = {}
        _trace.inject(carrier)
        written = envelope.headers(
            emit.event,
            id=envelope.derived_id(self._consumer, about.identity, subject, emit.key),
            source=f"bentobelt/{self._consumer}",
            run=about.run if emit.run is None else emit.run,
            generation=about.generation if emit.generation is None else emit.generation,
            time=datetime.now(UTC),
            causation=about.id,
            traceparent=carrier.get("traceparent"),
        )
        return Output(subject, written, envelope.body(emit.event).decode())

    async def _publish_all(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            await self._publish(output)

    async def _publish(self, output: Output) -> None:
        await self.broker.publish(
            output.body.encode(),
            output.subject,
            headers=output.headers,
            stream=topology.stream_of(output.subject),
            timeout=PUBLISH_SECONDS,
        )

    @contextlib.contextmanager
    def _context(self, about: Envelope, event: Event | None) -> Any:
        """Bind run, model and version to every log line, and continue the trace."""
        parent = _trace.extract({"traceparent": about.traceparent}) if about.traceparent else None
        with (
            structlog.contextvars.bound_contextvars(
                run=about.run, model=about.model, version=event and _version(about, event), event_id=about.id
            ),
            self._tracer.start_as_current_span(f"{self.service} {about.subject}", context=parent),
        ):
            yield


async def _whole(message: StreamMessage[Any]) -> StreamMessage[Any]:
    """FastStream's decoder: none. Handlers of the worker read the message themselves, so bad payloads are ours."""
    return message


async def _started(call: _Call) -> Outcome:
    return await call()


async def _every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await action()


async def _forever(task: Callable[[], Awaitable[None]]) -> None:
    await task()
    raise RuntimeError("a background task ended")


def _position(message: NatsMessage) -> _Position:
    try:
        metadata = message.raw_message.metadata
    except nats.errors.Error:
        return _Position()
    return _Position(metadata.sequence.stream, metadata.num_delivered, metadata.timestamp)


def _version(about: Envelope, event: Event) -> str | None:
    if about.subject in envelope.STARTS_A_RUN:
        return envelope.version_of(about.generation, about.run)
    version = getattr(event, "version", None)
    return version if isinstance(version, str) else None


def _lost(at: _Position) -> Exception:
    return RuntimeError(f"the worker died {at.delivered - 1} times while it handled this; it will not be tried again")


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _without_secret(url: str) -> str:
    return url.rsplit("@", 1)[-1]


__all__ = ["Emit", "Permanent", "Raw", "Worker", "log", "trace"]
