"""The checks of payloads that anyone may publish."""

import json
import sys

import pytest

from services.monitor.ingest.payloads import MalformedPayload, parse_feedback, parse_predictions
from tests.unit.services.monitor.monitored import VERSION


@pytest.mark.parametrize(
    "label",
    [
        "1" * 400,
        "-" + "9" * 400,
        "1e999",
        "NaN",
        "Infinity",
        "[1]",
        "{}",
    ],
)
def test_a_label_is_text_or_a_finite_number(label: str) -> None:
    with pytest.raises(MalformedPayload, match="label"):
        parse_feedback(b'{"labels":[{"id":"a","label":' + label.encode() + b"}]}")


@pytest.mark.parametrize("time", ["1" * 400, "1e999", "NaN", "-1", '"1"', "true", "null", "[]", "1700000000000"])
def test_a_time_is_unix_seconds(time: str) -> None:
    with pytest.raises(MalformedPayload, match="unix seconds"):
        parse_feedback(b'{"labels":[{"id":"a","label":1,"time":' + time.encode() + b"}]}")
    with pytest.raises(MalformedPayload, match="unix seconds"):
        parse_predictions(message(time=time))


@pytest.mark.parametrize("cell", ["[1,2]", "{}", "NaN", "-Infinity", "1e999", "1" * 400])
@pytest.mark.parametrize("other", ["0.5", "1", "null", '"a"', "true"])
def test_a_cell_is_a_scalar_and_finite(cell: str, other: str) -> None:
    with pytest.raises(MalformedPayload, match="finite"):
        parse_predictions(message(values=f"[{other},{cell}]"))
    with pytest.raises(MalformedPayload, match="finite"):
        parse_predictions(message(prediction=f"[{cell},{other}]"))
    assert parse_predictions(message(values=f"[{other},{other}]"))


def test_numbers_that_are_large_together_are_still_finite() -> None:
    assert parse_predictions(message(values="[1.7e308,1.7e308]")).columns == {"x0": [1.7e308, 1.7e308]}


@pytest.mark.parametrize("version", ["1-0123abcd\n", "٣-0123abcd", "1" * 19 + "-0123abcd", "1-0123ABCD", ""])
def test_a_version_is_safe_to_look_up(version: str) -> None:
    with pytest.raises(MalformedPayload, match="version"):
        parse_predictions(message(version=version))


def message(time: str = "1", values: str = "[1,2]", prediction: str = "[1,2]", version: str = VERSION) -> bytes:
    head = json.dumps({"version": version, "id": ["a", "b"]})[:-1]
    return f'{head},"time":{time},"columns":{{"x0":{values}}},"prediction":{prediction}}}'.encode()


def test_the_parser_keeps_no_ids() -> None:
    columns = {"version": VERSION, "time": 1.0, "columns": {}, "id": ["an id"], "prediction": [1]}
    read = parse_predictions(json.dumps(columns).encode())
    label = parse_feedback(b'{"labels": [{"id": "another id", "label": 1}]}')[0]
    # One from where it is, one from the argument.
    assert [sys.getrefcount(read.ids[0]), sys.getrefcount(label.id)] == [2, 2]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b"{}", b'{"version":"x","time":1,"id":[],"columns":{},"prediction":[]}',
        b'{"version":"1-0123abcd","time":"1","id":[],"columns":{},"prediction":[]}',
        b'{"version":"1-0123abcd","time":1,"id":[1],"columns":{},"prediction":[1]}',
        b'{"version":"1-0123abcd","time":1,"id":["a"],"columns":{"x":[]},"prediction":[1]}',
        b'{"version":"1-0123abcd","time":1,"id":["a"],"columns":{"x":1},"prediction":[1]}',
    ],
)  # fmt: skip
def test_malformed_predictions_are_named(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_predictions(body)


@pytest.mark.parametrize(
    "body", [b'{"labels":1}', b'{"labels":[1]}', b'{"labels":[{"label":1}]}', b'{"labels":[{"id":"a","label":[]}]}']
)
def test_malformed_feedback_is_named(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_feedback(body)
