from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import cloudevents
from contracts.cloudevents import Unreadable
from contracts.events import DataPushed, ModelSuperseded, Predictions, ReviewDecided, subject_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SOMETHING = ReviewDecided(model="digits", version="7-0123abcd", decision="approve", by="ada", reason="looked at it")


def test_what_is_missing_is_filled_from_the_message() -> None:
    event, about = cloudevents.read("data.pushed", None, b'{"model": "digits"}', 42, NOW)
    assert event == DataPushed(model="digits")
    assert (about.id, about.source, about.time, about.generation) == ("EVENTS:42", "nats", NOW, 42)
    assert about.run == cloudevents.run_of("nats", "EVENTS:42", "digits")


def test_headers_and_body_read_back() -> None:
    written = cloudevents.headers(SOMETHING, id="i", source="s", run="r", generation=9, time=NOW, causation="c")
    event, about = cloudevents.read("review.decided", written, cloudevents.body(SOMETHING), 50, NOW)
    assert event == SOMETHING
    assert (about.id, about.source, about.run, about.generation, about.causation) == ("i", "s", "r", 9, "c")
    assert about.sequence == 50


@pytest.mark.parametrize("subject", ["data.pushed", "drift.detected"])
def test_nobody_slips_a_start_into_another_run(subject: str) -> None:
    body = b'{"model": "digits"}'
    if subject == "drift.detected":
        body = (
            b'{"model":"digits","version":"1-00000000","kind":"data","action":"retrain","evidence":{},'
            b'"window":{"start":0,"end":1,"rows":1,"labels":1,"index":0}}'
        )
    forged = {"CE-Correlationid": "someone-elses", "ce-generation": "1000000", "ce-id": "x", "ce-source": "ci"}
    _, about = cloudevents.read(subject, forged, body, 7, NOW)
    assert about.run == cloudevents.run_of("ci", "x", "digits")
    assert about.generation == 7


def test_order_of_a_decision_comes_from_its_header() -> None:
    body = cloudevents.body(ModelSuperseded(model="digits", version="1-00000000", by="2-00000000"))
    _, about = cloudevents.read("model.superseded", {"ce-generation": "12", "ce-correlationid": "r"}, body, 99, NOW)
    assert (about.run, about.generation, about.sequence) == ("r", 12, 99)
    _, nonsense = cloudevents.read("model.superseded", {"ce-generation": "-5"}, body, 99, NOW)
    assert nonsense.generation == 99


def test_a_repeated_identity_derives_the_same_ids() -> None:
    first = cloudevents.derived_id("trainer", "s\ni\ndigits", "model.trained")
    assert first == cloudevents.derived_id("trainer", "s\ni\ndigits", "model.trained")
    others = {
        cloudevents.derived_id("evaluator", "s\ni\ndigits", "model.trained"),
        cloudevents.derived_id("trainer", "s\nj\ndigits", "model.trained"),
        cloudevents.derived_id("trainer", "s\ni\ndigits", "data.rejected"),
        cloudevents.derived_id("trainer", "s\ni\ndigits", "model.trained", "2"),
    }
    assert first not in others
    assert len(others) == 4


def test_version_carries_generation_and_run() -> None:
    assert cloudevents.version_of(12, "abc") == "12-ba7816bf"


def test_traffic_is_published_under_the_models_name() -> None:
    batch = Predictions(
        model="digits", version="1-00000000", time=0.0, id=("a",), columns={}, prediction=(1,), latency_ms=(1.0,)
    )
    assert subject_of(batch) == "predictions.digits"
    read, _ = cloudevents.read("predictions.digits", None, cloudevents.body(batch), 1, NOW)
    assert read == batch


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_unreadable(body: bytes) -> None:
    try:
        event, about = cloudevents.read("data.pushed", {}, body, 1, NOW)
    except Unreadable:
        return
    assert event.model == about.model


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_header_values_are_survived(generation: str, time: str) -> None:
    headers = {"ce-generation": generation, "ce-time": time}
    body = cloudevents.body(SOMETHING)
    _, about = cloudevents.read("review.decided", headers, body, 3, NOW)
    assert about.generation >= 0
    assert about.time.tzinfo


def test_unknown_keys_are_ignored_and_unknown_subjects_named() -> None:
    event, _ = cloudevents.read("data.pushed", {}, b'{"model": "digits", "colour": "red"}', 1, NOW)
    assert event == DataPushed(model="digits")
    with pytest.raises(Unreadable, match=r"data\.pulled"):
        cloudevents.read("data.pulled", {}, b"{}", 1, NOW)
