import json
from typing import Any

import pytest

from contracts.features import Feature
from serving.dataframe import FrameBuilder
from serving.errors import Refused
from serving.feedback_request import FeedbackRequests, events
from serving.prediction_request import PredictionRequests
from tests.unit.serving.serving_model import ROW, manifest

ROWS = PredictionRequests(manifest().features, max_rows=5)
LABELS = FeedbackRequests(manifest())
ID = "shop.7-0a1b2c3d.abc1"


def refused(parse: Any, *body: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        parse(*body)
    return caught.value


def rows(*changed: Any) -> bytes:
    return json.dumps({"rows": changed}).encode()


def test_right_rows_pass_with_their_types() -> None:
    assert ROWS.parse(rows(ROW, ROW | {"age": 2, "visits": 3.0, "city (home)": "Ulm"})) == [
        ROW,
        {"age": 2.0, "visits": 3, "member": True, "city (home)": "Ulm"},
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("age", "1.5", 'must be a finite number, not "1.5"'),
        ("age", True, "must be a finite number"),
        ("age", None, "must be a finite number, not null"),
        ("age", [1], "must be a finite number"),
        ("visits", 3.5, "must be an integer, not 3.5"),
        ("visits", "3", "must be an integer"),
        ("visits", True, "must be an integer"),
        ("visits", 2**63, "must be an integer"),
        ("member", 1, "must be true or false"),
        ("city (home)", 4, "must be a string or null"),
        ("extra", 4, "'extra' is unknown"),
    ],
)
def test_a_wrong_value_names_row_and_field(field: str, value: Any, message: str) -> None:
    error = refused(ROWS.parse, rows(ROW, ROW | {field: value}))
    assert error.status == 422
    assert [(detail["row"], detail["field"]) for detail in error.details] == [(1, field)]
    assert message in error.details[0]["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_numbers_must_be_finite(value: str) -> None:
    body = rows(ROW).replace(b"1.5", value.encode())
    assert refused(ROWS.parse, body).details[0]["field"] == "age"


def test_a_missing_feature_is_named() -> None:
    error = refused(ROWS.parse, rows({key: value for key, value in ROW.items() if key != "member"}))
    assert (error.status, error.details[0]["field"]) == (422, "member")
    assert str(error) == "row 0: 'member' is missing"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 10_000, b'{"rows":["\\ud800"]}'])
def test_what_is_not_json_is_400(body: bytes) -> None:
    assert refused(ROWS.parse, body).status == 400


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b'{"rows":[]}', b'{"rows":{}}', b"{}", b'{"rows":[1]}', b'{"rows":[null]}', b'{"row":[]}']
)
def test_another_shape_is_422_and_says_rows(body: bytes) -> None:
    error = refused(ROWS.parse, body)
    assert error.status == 422
    assert "row" in str(error)


def test_too_many_rows() -> None:
    assert refused(ROWS.parse, rows(*[ROW] * 6)).status == 413


def test_frames_have_the_dtypes_of_training() -> None:
    frame = FrameBuilder(manifest().features).build(ROWS.parse(rows(ROW, ROW)))
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "age": "float64", "visits": "int64", "member": "bool", "city (home)": "str",
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
def test_numeric_frames_keep_order_and_missing_values(count: int) -> None:
    features = [Feature(name=f"x{number}", type="number", nullable=True) for number in range(count)]
    frame = FrameBuilder(features).build([{f"x{number}": None for number in reversed(range(count))}])
    assert frame.shape == (1, count)
    assert list(frame.columns) == [f"x{number}" for number in range(count)]
    assert frame.isna().all(axis=None)


def labels(*given: Any) -> bytes:
    return json.dumps({"labels": given}).encode()


def test_labels_of_any_version_pass() -> None:
    taken = LABELS.parse(labels({"id": ID, "label": 3}, {"id": "shop.1-00000000.x", "label": 4.0}), 9.0)
    assert [(label.label, type(label.label), label.time) for label in taken] == [(3, int, 9.0), (4, int, 9.0)]


@pytest.mark.parametrize(
    ("label", "field"),
    [
        ({"id": ID, "label": "3"}, "label"),
        ({"id": ID, "label": True}, "label"),
        ({"id": ID, "label": None}, "label"),
        ({"id": ID}, "label"),
        ({"label": 3}, "id"),
        ({"id": 5, "label": 3}, "id"),
        ({"id": "", "label": 3}, "id"),
        ({"id": "nonsense", "label": 3}, "id"),
        ({"id": ID + "\n", "label": 3}, "id"),
        ({"id": "other.7-0a1b2c3d.abc", "label": 3}, "id"),
        ({"id": ID, "label": 3, "time": 1}, "time"),
    ],
)
def test_a_wrong_label_names_its_index_and_field(label: Any, field: str) -> None:
    error = refused(LABELS.parse, labels({"id": ID, "label": 1}, label), 0.0)
    assert error.status == 422
    assert (error.details[0]["label"], error.details[0]["field"]) == (1, field)


def test_another_models_id_is_said_to_be_one() -> None:
    assert "is of model 'other'" in str(refused(LABELS.parse, labels({"id": "other.7-0a1b2c3d.a", "label": 1}), 0.0))


def test_the_truth_of_a_regression_need_not_be_whole() -> None:
    regression = FeedbackRequests(manifest(task="regression"))
    assert regression.parse(labels({"id": ID, "label": 3.5}), 0.0)[0].label == 3.5


def test_many_labels_are_several_events() -> None:
    taken = LABELS.parse(labels(*[{"id": ID, "label": 3}] * 2500), 0.0)
    assert [len(event.labels) for event in events("shop", taken)] == [1000, 1000, 500]
