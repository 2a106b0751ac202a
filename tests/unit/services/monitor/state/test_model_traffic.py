"""Traffic in any order and with any content: everything is counted once, and nothing stops the monitor."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.monitor.detection.rules import Rules
from services.monitor.domain import ModelState
from services.monitor.ingest.consumer import collect_rows
from services.monitor.ingest.payloads import (
    FeedbackLabel,
    MalformedPayload,
    PredictionBatch,
    parse_feedback,
    parse_predictions,
)
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import TrafficMessage
from services.monitor.state.store import pack
from tests.unit.services.monitor.monitored import VERSION, live_model, profile, target

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


def count_all(bodies: list[tuple[str, bytes]]) -> list[TrafficMessage]:
    """Everything that happens to traffic: read, counted, judged, saved, and made rows of a dataset."""
    model = live_model(window=3)
    model.add_version(VERSION, None, None)
    traffic = []
    for sequence, (kind, body) in enumerate(bodies, start=1):
        try:
            traffic.append(
                TrafficMessage(sequence, parse_predictions(body) if kind == "predictions" else parse_feedback(body))
            )
        except MalformedPayload:
            continue
    for version in model.traffic.versions_to_look_up(traffic):
        model.add_version(version, None, None)
    model.apply(traffic, now=1e9)
    model.tick(now=2e9)
    pack(model.dump())
    for message in traffic:
        if not isinstance(message.content, list) and message.content.ids:
            json.dumps(
                collect_rows(
                    RowPositions(np.array([message.sequence]), np.array([0])), {message.sequence: message.content}
                )
            )
    return traffic


@given(st.lists(st.tuples(st.sampled_from(["predictions", "feedback"]), ANYTHING), max_size=3))
def test_any_json_is_counted_or_malformed(payloads: list[tuple[str, Any]]) -> None:
    count_all([(kind, json.dumps(payload).encode()) for kind, payload in payloads])


@given(st.lists(predictions(), min_size=1, max_size=3), FEEDBACK)
def test_nearly_right_messages_are_counted_or_malformed(parts: list[dict[str, Any]], labels: dict[str, Any]) -> None:
    feedback = ("feedback", json.dumps(labels).encode())
    count_all([feedback, *(("predictions", json.dumps(part).encode()) for part in parts), feedback])


@given(st.binary(max_size=40))
def test_any_bytes_are_counted_or_malformed(body: bytes) -> None:
    count_all([("predictions", body), ("feedback", body)])


def test_one_long_text_takes_no_memory_for_the_other_rows() -> None:
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
    model = live_model()
    model.apply([TrafficMessage(1, parse_predictions(body))], now=1.0)
    assert model.traffic.versions[VERSION].windows.rows == rows


def traffic(rows: int) -> list[PredictionBatch | list[FeedbackLabel]]:
    """One message per prediction and per label; every third prediction is wrong, two labels belong to nobody."""
    messages: list[PredictionBatch | list[FeedbackLabel]] = []
    for row in range(rows):
        id = f"digits.{VERSION}.{row}"
        messages.append(PredictionBatch(VERSION, float(row), [id], {f"x{i}": [0.1] for i in range(3)}, [row % 3]))
        messages.append([FeedbackLabel(id, 0 if row % 3 else row % 3, float(row), 0)])
    return [*messages, [FeedbackLabel("digits.9-00000000.x", 1, 0.0, 0)], [FeedbackLabel("nonsense", 1, 0.0, 0)]]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_state_is_the_same_whatever_the_order_and_the_repeats(data: st.DataObject) -> None:
    messages = traffic(12)
    order = data.draw(st.permutations(range(len(messages))))
    repeats = data.draw(st.lists(st.sampled_from(order), max_size=10))
    model = ModelState("digits", Rules())
    model.version_deployed(VERSION, "local", profile(), target(0.5, window=8), now=0.0)
    model.apply([TrafficMessage(n + 1, messages[place]) for n, place in enumerate([*order, *repeats])], now=1.0)
    one = model.traffic.versions[VERSION]
    assert (one.windows.rows, one.performance.label_count, one.performance.errors) == (12, 12, 8)
    assert model.traffic.unmatched.count == 2
    assert one.predictions.coverage() == 1.0


def test_a_label_goes_to_the_version_that_predicted() -> None:
    model = ModelState("digits", Rules())
    for version in (VERSION, "2-0123abcd"):
        model.version_deployed(version, "local", profile(), target(), now=0.0)
    first = PredictionBatch(VERSION, 1.0, ["a"], {}, [1])
    second = PredictionBatch("2-0123abcd", 2.0, ["b"], {}, [1])
    model.apply(
        [TrafficMessage(1, first), TrafficMessage(2, second), TrafficMessage(3, [FeedbackLabel("a", 2, 3.0, 0)])],
        now=3.0,
    )
    assert [model.traffic.versions[v].performance.label_count for v in (VERSION, "2-0123abcd")] == [1, 0]
    assert model.traffic.versions[VERSION].performance.errors == 1


def test_a_label_without_a_value_is_invalid() -> None:
    model = ModelState("digits", Rules())
    model.apply([TrafficMessage(1, [FeedbackLabel("a", None, 1.0, 0)])], now=1.0)
    assert (model.traffic.invalid_labels, model.traffic.unmatched.count) == (1, 0)
