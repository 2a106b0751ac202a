"""JSON Schemas of every event and the AsyncAPI document of the bus, generated from the models. Only `main` writes.

`python -m contracts.json_schemas` writes them into contracts/schemas/; a test fails when they are stale.
"""

import json
from pathlib import Path
from typing import Any

from contracts.cloudevents import Envelope
from contracts.events import EVENTS, Event, event_type
from contracts.subjects import LISTENS, stream_of

FOLDER = Path(__file__).parent / "schemas"
ASYNCAPI = "asyncapi"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
HEADERS = {
    "ce-id": "identity of the event at its source; default: EVENTS:<sequence>",
    "ce-source": "origin of the event; default: nats",
    "ce-type": "dev.bentobelt.<subject>.v1",
    "ce-time": "when it happened, RFC 3339",
    "ce-correlationid": Envelope.model_fields["run"].description or "",
    "ce-causationid": "id of the event that caused it",
    "ce-generation": Envelope.model_fields["generation"].description or "",
    "traceparent": "W3C trace context",
    "Nats-Msg-Id": "subject and id: the bus drops a repetition within an hour",
}
PER_MODEL = ("predictions", "feedback")


def of_event(subject: str) -> dict[str, Any]:
    """Return the JSON Schema of the payload on `subject`.

    Raises:
        KeyError: no event is defined for it.
    """
    kind = event_type(subject)
    named = {"$schema": DRAFT, "$id": f"urn:bentobelt:{kind.subject}:v1", "x-subject": address(kind)}
    return named | kind.model_json_schema()


def address(kind: type[Event]) -> str:
    """Return the NATS subject of an event, with `{model}` in the place of the model's name."""
    return f"{kind.subject}.{{model}}" if kind.subject in PER_MODEL else kind.subject


def asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI 3 document: a channel per subject, a receive operation per consumer."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Bentobelt",
            "version": "1",
            "description": "CloudEvents 1.0 in binary mode on NATS JetStream. A bare payload is a complete event.",
        },
        "defaultContentType": "application/json",
        "channels": {subject: _channel(kind) for subject, kind in EVENTS.items()},
        "operations": dict(_operations()),
        "components": {
            "messages": {subject: _message(subject, kind) for subject, kind in EVENTS.items()},
            "schemas": _shared_schemas(),
        },
    }


def documents() -> dict[str, str]:
    """Return the text of every generated file by its name."""
    written = {f"{subject}.json": of_event(subject) for subject in EVENTS} | {f"{ASYNCAPI}.json": asyncapi()}
    return {name: json.dumps(document, indent=2, ensure_ascii=False) + "\n" for name, document in written.items()}


def _channel(kind: type[Event]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address(kind),
        "description": f"Stored in stream {stream_of(kind.subject)}.",
        "messages": {kind.subject: {"$ref": f"#/components/messages/{kind.subject}"}},
    }
    if kind.subject in PER_MODEL:
        channel["parameters"] = {"model": {"description": "name of the model"}}
    return channel


def _message(subject: str, kind: type[Event]) -> dict[str, Any]:
    return {
        "name": kind.__name__,
        "title": subject,
        "summary": " ".join((kind.__doc__ or subject).split()),
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string", "description": text} for name, text in HEADERS.items()},
        },
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }


def _operations() -> list[tuple[str, dict[str, Any]]]:
    received = ((worker, subject) for worker, subjects in LISTENS.items() for subject in subjects)
    return [
        (f"{worker}.{subject}", {"action": "receive", "channel": {"$ref": f"#/channels/{subject}"}})
        for worker, subject in received
        if subject in EVENTS
    ]


def _shared_schemas() -> dict[str, Any]:
    shared: dict[str, Any] = {}
    for kind in EVENTS.values():
        schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        shared |= schema.pop("$defs", {}) | {kind.__name__: schema}
    return dict(sorted(shared.items()))


def main() -> None:
    """Write the documents; delete those of events that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    wanted = documents()
    for file in FOLDER.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
