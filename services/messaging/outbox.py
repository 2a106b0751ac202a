"""Publish events as CloudEvents with derived ids, and dead letters with their reason. The PubAck is always awaited."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts import cloudevents, subjects
from contracts.cloudevents import Envelope
from contracts.events import Event, subject_of
from services.messaging.connection import PUBLISH_SECONDS
from services.messaging.decoding import DeliveryMetadata
from services.messaging.inbox import Output

trace_context = TraceContextTextMapPropagator()
REASON_CHARACTERS = 2000


@dataclass(frozen=True)
class Emit:
    """An event to publish, with settings that differ from those of a plain event."""

    event: Event
    run: str | None = None
    """Default: the run of the message that is handled."""
    generation: int | None = None
    """Default: the generation of the message that is handled."""
    key: str = ""
    """Distinguishes several events with one subject and one cause."""


class Outbox:
    """The messages that one consumer publishes."""

    def __init__(self, broker: NatsBroker, consumer: str) -> None:
        self._broker, self._consumer = broker, consumer
        self._source = f"bentobelt/{consumer}"

    def output(self, emit: Event | Emit, cause: Envelope) -> Output:
        """Return the message for an event that follows from `cause`; the same cause gives the same id."""
        emit = emit if isinstance(emit, Emit) else Emit(emit)
        subject = subject_of(emit.event)
        carrier: dict[str, str] = {}
        trace_context.inject(carrier)
        headers = cloudevents.headers(
            emit.event,
            id=cloudevents.derived_id(self._consumer, cause.identity, subject, emit.key),
            source=self._source,
            run=cause.run if emit.run is None else emit.run,
            generation=cause.generation if emit.generation is None else emit.generation,
            time=datetime.now(UTC),
            causation=cause.id,
            traceparent=carrier.get("traceparent"),
        )
        return Output(subject, headers, cloudevents.body(emit.event).decode())

    def root(self, event: Event, id: str) -> Output:
        """Return the message for an event that no message caused; `id` must be the same for the same occurrence."""
        run = cloudevents.run_of(self._source, id, event.model)
        headers = cloudevents.headers(event, id=id, source=self._source, run=run, generation=0, time=datetime.now(UTC))
        return Output(subject_of(event), headers, cloudevents.body(event).decode())

    async def publish(self, outputs: Iterable[Output]) -> None:
        """Publish in order; return when the stream has stored all of them."""
        for output in outputs:
            stream = subjects.stream_of(output.subject)
            await self._broker.publish(
                output.body.encode(), output.subject, headers=output.headers, stream=stream, timeout=PUBLISH_SECONDS
            )

    async def dead_letter(self, message: Msg, metadata: DeliveryMetadata, consumer: str, reason: str) -> None:
        """Publish a message that `consumer` will not try again as a dead letter: body, headers and the reason."""
        original = message.headers or {}
        headers = {name: value for name, value in original.items() if not name.lower().startswith("nats-")} | {
            "Dead-Reason": " ".join(reason.split())[:REASON_CHARACTERS],
            "Dead-Subject": message.subject,
            "Dead-Consumer": consumer,
            "Dead-Sequence": str(metadata.sequence),
            "Dead-Delivered": str(metadata.delivered),
            # The same at every delivery: after a kill before the record is written there is one dead letter, not two.
            "Nats-Msg-Id": f"dlq:{consumer}:{message.subject}:{metadata.sequence}",
        }
        subject = f"dlq.{consumer}.{message.subject}"
        await self._broker.publish(message.data, subject, headers=headers, stream="DLQ", timeout=PUBLISH_SECONDS)
