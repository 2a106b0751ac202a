"""Publishing: events as CloudEvents with derived ids, dead letters with their reason. Always with a PubAck."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from faststream.nats import NatsBroker
from faststream.nats.message import NatsMessage
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts import cloudevents, subjects
from contracts.cloudevents import Envelope
from contracts.events import Event, subject_of
from services.messaging.connection import PUBLISH_SECONDS
from services.messaging.inbox import Output
from services.messaging.position import DeliveryMetadata

trace_context = TraceContextTextMapPropagator()
REASON_CHARACTERS = 2000


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


class Outbox:
    """What one consumer says on the bus."""

    def __init__(self, broker: NatsBroker, consumer: str) -> None:
        self._broker, self._consumer = broker, consumer
        self._source = f"bentobelt/{consumer}"

    def output(self, emit: Event | Emit, about: Envelope) -> Output:
        """The message for what follows from the message `about`; the same cause gives the same id."""
        emit = emit if isinstance(emit, Emit) else Emit(emit)
        subject = subject_of(emit.event)
        carrier: dict[str, str] = {}
        trace_context.inject(carrier)
        written = cloudevents.headers(
            emit.event,
            id=cloudevents.derived_id(self._consumer, about.identity, subject, emit.key),
            source=self._source,
            run=about.run if emit.run is None else emit.run,
            generation=about.generation if emit.generation is None else emit.generation,
            time=datetime.now(UTC),
            causation=about.id,
            traceparent=carrier.get("traceparent"),
        )
        return Output(subject, written, cloudevents.body(emit.event).decode())

    def root(self, event: Event, id: str) -> Output:
        """The message for an event that no message caused; `id` must be the same for the same occurrence."""
        run = cloudevents.run_of(self._source, id, event.model)
        written = cloudevents.headers(event, id=id, source=self._source, run=run, generation=0, time=datetime.now(UTC))
        return Output(subject_of(event), written, cloudevents.body(event).decode())

    async def publish(self, outputs: Iterable[Output]) -> None:
        """Publish in order; returns when the stream has all of them."""
        for output in outputs:
            stream = subjects.stream_of(output.subject)
            await self._broker.publish(
                output.body.encode(), output.subject, headers=output.headers, stream=stream, timeout=PUBLISH_SECONDS
            )

    async def dead_letter(self, message: NatsMessage, at: DeliveryMetadata, consumer: str, reason: str) -> None:
        """Keep a message that its durable `consumer` gives up, with body, headers and the reason."""
        raw = message.raw_message
        kept = {name: value for name, value in (raw.headers or {}).items() if not name.lower().startswith("nats-")}
        letter = {
            "Dead-Reason": " ".join(reason.split())[:REASON_CHARACTERS],
            "Dead-Subject": raw.subject,
            "Dead-Consumer": consumer,
            "Dead-Sequence": str(at.sequence),
            "Dead-Delivered": str(at.delivered),
            # The same at every delivery: a kill before the record is written leaves one letter, not two.
            "Nats-Msg-Id": f"dlq:{consumer}:{raw.subject}:{at.sequence}",
        }
        to = f"dlq.{consumer}.{raw.subject}"
        await self._broker.publish(raw.data, to, headers=kept | letter, stream="DLQ", timeout=PUBLISH_SECONDS)
