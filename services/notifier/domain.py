"""What a person is told about an event, and the command that helps. Pure."""

from contracts.cloudevents import Envelope
from contracts.events import EVENTS, AlertRaised, DataRejected, DriftDetected, Event, ModelRejected, StageFailed
from contracts.subjects import STAGES, stream_of
from contracts.values import Frozen
from contracts.verdicts import Verdict

BODY = 4000
"""Characters of a message: chat services cut or refuse longer ones."""
UNKNOWN = "unknown"
"""Name in alerts about messages that name no model."""

ASKED_IN_VAIN = frozenset({"CannotRollBack"})
"""Failures of a deployment that touch nothing: whoever asked for it is told, and what is live goes on answering."""


class DeadLetter(Frozen):
    """A message that was given up."""

    number: int
    """Where it is kept: its sequence in the stream DLQ."""
    subject: str
    """What it was published on; `sequence` is its place in that subject's stream."""
    sequence: int | None
    consumer: str
    reason: str
    model: str
    readable: bool
    """Whether it is an event; otherwise no worker ever got to handle it."""

    @property
    def service(self) -> str:
        """The room that gave it up."""
        return self.consumer.split("-", 1)[0]


def alert(event: Event, about: Envelope) -> AlertRaised | None:
    """The alert for an event, or None when nobody needs to know."""
    match event:
        case ModelRejected():
            return _rejected(event, about)
        case DataRejected():
            return _bad_data(event, about)
        case DriftDetected():
            return _drift(event, about)
        case StageFailed():
            return _failed(event, about)
    return None


def dead_letter(letter: DeadLetter, id: str) -> AlertRaised | None:
    """The alert for a message that was given up, or None when another one tells of it."""
    if letter.service == "notifier":
        return None  # its own troubles would go round for ever
    if letter.readable and letter.service in STAGES.values():
        return None  # the stage that failed was published as well
    return AlertRaised(
        model=letter.model,
        severity="warning",
        title=f"A {letter.subject} was given up by {letter.consumer}",
        body=_cut(f"{letter.reason}\n\nIt is kept as message {letter.number} of the stream DLQ."),
        about=id,
        command=_after(letter),
    )


def _after(letter: DeadLetter) -> str:
    """What was wrong with it, or how to have it handled after all."""
    kind = letter.subject if letter.subject in EVENTS else letter.subject.split(".", 1)[0]
    if not letter.readable and kind in EVENTS:
        return f"belt schema {kind}"
    if letter.readable and letter.sequence is not None and stream_of(letter.subject) == "EVENTS":
        return f"belt replay EVENTS:{letter.sequence}"
    return f"belt logs --service {letter.service}"


def _rejected(event: ModelRejected, about: Envelope) -> AlertRaised:
    by_person = event.by != "gate"
    decided = f"{event.by} rejected it: {event.reason}" if by_person else _conditions(event.verdict)
    approve = f"belt review approve {event.model} {event.version} --reason '…'"
    return AlertRaised(
        model=event.model,
        severity="info" if by_person else "warning",
        title=f"{event.model} {event.version} is not going live" + ("" if by_person else ": it waits for your review"),
        body=_cut(f"{decided}\n\nThe live version goes on answering. Run {about.run}."),
        about=about.id,
        command=f"belt run {about.run}" if by_person else approve,
    )


def _conditions(verdict: Verdict) -> str:
    lines = [f"The gate's verdict is {verdict.outcome}" + (f", against {verdict.champion}" if verdict.champion else "")]
    for condition in verdict.conditions:
        interval = (
            "" if condition.low is None or condition.high is None else f" [{condition.low:.3f}, {condition.high:.3f}]"
        )
        estimate = "" if condition.estimate is None else f": {condition.estimate:.3f}{interval}"
        group = "" if condition.group == "all" else f" ({condition.group} rows)"
        lines.append(f"{condition.outcome:>7}  {condition.condition}{group}{estimate} {condition.why}".rstrip())
    return "\n".join(lines)


def _bad_data(event: DataRejected, about: Envelope) -> AlertRaised:
    return AlertRaised(
        model=event.model,
        severity="warning",
        title=f"The data for {event.model} was rejected",
        body=_cut(f"{event.dataset}\n" + "\n".join(f"- {violation}" for violation in event.violations)),
        about=about.id,
        command=f"belt run {about.run}",
    )


def _drift(event: DriftDetected, about: Envelope) -> AlertRaised:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in event.evidence.items())
    moved = f"\nMost moved: {', '.join(event.columns[:10])}" if event.columns else ""
    what = {
        "performance": "answers worse than promised",
        "data": "sees data unlike that of its training",
        "estimated": "probably answers worse than promised",
        "quality": "gets bad input, or its server fails",
    }[event.kind]
    retrains = event.action == "retrain"
    after = f"It is being retrained in run {about.run}." if retrains else "Nothing was started: this one is for you."
    window = f"{event.window.rows} predictions, {event.window.labels} labels"
    return AlertRaised(
        model=event.model,
        severity="info" if retrains else "warning",
        title=f"{event.model} {event.version} {what}",
        body=_cut(f"{numbers} ({window}){moved}\n{after}"),
        about=about.id,
        command=f"belt run {about.run}" if retrains else f"belt trace {event.model}:{event.version}",
    )


def _failed(event: StageFailed, about: Envelope) -> AlertRaised:
    urgent = event.stage == "deployment" and event.error not in ASKED_IN_VAIN
    version = f" {event.version}" if event.version else ""  # a rollback need not name one
    return AlertRaised(
        model=event.model,
        severity="critical" if urgent else "warning",
        title=f"{event.stage.capitalize()} of {event.model}{version} failed: {event.error}",
        body=_cut(
            f"{event.message}\n\nAfter {event.attempts} attempt{'s' if event.attempts != 1 else ''}. Run {about.run}."
        ),
        about=about.id,
        command=f"belt logs {about.run}",
    )


def _cut(text: str) -> str:
    return text if len(text) <= BODY else f"{text[: BODY // 2]}\n…\n{text[-BODY // 2 :]}"
