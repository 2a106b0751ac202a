"""Wiring of the notifier: an event that a person should know of becomes an alert, sent and published."""

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
from services.notifier.channels import Apprise, BadChannel, ChannelFailed, Channels
from services.notifier.domain import UNKNOWN, DeadLetter, alert, dead_letter
from services.notifier.settings import Settings

LISTENS: tuple[type[Event], ...] = (
    ModelRejected, DataRejected, DriftDetected, TrainingFailed, EvaluationFailed, BuildFailed, DeploymentFailed,
)  # fmt: skip
NAME: TypeAdapter[str] = TypeAdapter(ModelName)


def create_app(worker: Worker, channels: Channels, delays: Sequence[float] = RETRY_DELAYS) -> None:
    """Subscribe the notifier's handlers; `delays` lie between the attempts to reach a channel."""

    async def tell(event: Event, about: Envelope) -> list[Event]:
        raised = alert(event, about)
        return [await say(raised)] if raised else []

    for kind in LISTENS:
        worker.on(kind)(tell)

    @worker.on_raw("dlq.>")
    async def bury(raw: RawMessage, about: Envelope) -> list[Event]:
        raised = dead_letter(read(raw), about.id)
        return [await say(raised)] if raised else []

    async def say(raised: AlertRaised) -> AlertRaised:
        log.info("alert", severity=raised.severity, title=raised.title, command=raised.command)
        await persist(channels, raised, delays)
        return raised


async def persist(channels: Channels, raised: AlertRaised, delays: Sequence[float]) -> None:
    """Send until every channel has it, or give up: the alert is on the bus and in the log in any case."""
    taken: set[int] = set()
    for delay in (*delays, None):
        try:
            return await channels.send(raised, taken)
        except ChannelFailed as error:
            if delay is None:
                log.error("alert not sent", error=str(error))
                return
            log.warning("will be tried again", error=str(error), seconds=delay)
            await asyncio.sleep(delay)


def read(raw: RawMessage) -> DeadLetter:
    """A dead letter by its headers; one that another program wrote there may lack them."""
    sequence = raw.headers.get("dead-sequence", "")
    subject = raw.headers.get("dead-subject") or raw.subject.removeprefix("dlq.")
    return DeadLetter(
        number=raw.sequence,
        subject=subject,
        sequence=int(sequence) if sequence.isdecimal() else None,
        consumer=raw.headers.get("dead-consumer") or "someone",
        reason=raw.headers.get("dead-reason") or "no reason is given",
        model=_named(raw.headers.get("ce-subject", "")),
        readable=_is_event(raw, subject),
    )


def _named(model: str) -> str:
    try:
        return NAME.validate_python(model)
    except ValidationError:
        return UNKNOWN


def _is_event(raw: RawMessage, subject: str) -> bool:
    """Whether the worker that gave it up could read it: it looked with the same eyes."""
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
