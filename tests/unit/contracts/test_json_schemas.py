import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from jsonschema import Draft202012Validator

from contracts import cloudevents, json_schemas
from contracts.events import EVENTS
from contracts.subjects import LISTENS

V1 = Path(__file__).parent / "events_v1"
NOW = datetime(2026, 1, 5, tzinfo=UTC)


def test_the_written_schemas_are_what_the_models_say() -> None:
    written = {file.name: file.read_text() for file in json_schemas.FOLDER.glob("*.json")}
    assert written == json_schemas.documents(), "stale: run `python -m contracts.json_schemas`"


@pytest.mark.parametrize("subject", EVENTS)
def test_every_schema_is_a_schema_and_names_its_fields(subject: str) -> None:
    document = json_schemas.of_event(subject)
    Draft202012Validator.check_schema(document)
    assert document["$id"] == f"urn:bentobelt:{subject}:v1"
    assert "model" in document["required"]


@pytest.mark.parametrize("subject", EVENTS)
def test_an_event_as_it_was_first_published_is_still_read(subject: str) -> None:
    """These files are never edited: they are what is in people's streams."""
    body = (V1 / f"{subject}.json").read_bytes()
    on = f"{subject}.digits" if subject in json_schemas.PER_MODEL else subject
    event, _ = cloudevents.read(on, None, body, 1, NOW)
    Draft202012Validator(json_schemas.of_event(subject)).validate(json.loads(body))
    assert json.loads(cloudevents.body(event)) == json.loads(body)


def test_a_bare_model_and_dataset_satisfy_the_schema_of_a_push() -> None:
    Draft202012Validator(json_schemas.of_event("data.pushed")).validate({"model": "digits", "dataset": "/data/x.csv"})


def test_the_asyncapi_document_is_one() -> None:
    document = json_schemas.asyncapi()
    ApplicationSchema.model_validate(document)
    assert set(document["channels"]) == set(EVENTS)
    assert document["channels"]["predictions"]["address"] == "predictions.{model}"


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = json_schemas.asyncapi()
    for reference in references(document):
        found = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
        assert found


def test_every_consumer_of_an_event_is_an_operation() -> None:
    operations = json_schemas.asyncapi()["operations"]
    wanted = {f"{service}.{s}" for service, subjects in LISTENS.items() for s in subjects if s in EVENTS}
    assert set(operations) == wanted


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []
