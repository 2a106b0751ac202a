"""One message, from delivery to acknowledgement: read it, handle it, record and publish what follows.

The order survives a kill at any point. The events that follow are recorded in the inbox, then published (PubAck
awaited), then the message is acknowledged. A message that is delivered again publishes what was recorded, with the same
ids, so that the stream drops the repetition.

FastStream runs `Delivery` as a middleware around the handler and acknowledges outside of it: a return acknowledges the
message, NackMessage returns it to the stream for another attempt, RejectMessage ends its deliveries.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import nats.errors
import structlog
from faststream import BaseMiddleware
from faststream.exceptions import NackMessage, RejectMessage
from faststream.nats import NatsMessage
from nats.aio.msg import Msg
from opentelemetry.sdk.trace import TracerProvider

from contracts.cloudevents import Unreadable
from contracts.events import Event, StageFailed
from services.messaging import health, inbox
from services.messaging.decoding import delivery_metadata, version_of
from services.messaging.errors import MAX_LOST, attempts_of, is_permanent, retry_delay, text
from services.messaging.inbox import Entry, Inbox
from services.messaging.outbox import Emit, Outbox, trace_context
from services.messaging.process import WorkerProcess, every

Outcome = Iterable[Event | Emit]
Handle = Callable[[NatsMessage], Awaitable[Outcome]]

MESSAGE_CHARACTERS = 20_000
"""Length of the error text in a <stage>.failed; of a longer text the end is kept."""

log = structlog.get_logger()
tracer = TracerProvider().get_tracer("bentobelt")


@dataclass(frozen=True)
class Subscription:
    """State shared by all deliveries of a subscription."""

    worker: WorkerProcess
    subject: str
    """The subject of the subscription; of raw messages a pattern."""
    consumer: str
    """Name of the durable consumer."""
    inbox: Inbox
    outbox: Outbox
    failed: Callable[..., StageFailed] | None
    """Makes the event that reports a failure; without it a failed message is only a dead letter."""
    bus_errors: Counter[int] = field(default_factory=Counter)
    """Deliveries that this process returned because of an error of the bus, by the message's sequence."""


