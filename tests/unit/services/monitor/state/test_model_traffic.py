"""What anyone may publish to `predictions.*` and `feedback.*`, and that nothing of it can stop the monitor."""

import json
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.monitor.ingest.consumer import collect
from services.monitor.ingest.payloads import MalformedPayload, parse_feedback, parse_predictions
from services.monitor.state.codec import pack
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import TrafficMessage
from tests.unit.services.monitor.monitored import VERSION, watched

HUGE = 10**400
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([HUGE, -HUGE, 2**63, 2**64, -(2**63) - 1, 10**308])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.sampled_from(["nan", "inf", "1e999", "1" * 400, "3.0", "1_0"])
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
IDS = ("a", "b", "c")


@st.composite
def predictions(draw: st.DrawFn) -> dict[str, Any]:
    """Nearly right messages: each part may be anything, mostly it is of the right shape."""

    def values(cell: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(cell, min_size=3, max_size=3)

    lists = values(SCALARS) | values(st.floats(-3, 3)) | values(ANYTHING)
    return {
        "version": draw(st.sampled_from([VERSION, VERSION, VERSION + "\n", "٣-0123abcd", "9" * 5000 + "-0123abcd"])),
        "time": draw(st.floats(0, 1e9) | SCALARS),
        "id": draw(st.just(list(IDS)) | values(st.text(max_size=3)) | ANYTHING),
        "columns": draw(st.dictionaries(st.sampled_from(["x0", "x1", "y"]), lists, max_size=3) | ANYTHING),
        "prediction": draw(lists | ANYTHING),
    }


LABELS = st.fixed_dictionaries(
    {"id": st.sampled_from(IDS) | st.text(max_size=3), "label": SCALARS | ANYTHING},
    optional={"time": st.floats(0, 1e9) | SCALARS | ANYTHING},
)
FEEDBACK = st.fixed_dictionaries({"labels": st.lists(LABELS | ANYTHING, max_size=4) | ANYTHING})


def take(bodies: list[tuple[str, bytes]]) -> list[TrafficMessage]:
    """Everything that happens to traffic: read, counted, judged, saved, and made rows of a dataset."""
    watch = watched(window=3)
    watch.introduce(VERSION, None, None)
    traffic = []
    for sequence, (kind, body) in enumerate(bodies, start=1):
        try:
            traffic.append(
                TrafficMessage(sequence, parse_predictions(body) if kind == "predictions" else parse_feedback(body))
            )
        except MalformedPayload:
            continue
    for version in watch.traffic.unknown(traffic):
        watch.introduce(version, None, None)
    watch.apply(traffic, now=1e9)
    watch.tick(now=2e9)
    pack(watch.dump())
    for message in traffic:
        if not isinstance(message.content, list) and message.content.ids:
            json.dumps(
                collect(RowPositions(np.array([message.sequence]), np.array([0])), {message.sequence: message.content})
            )
    return traffic


@given(st.lists(st.tuples(st.sampled_from(["predictions", "feedback"]), ANYTHING), max_size=3))
def test_any_json_is_counted_or_malformed(payloads: list[tuple[str, Any]]) -> None:
    take([(kind, json.dumps(payload).encode()) for kind, payload in payloads])


@given(st.lists(predictions(), min_size=1, max_size=3), FEEDBACK)
def test_nearly_right_messages_are_counted_or_malformed(parts: list[dict[str, Any]], labels: dict[str, Any]) -> None:
    feedback = ("feedback", json.dumps(labels).encode())
    take([feedback, *(("predictions", json.dumps(part).encode()) for part in parts), feedback])


@given(st.binary(max_size=40))
def test_any_bytes_are_counted_or_malformed(body: bytes) -> None:
    take([("predictions", body), ("feedback", body)])


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


def test_one_long_text_takes_no_room_for_the_other_rows() -> None:
    rows = 1000
    body = json.dumps(
        {
            "version": VERSION,
            "time": 1,
            "id": [str(row) for row in range(rows)],
            "columns": {},
            "prediction": [*range(rows - 1), "x" * 900_000],  # as an array of texts these would be 3.6 GB
        }
    ).encode()
    watch = watched()
    watch.apply([TrafficMessage(1, parse_predictions(body))], now=1.0)
    assert watch.traffic.versions[VERSION].windows.rows == rows


def message(time: str = "1", values: str = "[1,2]", prediction: str = "[1,2]", version: str = VERSION) -> bytes:
    head = json.dumps({"version": version, "id": ["a", "b"]})[:-1]
    return f'{head},"time":{time},"columns":{{"x0":{values}}},"prediction":{prediction}}}'.encode()


def test_the_parser_keeps_no_ids() -> None:
    columns = {"version": VERSION, "time": 1.0, "columns": {}, "id": ["an id"], "prediction": [1]}
    read = parse_predictions(json.dumps(columns).encode())
    label = parse_feedback(b'{"labels": [{"id": "another id", "label": 1}]}')[0]
    # One from where it is, one from the argument.
    assert [sys.getrefcount(read.ids[0]), sys.getrefcount(label.id)] == [2, 2]
