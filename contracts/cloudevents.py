"""CloudEvents 1.0 over NATS: attributes as ce-* headers, the body is the plain payload (binary mode).

A bare `{"model": …}` published by any client is complete: missing attributes are taken from the message.
Structured mode (`content-type: application/cloudevents+json`) is read too, never written.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.events import Event, event_type, subject_of

STARTS_A_RUN = frozenset({"data.pushed", "drift.detected"})
_NUMBER = re.compile(r"^\d{1,18}$", re.ASCII)
STRUCTURED = "application/cloudevents+json"


class Unreadable(Exception):
    """A message that cannot be read as an event; its text is the reason."""


class Envelope(BaseModel):
    """The origin of an event, its run and its place in the order of decisions."""

    model_config = ConfigDict(frozen=True)

    id: str
    source: str
    subject: str = Field(description="NATS subject it was published on")
    time: datetime
    model: str
    run: str = Field(description="ce-correlationid: the run it belongs to")
    generation: int = Field(description="ce-generation: the stream sequence that decided")
    sequence: int = Field(description="its own stream sequence")
    causation: str | None = None
    traceparent: str | None = None
    structured: bool = False

    @property
    def identity(self) -> str:
        """Source, id and model, which identify the event: the same at every delivery."""
        return identity_of(self.source, self.id, self.model)


def identity_of(source: str, id: str, model: str) -> str:
    """Return source, id and model in one string."""
    return f"{source}\n{id}\n{model}"


def run_of(source: str, id: str, model: str) -> str:
    """Return the id of the run that an event starts: 16 hex digits, the same for the same identity."""
    return sha256(identity_of(source, id, model).encode()).hexdigest()[:16]


def version_of(generation: int, run: str) -> str:
    """Return the version of a run's model: `<generation>-<first 8 hex digits of sha256(run)>`."""
    return f"{generation}-{sha256(run.encode()).hexdigest()[:8]}"


def derived_id(consumer: str, causing: str, subject: str, key: str = "") -> str:
    """Return the id of the event that `consumer` publishes on `subject` because of the event `causing`.

    A redelivery gives the same id. `key` distinguishes several events with one subject and one cause.
    """
    return str(uuid5(NAMESPACE_URL, "\n".join((consumer, causing, subject, key))))


def read(
    subject: str, headers: Mapping[str, str] | None, body: bytes, sequence: int, time: datetime
) -> tuple[Event, Envelope]:
    """Return the event in a message and its envelope.

    Args:
        subject: NATS subject of the message.
        headers: its headers; their names may be in any case.
        body: its payload.
        sequence: its sequence in the stream.
        time: when the stream stored it.

    Raises:
        Unreadable: the payload is not UTF-8, not JSON, not an object, or not the event of the subject.
    """
    attributes = {name.lower(): value for name, value in (headers or {}).items()}
    structured = attributes.get("content-type", "").startswith(STRUCTURED)
    payload = _json_object(body)
    if structured:
        attributes |= {f"ce-{name}": str(value) for name, value in payload.items() if name != "data"}
        data = payload.get("data")
        if not isinstance(data, dict):
            raise Unreadable("a structured CloudEvent needs its payload as an object under 'data'")
        payload = data
    try:
        event = event_type(subject).model_validate(payload)
    except KeyError:
        raise Unreadable(f"no event is defined for the subject {subject!r}") from None
    except ValidationError as error:
        raise Unreadable(_explain(subject, error)) from None
    return event, _envelope(subject, event.model, attributes, sequence, time, structured)


def _envelope(
    subject: str, model: str, attributes: Mapping[str, str], sequence: int, time: datetime, structured: bool
) -> Envelope:
    id = attributes.get("ce-id") or f"EVENTS:{sequence}"
    source = attributes.get("ce-source") or "nats"
    own_run = run_of(source, id, model)
    # An event that starts a run has a run of its own: no sender can put it into another run or before others.
    starts = subject in STARTS_A_RUN
    generation = attributes.get("ce-generation", "")
    return Envelope(
        id=id,
        source=source,
        subject=subject,
        time=_time(attributes.get("ce-time"), time),
        model=model,
        run=own_run if starts else attributes.get("ce-correlationid") or own_run,
        generation=sequence if starts or not _NUMBER.match(generation) else int(generation),
        sequence=sequence,
        causation=attributes.get("ce-causationid"),
        traceparent=attributes.get("traceparent"),
        structured=structured,
    )


def headers(
    event: Event,
    *,
    id: str,
    source: str,
    run: str,
    generation: int,
    time: datetime,
    causation: str | None = None,
    traceparent: str | None = None,
) -> dict[str, str]:
    """Return the headers of `event`. Nats-Msg-Id names the subject too, for a stream compares it over all subjects."""
    subject = subject_of(event)
    written = {
        "ce-specversion": "1.0",
        "ce-id": id,
        "ce-source": source,
        "ce-type": f"dev.bentobelt.{event.subject}.v1",
        "ce-time": time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "ce-subject": event.model,
        "ce-dataschema": f"urn:bentobelt:{event.subject}:v1",
        "ce-correlationid": run,
        "ce-generation": str(generation),
        "content-type": "application/json",
        "Nats-Msg-Id": f"{subject}:{id}",
    }
    if causation:
        written["ce-causationid"] = causation
    if traceparent:
        written["traceparent"] = traceparent
    return written


def body(event: Event) -> bytes:
    """Return the payload of `event` as JSON."""
    return event.model_dump_json(exclude_none=True).encode()


def _json_object(data: bytes) -> dict[str, object]:
    if not data:
        raise Unreadable("the payload is empty; a JSON object is needed")
    try:
        payload = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unreadable(f"the payload is not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise Unreadable(f"the payload is not JSON: {error}") from None
    except RecursionError:
        raise Unreadable("the payload is nested too deeply") from None
    if not isinstance(payload, dict):
        raise Unreadable(f"the payload is a JSON {type(payload).__name__}; an object is needed")
    return payload


def _explain(subject: str, error: ValidationError) -> str:
    wrong = "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'payload'}: {problem['msg']}" for problem in error.errors()
    )
    return f"not a {subject}: {wrong}"


def _time(given: str | None, otherwise: datetime) -> datetime:
    try:
        parsed = datetime.fromisoformat(given) if given else otherwise
    except ValueError:
        return otherwise
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
