"""What every worker shares: subscribe, emit, heartbeat, retry, dead letter.

A handler gets an event and its envelope and returns the events that follow. The worker does the rest, in an order
that survives a kill at any point: outputs are published (PubAck awaited) and recorded before the input is
acknowledged; a message seen before re-emits what was recorded; ids are derived from the cause, so that a repeated
output is the same message.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import nats.errors
import structlog
from faststream.exceptions import NackMessage, RejectMessage
from faststream.nats.message import NatsMessage
from opentelemetry.sdk.trace import TracerProvider

from contracts import cloudevents, subjects
from contracts.cloudevents import Envelope, Unreadable
from contracts.events import Event, StageFailed
from services.messaging import decoding, health
from services.messaging.decoding import RawMessage
from services.messaging.errors import MAX_LOST, RETRY_DELAYS, Permanent, attempts_of, is_permanent, text
from services.messaging.inbox import (
    Entry,
    Inbox,
    KvInbox,
    check_size,
    done,
    entry_for_delivery,
    failed_once_more,
    given_up,
    handed_over,
)
from services.messaging.outbox import Emit, Outbox, trace_context
from services.messaging.position import DeliveryMetadata, delivery_metadata
from services.messaging.process import WorkerProcess, every
from services.messaging.settings import BusSettings

__all__ = ["Emit", "Permanent", "RawMessage", "Worker", "log", "restart_on_error"]

E = TypeVar("E", bound=Event)
log = structlog.get_logger()

MESSAGE_CHARACTERS = 20_000
"""Longest text in a <stage>.failed; the end is what is kept."""


async def restart_on_error(
    task: Callable[[], Awaitable[None]],
    failing: dict[str, str],
    *,
    pauses: Sequence[float] = RETRY_DELAYS,
    **about: str,
) -> None:
    """Run a background task that is one of many: whatever it raises is logged, and after a pause it starts anew.

    Args:
        task: what to run; when it returns, so does this.
        failing: where its error stands, under what it is about, once it fails again and again: for `/health`.
        pauses: seconds before the next start, the last one for ever on; a task that ran for longer begins again with
            the first.
        about: what the log line says besides.
    """
    failures, name = 0, " ".join(about.values())
    while True:
        started = time.monotonic()
        try:
            return await task()
        except Exception as error:
            failures = 1 if time.monotonic() - started > pauses[-1] else failures + 1
            pause = pauses[min(failures, len(pauses)) - 1]
            if failures >= len(pauses):
                failing[name] = text(error)
            log.error("failed, starts anew", error=text(error), seconds=pause, exc_info=True, **about)
        try:
            await asyncio.sleep(pause)
        finally:
            failing.pop(name, None)


Outcome = Iterable[Event | Emit]
Handler = Callable[[E, Envelope], Awaitable[Outcome]]
RawHandler = Callable[[RawMessage, Envelope], Awaitable[Outcome]]
Consume = Callable[[NatsMessage], Awaitable[None]]


@dataclass(frozen=True)
class _Delivery:
    """One delivery of a message, read, and what is to be done about it."""

    message: NatsMessage
    at: DeliveryMetadata
    about: Envelope
    event: Event | None
    heard: str
    """The subject that is subscribed to: of raw messages a pattern."""
    consumer: str
    call: Callable[[], Awaitable[Outcome]]


class Worker(WorkerProcess):
    """One service on the bus. Replicas share their durable consumers.

    Args:
        service: the room's name; its durables, logs and metrics carry it.
        settings: where the bus is.
        failed: makes what to emit when an event is given up; without it there is only the dead letter.
        consumer: name in the durables when it differs from the service (a deployer's target).
        inbox: memory of handled messages; default: its bucket on the bus.
    """

    def __init__(
        self,
        service: str,
        settings: BusSettings,
        *,
        failed: Callable[..., StageFailed] | None = None,
        consumer: str | None = None,
        inbox: Inbox | None = None,
    ) -> None:
        self._consumer, self._failed = consumer or service, failed
        super().__init__(service, self._consumer, settings)
        self._inbox = inbox or KvInbox(self.bus)
        self._outbox = Outbox(self.broker, self._consumer)
        self._returned: Counter[tuple[str, int]] = Counter()
        self._tracer = TracerProvider().get_tracer("bentobelt")

    def on(self, *events: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Subscribe a handler to events, each through a durable of its own."""

        def subscribe(handler: Handler[E]) -> Handler[E]:
            for event in events:
                health.register_counters(self.service, event.subject)
                self.consumers.add(event.subject, self._patient(self._reader(handler, event.subject)))
            return handler

        return subscribe

    def on_raw(self, subject: str) -> Callable[[RawHandler], RawHandler]:
        """Subscribe a handler to messages that are no events: `dlq.>`, `logs.serving.*`."""

        def subscribe(handler: RawHandler) -> RawHandler:
            health.register_counters(self.service, subject)
            self.consumers.add(subject, self._patient(self._raw_reader(handler, subject)))
            return handler

        return subscribe

    async def emit_root(self, event: Event, *, id: str) -> None:
        """Publish an event that no message caused; `id` must be the same for the same occurrence."""
        await self._outbox.publish([self._outbox.root(event, id)])

    # -- one message -----------------------------------------------------------------------------------------

    def _durable(self, subject: str) -> str:
        return subjects.consumer_of(self._consumer, subject)

    def _reader(self, handler: Handler[E], heard: str) -> Consume:
        async def consume(message: NatsMessage) -> None:
            at = delivery_metadata(message)
            try:
                event, about = decoding.decode_event(message, at)
            except Unreadable as error:
                await self._reject(message, at, heard, str(error))
            if about.subject in cloudevents.STARTS_A_RUN:
                # A repeated identity is the same run and keeps the generation it had first.
                first = await self._inbox.first_generation(about.run, about.generation)
                about = about.model_copy(update={"generation": first})
            call: Callable[[], Awaitable[Outcome]] = lambda: handler(event, about)  # type: ignore[arg-type]  # noqa: E731
            await self._deliver(_Delivery(message, at, about, event, heard, self._durable(heard), call))

        return consume

    def _raw_reader(self, handler: RawHandler, heard: str) -> Consume:
        async def consume(message: NatsMessage) -> None:
            at = delivery_metadata(message)
            raw, about = decoding.decode_raw(message, at)
            consumer = self._durable(heard)
            await self._deliver(_Delivery(message, at, about, None, heard, consumer, lambda: handler(raw, about)))

        return consume

    def _patient(self, consume: Consume) -> Consume:
        """What fails outside a handler (the inbox, a publish) is the bus's trouble, not the message's: wait, repeat."""

        async def patiently(message: NatsMessage) -> None:
            try:
                await consume(message)
            except (NackMessage, RejectMessage):
                raise
            except Exception as error:
                at = delivery_metadata(message)
                self._returned[message.raw_message.subject, at.sequence] += 1
                delay = RETRY_DELAYS[min(at.delivered, len(RETRY_DELAYS)) - 1]
                log.warning("the bus is in trouble; will be tried again", error=text(error), seconds=delay)
                raise NackMessage(delay=delay) from error

        return patiently

    async def _deliver(self, delivery: _Delivery) -> None:
        """Deal with a message, or raise what makes FastStream give it back."""
        about, outcome, started = delivery.about, "retried", time.monotonic()
        with self._context(about, delivery.event):
            entry = entry_for_delivery(await self._inbox.entry(delivery.consumer, about.identity), delivery.at.sequence)
            try:
                if entry.outputs is not None:
                    await self._outbox.publish(entry.outputs)
                    outcome = "repeated"
                elif (lost := self._lost(about.subject, delivery.at, entry)) >= MAX_LOST:
                    await self._give_up(delivery, _died(lost), delivery.at.delivered)
                    outcome = "lost"
                else:
                    outcome = await self._attempt(delivery, entry)
            finally:
                health.EVENTS.labels(self.service, delivery.heard, outcome).inc()
                health.SECONDS.labels(self.service, delivery.heard).observe(time.monotonic() - started)

    def _lost(self, subject: str, at: DeliveryMetadata, entry: Entry) -> int:
        """Earlier deliveries that ended without a word: a worker died over them."""
        return at.delivered - 1 - entry.errors - entry.returned - self._returned[subject, at.sequence]

    async def _attempt(self, delivery: _Delivery, entry: Entry) -> str:
        identity = delivery.about.identity
        try:
            emits = await self._handle(delivery)
            outputs = [self._outbox.output(emit, delivery.about) for emit in emits]
            check_size(outputs, self.bus.max_payload)
            await self._outbox.publish(outputs)
            await self._inbox.record(delivery.consumer, identity, done(outputs))
            return "done"
        except asyncio.CancelledError:
            log.info("handed over")
            with contextlib.suppress(nats.errors.Error, TimeoutError):  # it only keeps the count of kills right
                await self._inbox.record(delivery.consumer, identity, handed_over(entry))
            raise NackMessage() from None
        except Exception as error:
            errors = entry.errors + 1
            if errors < attempts_of(error):
                await self._inbox.record(delivery.consumer, identity, failed_once_more(entry))
                delay = RETRY_DELAYS[min(errors, len(RETRY_DELAYS)) - 1]
                log.warning("will be tried again", error=text(error), attempt=errors, seconds=delay, exc_info=True)
                raise NackMessage(delay=delay) from error
            await self._give_up(delivery, error, errors)
            return "failed"

    async def _handle(self, delivery: _Delivery) -> Outcome:
        """Run the handler beside a heartbeat that keeps the message ours."""
        task = asyncio.create_task(_started(delivery.call))
        heartbeat = asyncio.create_task(every(self.consumers.heartbeat, delivery.message.in_progress))
        self.running.add(task)
        try:
            return await task
        finally:
            self.running.discard(task)
            heartbeat.cancel()
            task.cancel()

    async def _give_up(self, delivery: _Delivery, error: Exception, attempts: int) -> None:
        """Say that the stage failed, once; keep what could have succeeded as a dead letter."""
        log.error("given up", error=text(error), attempts=attempts, exc_info=error)
        outputs = []
        if self._failed and delivery.event is not None:
            failure = self._failed(
                model=delivery.event.model,
                version=decoding.version(delivery.about, delivery.event),
                error=type(error).__name__,
                message=(str(error) or repr(error))[-MESSAGE_CHARACTERS:],
                attempts=attempts,
            )
            # One per message: that it failed again when it was sent again is news.
            outputs.append(self._outbox.output(Emit(failure, key=str(delivery.at.sequence)), delivery.about))
        await self._outbox.publish(outputs)
        if not is_permanent(error) or not outputs:
            await self._outbox.dead_letter(delivery.message, delivery.at, delivery.consumer, text(error))
        entry = given_up(outputs, delivery.at.sequence)
        await self._inbox.record(delivery.consumer, delivery.about.identity, entry)

    async def _reject(self, message: NatsMessage, at: DeliveryMetadata, heard: str, reason: str) -> NoReturn:
        """What can never be read is kept for a person, and the queue goes on."""
        subject = message.raw_message.subject
        log.error("unreadable", subject=subject, sequence=at.sequence, reason=reason)
        await self._outbox.dead_letter(message, at, self._durable(heard), reason)
        health.EVENTS.labels(self.service, heard, "unreadable").inc()
        raise RejectMessage()

    @contextlib.contextmanager
    def _context(self, about: Envelope, event: Event | None) -> Iterator[None]:
        """Bind run, model and version to every log line, and continue the trace."""
        parent = trace_context.extract({"traceparent": about.traceparent}) if about.traceparent else None
        with (
            structlog.contextvars.bound_contextvars(
                run=about.run, model=about.model, version=event and decoding.version(about, event), event_id=about.id
            ),
            self._tracer.start_as_current_span(f"{self.service} {about.subject}", context=parent),
        ):
            yield


async def _started(call: Callable[[], Awaitable[Outcome]]) -> Outcome:
    return await call()


def _died(times: int) -> Exception:
    return RuntimeError(f"the worker died {times} times while it handled this; it will not be tried again")
