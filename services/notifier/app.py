"""Wiring of the notifier: read the event, make the alert, send it to the channels, publish it."""

import asyncio
import sys
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from contracts import cloudevents
from contracts.cloudevents import Envelope, Unreadable
from contracts.events import (
    AlertRaised,
    BuildFailed,
    DataRejected,
    DeploymentFailed,
    DriftDetected,
    EvaluationFailed,
    Event,
    ModelName,
    ModelRejected,
    TrainingFailed,
)
from services.messaging import RETRY_DELAYS, from_environment
from services.messaging.worker import RawMessage, Worker, log
from services.notifier.channels import Apprise, BadChannel, ChannelFailed
from services.notifier.domain import UNKNOWN, DeadLetter, alert, dead_letter_alert
from services.notifier.settings import Settings

ALERTING_EVENTS: tuple[type[Event], ...] = (
    ModelRejected, DataRejected, DriftDetected, TrainingFailed, EvaluationFailed, BuildFailed, DeploymentFailed,
)  # fmt: skip
MODEL_NAME: TypeAdapter[str] = TypeAdapter(ModelName)


def create_app(worker: Worker, channels: Apprise, delays: Sequence[float] = RETRY_DELAYS) -> None:
    """Subscribe the notifier's handlers; `delays` are the seconds between attempts to reach a channel."""

    async def on_event(event: Event, about: Envelope) -> list[Event]:
        return await publish(alert(event, about))

    for kind in ALERTING_EVENTS:
        worker.on(kind)(on_event)

    @worker.on_raw("dlq.>")
    async def on_dead_letter(raw: RawMessage, about: Envelope) -> list[Event]:
        return await publish(dead_letter_alert(read_dead_letter(raw), about.id))

    async def publish(raised: AlertRaised | None) -> list[Event]:
        if raised is None:
            return []
        log.info("alert", severity=raised.severity, title=raised.title, command=raised.command)
        await send_with_retry(channels, raised, delays)
        return [raised]


async def send_with_retry(channels: Apprise, raised: AlertRaised, delays: Sequence[float]) -> None:
    """Send until every channel has the alert, or give up: it is on the bus and in the log in any case."""
    delivered: set[int] = set()
    for delay in (*delays, None):
        try:
            return await channels.send(raised, delivered)
        except ChannelFailed as error:
            if delay is None:
                log.error("alert not sent", error=str(error))
                return
            log.warning("sending the alert again", error=str(error), seconds=delay)
            await asyncio.sleep(delay)


def read_dead_letter(raw: RawMessage) -> DeadLetter:
    """Read a dead letter from its headers; one that another program has published may lack them."""
    sequence = raw.headers.get("dead-sequence", "")
    subject = raw.headers.get("dead-subject") or raw.subject.removeprefix("dlq.")
    return DeadLetter(
        number=raw.sequence,
        subject=subject,
        sequence=int(sequence) if sequence.isdecimal() else None,
        consumer=raw.headers.get("dead-consumer") or "an unknown consumer",
        reason=raw.headers.get("dead-reason") or "no reason is given",
        model=_model_name(raw.headers.get("ce-subject", "")),
        readable=_is_event(raw, subject),
    )


def _model_name(text: str) -> str:
    try:
        return MODEL_NAME.validate_python(text)
    except ValidationError:
        return UNKNOWN


def _is_event(raw: RawMessage, subject: str) -> bool:
    """Return whether the message can be read as an event, as the worker that gave it up has tried."""
    try:
        cloudevents.read(subject, raw.headers, raw.body, raw.sequence, raw.time)
    except Unreadable:
        return False
    return True


def main() -> None:
    settings = from_environment(Settings)
    worker = Worker("notifier", settings)
    try:
        channels = Apprise(settings.urls, settings.send_seconds)
    except BadChannel as error:
        sys.exit(str(error))
    create_app(worker, channels)
    worker.run()


if __name__ == "__main__":
    main()
