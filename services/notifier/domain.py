"""Alerts for events, each with the command that helps: pure functions."""

from contracts.cloudevents import Envelope
from contracts.events import EVENTS, AlertRaised, DataRejected, DriftDetected, Event, ModelRejected, StageFailed
from contracts.subjects import STAGES, stream_of
from contracts.values import Frozen
from contracts.verdicts import Verdict

BODY = 4000
"""Longest body in characters: chat services cut or refuse longer ones."""
UNKNOWN = "unknown"
"""Model name in alerts about messages that name no model."""
HARMLESS = frozenset({"CannotRollBack"})
"""Errors of a deployment that change nothing: the live version stays."""
DRIFT_TITLES = {
    "performance": "performs worse than its target",
    "data": "gets data that differs from its training data",
    "estimated": "probably performs worse than its target",
    "quality": "gets invalid input, or its server fails",
}
"""Title of a drift alert after the model and the version, by kind of drift."""


class DeadLetter(Frozen):
    """A message that a service gave up."""

    number: int
    """Sequence of the copy in the stream DLQ."""
    subject: str
    """Subject of the original message; `sequence` is its sequence in that subject's stream."""
    sequence: int | None
    consumer: str
    reason: str
    model: str
    readable: bool
    """True if the message is a valid event. An invalid one never reached a handler."""

    @property
    def service(self) -> str:
        """The service that gave it up."""
        return self.consumer.split("-", 1)[0]


def alert(event: Event, about: Envelope) -> AlertRaised | None:
    """Return the alert for an event; None if nobody needs one."""
    match event:
        case ModelRejected():
            return _rejected(event, about)
        case DataRejected():
            return _data_rejected(event, about)
        case DriftDetected():
            return _drift(event, about)
        case StageFailed():
            return _failed(event, about)
    return None


def dead_letter_alert(letter: DeadLetter, id: str) -> AlertRaised | None:
    """Return the alert for a message that was given up; None if another alert reports it."""
    if letter.service == "notifier":
        return None  # an alert about a failed alert could go round for ever
    if letter.readable and letter.service in STAGES.values():
        return None  # the service has published a <stage>.failed event too
    return AlertRaised(
        model=letter.model,
        severity="warning",
        title=f"{letter.consumer} gave up a message on {letter.subject}",
        body=_shorten(f"{letter.reason}\n\nThe message is kept in the stream DLQ, sequence {letter.number}."),
        about=id,
        command=_dead_letter_command(letter),
    )


def _dead_letter_command(letter: DeadLetter) -> str:
    """Return the command that shows what is wrong with the message, or that has it handled again."""
    kind = letter.subject if letter.subject in EVENTS else letter.subject.split(".", 1)[0]
    if not letter.readable and kind in EVENTS:
        return f"belt schema {kind}"
    if letter.readable and letter.sequence is not None and stream_of(letter.subject) == "EVENTS":
        return f"belt replay EVENTS:{letter.sequence}"
    return f"belt logs --service {letter.service}"


def _rejected(event: ModelRejected, about: Envelope) -> AlertRaised:
    by_person = event.by != "gate"
    decision = f"{event.by} rejected it: {event.reason}" if by_person else _conditions(event.verdict)
    approve = f"belt review approve {event.model} {event.version} --reason '…'"
    return AlertRaised(
        model=event.model,
        severity="info" if by_person else "warning",
        title=f"{event.model} {event.version} was rejected" + ("" if by_person else " and waits for your review"),
        body=_shorten(f"{decision}\n\nThe live version stays. Run {about.run}."),
        about=about.id,
        command=f"belt run {about.run}" if by_person else approve,
    )


def _conditions(verdict: Verdict) -> str:
    compared = f" in comparison with {verdict.champion}" if verdict.champion else ""
    lines = [f"The gate's verdict is {verdict.outcome}{compared}."]
    for condition in verdict.conditions:
        interval = (
            "" if condition.low is None or condition.high is None else f" [{condition.low:.3f}, {condition.high:.3f}]"
        )
        estimate = "" if condition.estimate is None else f": {condition.estimate:.3f}{interval}"
        group = "" if condition.group == "all" else f" ({condition.group} rows)"
        lines.append(f"{condition.outcome:>7}  {condition.condition}{group}{estimate} {condition.why}".rstrip())
    return "\n".join(lines)


def _data_rejected(event: DataRejected, about: Envelope) -> AlertRaised:
    return AlertRaised(
        model=event.model,
        severity="warning",
        title=f"The data for {event.model} was rejected",
        body=_shorten(f"{event.dataset}\n" + "\n".join(f"- {violation}" for violation in event.violations)),
        about=about.id,
        command=f"belt run {about.run}",
    )


def _drift(event: DriftDetected, about: Envelope) -> AlertRaised:
    retrains = event.action == "retrain"
    evidence = ", ".join(f"{name} {value:.4g}" for name, value in event.evidence.items())
    lines = [f"{evidence} ({event.window.rows} predictions, {event.window.labels} labels)"]
    if event.columns:
        lines.append(f"Columns that changed most: {', '.join(event.columns[:10])}")
    lines.append(f"Run {about.run} retrains it." if retrains else "No retraining was started.")
    return AlertRaised(
        model=event.model,
        severity="info" if retrains else "warning",
        title=f"{event.model} {event.version} {DRIFT_TITLES[event.kind]}",
        body=_shorten("\n".join(lines)),
        about=about.id,
        command=f"belt run {about.run}" if retrains else f"belt trace {event.model}:{event.version}",
    )


def _failed(event: StageFailed, about: Envelope) -> AlertRaised:
    urgent = event.stage == "deployment" and event.error not in HARMLESS
    version = f" {event.version}" if event.version else ""  # a request for a rollback may name none
    return AlertRaised(
        model=event.model,
        severity="critical" if urgent else "warning",
        title=f"{event.stage.capitalize()} of {event.model}{version} failed: {event.error}",
        body=_shorten(f"{event.message}\n\nAttempts: {event.attempts}. Run {about.run}."),
        about=about.id,
        command=f"belt logs {about.run}",
    )


def _shorten(text: str) -> str:
    return text if len(text) <= BODY else f"{text[: BODY // 2]}\n…\n{text[-BODY // 2 :]}"
