"""A worker: handlers of events, each behind a durable consumer that the worker's replicas share.

A handler receives an event and its envelope, and returns the events that follow. `services.messaging.delivery` does
the rest.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
from faststream.nats import NatsMessage

from contracts import subjects
from contracts.cloudevents import STARTS_A_RUN, Envelope
from contracts.events import Event, StageFailed
from services.messaging import health
from services.messaging.consumers import Decoder
from services.messaging.decoding import RawMessage, decode_event, decode_raw
from services.messaging.delivery import Delivery, Outcome, Subscription
from services.messaging.errors import Permanent
from services.messaging.inbox import Inbox, KvInbox
from services.messaging.outbox import Emit, Outbox
from services.messaging.process import WorkerProcess
from services.messaging.restart_policy import restart_on_error
from services.messaging.settings import BusSettings

__all__ = ["Emit", "Permanent", "RawMessage", "Worker", "log", "restart_on_error"]

E = TypeVar("E", bound=Event)
Handler = Callable[[E, Envelope], Awaitable[Outcome]]
RawHandler = Callable[[RawMessage, Envelope], Awaitable[Outcome]]

log = structlog.get_logger()


class Worker(WorkerProcess):
    """One service on the bus. Replicas share their durable consumers.

    Args:
        service: name of the service, in its consumers, logs and metrics.
        settings: how to reach the bus.
        failed: makes the event that reports a failure; without it a failed message is only a dead letter.
        consumer: name in the consumers when it differs from the service (a deployer's has its target).
        inbox: record of handled messages; default: its bucket on the bus.
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

    def on(self, *events: type[E]) -> Callable[[Handler[E]], Handler[E]]:
        """Subscribe a handler to events, to each through a durable consumer of its own."""

        def subscribe(handler: Handler[E]) -> Handler[E]:
            for event in events:
                self._subscribe(event.subject, handler, self._decode_event)
            return handler

        return subscribe

    def on_raw(self, subject: str) -> Callable[[RawHandler], RawHandler]:
        """Subscribe a handler to messages that are not events, such as `dlq.>` and `logs.serving.*`."""

        def subscribe(handler: RawHandler) -> RawHandler:
            self._subscribe(subject, handler, _decode_raw)
            return handler

        return subscribe

    async def emit_root(self, event: Event, id: str) -> None:
        """Publish an event that no message caused; `id` must be the same for the same occurrence."""
        await self._outbox.publish([self._outbox.root(event, id)])

    def _subscribe(self, subject: str, handler: Callable[..., Awaitable[Outcome]], decoder: Decoder) -> None:
        health.register_counters(self.service, subject)
        durable = subjects.consumer_of(self._consumer, subject)
        subscription = Subscription(self, subject, durable, self._inbox, self._outbox, self._failed)
        self.consumers.add(subject, handler, decoder, partial(Delivery, subscription=subscription))

    async def _decode_event(self, message: NatsMessage) -> tuple[Event, Envelope]:
        event, envelope = decode_event(message.raw_message)
        if envelope.subject in STARTS_A_RUN:
            # A repeated identity is the same run and keeps the generation it had first.
            first = await self._inbox.first_generation(envelope.run, envelope.generation)
            envelope = envelope.model_copy(update={"generation": first})
        return event, envelope


async def _decode_raw(message: NatsMessage) -> tuple[RawMessage, Envelope]:
    return decode_raw(message.raw_message)