class Delivery(BaseMiddleware[Any, Any]):
    """One delivery of a message to a subscription."""

    def __init__(self, msg: Msg, /, *, context: Any, subscription: Subscription) -> None:
        super().__init__(msg, context=context)
        self._message = msg
        self._subscription, self._worker = subscription, subscription.worker
        self._inbox, self._outbox = subscription.inbox, subscription.outbox
        self._metadata = delivery_metadata(msg)

    async def consume_scope(self, call_next: Handle, msg: Any) -> None:
        """Process the message; after an error outside the handler, which is one of the bus, try it again later."""
        try:
            await self._process(call_next, msg)
        except (NackMessage, RejectMessage):
            raise
        except Exception as error:
            self._subscription.bus_errors[self._metadata.sequence] += 1
            delay = retry_delay(self._metadata.delivered)
            log.warning("the bus failed; the message will be tried again", error=text(error), seconds=delay)
            raise NackMessage(delay=delay) from error

    async def _process(self, call_next: Handle, message: NatsMessage) -> None:
        try:
            # The decoder of the subscription makes this pair, and FastStream calls the handler with it.
            self._content, self._envelope = await message.decode()  # type: ignore[misc]
        except Unreadable as error:
            await self._reject(str(error))
        service, subject = self._worker.service, self._subscription.subject
        outcome, started = "retried", time.monotonic()
        with self._context():
            entry = await self._inbox.entry(self._subscription.consumer, self._envelope.identity)
            try:
                outcome = await self._outcome(call_next, message, entry.at_delivery(self._metadata.sequence))
            finally:
                health.EVENTS.labels(service, subject, outcome).inc()
                health.SECONDS.labels(service, subject).observe(time.monotonic() - started)

    async def _outcome(self, call_next: Handle, message: NatsMessage, entry: Entry) -> str:
        if entry.outputs is not None:
            await self._outbox.publish(entry.outputs)
            return "repeated"
        lost = self._lost_deliveries(entry)
        if lost >= MAX_LOST:
            reason = f"the worker died {lost} times while it handled this message; it will not be tried again"
            await self._fail(RuntimeError(reason), self._metadata.delivered)
            return "lost"
        return await self._attempt(call_next, message, entry)

    def _lost_deliveries(self, entry: Entry) -> int:
        """Return the number of earlier deliveries without a recorded end: a worker was killed during each."""
        returned = entry.returned + self._subscription.bus_errors[self._metadata.sequence]
        return self._metadata.delivered - 1 - entry.errors - returned

    async def _attempt(self, call_next: Handle, message: NatsMessage, entry: Entry) -> str:
        try:
            emits = await self._handle(call_next, message)
            outputs = [self._outbox.output(emit, self._envelope) for emit in emits]
            inbox.check_size(outputs, self._worker.bus.max_payload)
        except asyncio.CancelledError:
            log.info("message returned: the worker stops")
            with contextlib.suppress(nats.errors.Error, TimeoutError):  # the record only keeps lost deliveries exact
                await self._record(entry.with_return())
            # FastStream sends no acknowledgement of any kind for a cancelled handler.
            raise NackMessage() from None
        except Exception as error:
            errors = entry.errors + 1
            if errors >= attempts_of(error):
                await self._fail(error, errors)
                return "failed"
            await self._record(entry.with_error())
            delay = retry_delay(errors)
            log.warning("will be tried again", error=text(error), attempt=errors, seconds=delay, exc_info=True)
            raise NackMessage(delay=delay) from error
        # Recorded first: after a kill in between, these outputs are published, not those of a second attempt.
        await self._record(inbox.completed(outputs))
        await self._outbox.publish(outputs)
        return "done"

    async def _handle(self, call_next: Handle, message: NatsMessage) -> Outcome:
        """Run the handler, and a heartbeat that keeps the server from delivering the message to another replica."""
        handler = asyncio.ensure_future(call_next(message))
        heartbeat = asyncio.create_task(every(self._worker.consumers.heartbeat, partial(_extend, message)))
        self._worker.running.add(handler)
        try:
            return await handler
        finally:
            self._worker.running.discard(handler)
            heartbeat.cancel()
            handler.cancel()

    async def _fail(self, error: Exception, attempts: int) -> None:
        """Publish that the stage failed, and keep the message as a dead letter if another attempt could succeed."""
        log.error("message failed", error=text(error), attempts=attempts, exc_info=error)
        sequence, outputs = self._metadata.sequence, []
        if self._subscription.failed and isinstance(self._content, Event):
            failure = self._subscription.failed(
                model=self._content.model,
                version=version_of(self._content, self._envelope),
                error=type(error).__name__,
                message=(str(error) or repr(error))[-MESSAGE_CHARACTERS:],
                attempts=attempts,
            )
            # A key per message: a second failure, after the event was sent again, is an event of its own.
            outputs.append(self._outbox.output(Emit(failure, key=str(sequence)), self._envelope))
        if not is_permanent(error) or not outputs:
            await self._outbox.dead_letter(self._message, self._metadata, self._subscription.consumer, text(error))
        await self._record(inbox.failed(outputs, sequence))
        await self._outbox.publish(outputs)

    async def _reject(self, reason: str) -> NoReturn:
        """Keep an unreadable message as a dead letter and end its deliveries."""
        log.error("unreadable message", subject=self._message.subject, sequence=self._metadata.sequence, reason=reason)
        await self._outbox.dead_letter(self._message, self._metadata, self._subscription.consumer, reason)
        health.EVENTS.labels(self._worker.service, self._subscription.subject, "unreadable").inc()
        raise RejectMessage()

    async def _record(self, entry: Entry) -> None:
        await self._inbox.record(self._subscription.consumer, self._envelope.identity, entry)

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        """Bind run, model and version to every log line, and continue the trace of the message."""
        content, envelope = self._content, self._envelope
        version = version_of(content, envelope) if isinstance(content, Event) else None
        parent = trace_context.extract({"traceparent": envelope.traceparent}) if envelope.traceparent else None
        with (
            structlog.contextvars.bound_contextvars(
                run=envelope.run, model=envelope.model, version=version, event_id=envelope.id
            ),
            tracer.start_as_current_span(f"{self._worker.service} {envelope.subject}", context=parent),
        ):
            yield


async def _extend(message: NatsMessage) -> None:
    """Tell the server that the message is still handled; while the bus is away the next heartbeat does it."""
    with contextlib.suppress(nats.errors.Error):
        await message.in_progress()
