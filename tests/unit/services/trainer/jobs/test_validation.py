"""Every violation names the column, what was expected and what was found, with a value and its row."""

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.features import RECENT, Feature
from contracts.model_spec import ModelSpec
from services.trainer.jobs.data_schema import Rejected, Schema
from services.trainer.jobs.validation import Checked, check, features_of

ROWS = 40
SPEC = ModelSpec(name="m", target="label")
REGRESSION = ModelSpec(name="m", target="label", task="regression")


def table(**columns: Any) -> pd.DataFrame:
    usual = {
        "size": np.linspace(0.5, 9.5, ROWS),
        "count": np.arange(ROWS),
        "wet": [row % 2 == 0 for row in range(ROWS)],
        "colour": ["red", "blue"] * (ROWS // 2),
        "label": [0, 1, 1, 0] * (ROWS // 4),
    }
    return pd.DataFrame(usual | columns)


def learned(frame: pd.DataFrame | None = None, spec: ModelSpec = SPEC) -> Schema:
    return checked(table() if frame is None else frame, spec).schema


def checked(frame: pd.DataFrame, spec: ModelSpec = SPEC, schema: Schema | None = None) -> Checked:
    return check(frame, spec, schema, min_rows=30)


def violations(frame: pd.DataFrame, schema: Schema | None = None, spec: ModelSpec = SPEC) -> tuple[str, ...]:
    with pytest.raises(Rejected) as refused:
        checked(frame, spec, schema)
    return refused.value.violations


def with_value(name: str, row: int, value: Any) -> pd.DataFrame:
    frame = table().astype({name: object})
    frame.loc[row, name] = value
    return frame


def test_the_schema_is_learned_in_the_order_of_the_columns() -> None:
    schema = learned()
    assert [(c.name, c.type) for c in schema.columns] == [
        ("size", "number"), ("count", "integer"), ("wet", "boolean"), ("colour", "string"),
    ]  # fmt: skip
    assert schema.target == Feature(name="label", type="integer")


def test_dtypes_that_serving_builds_too() -> None:
    frame = table(wet=[True, None] * 20, count=pd.array([1, None] * 20, dtype="Int64"), size=[Decimal("1.5")] * ROWS)
    found = checked(frame)
    assert [str(dtype) for dtype in found.frame.dtypes] == ["float64", "float64", "float64", "str", "int64"]
    assert [f.nullable for f in features_of(found)] == [False, True, True, False]


def test_categories_of_parquet_are_text() -> None:
    assert learned(table(colour=pd.Categorical(["a", "b"] * 20))).columns[3].type == "string"


def test_columns_in_another_order_and_a_new_one() -> None:
    schema = learned()
    found = checked(table(extra=1)[["extra", "label", "colour", "wet", "count", "size"]], schema=schema)
    assert list(found.frame.columns) == ["size", "count", "wet", "colour", "label"]
    assert found.warnings == ("column 'extra' is new and left out until the project changes",)


def test_target_missing() -> None:
    (said,) = violations(table().drop(columns="label"))
    assert said == "column 'label': the target is missing; the columns are size, count, wet, colour"


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = violations(table()[["size", "wet"]].head(3), learned())
    assert said == (
        "column 'label': the target is missing; the columns are size, wet",
        "column 'count': expected whole numbers, but there is no such column",
        "column 'colour': expected text, but there is no such column",
        "too few rows: 3, at least 30 are needed",
    )


def test_text_where_numbers_were() -> None:
    frame = table(size=[*map(str, range(ROWS - 1)), "n/a?"])
    assert violations(frame, learned()) == ("column 'size': expected numbers, found text, e.g. 'n/a?' in row 40",)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (table(count=[1.0, 2.5] * 20), "column 'count': expected whole numbers, found numbers, e.g. 2.5 in row 2"),
        (table(wet=[0, 1] * 20), "column 'wet': expected true or false, found whole numbers, e.g. 0 in row 1"),
        (table(colour=[7, 8] * 20), "column 'colour': expected text, found whole numbers, e.g. 7 in row 1"),
        (table(label=["a", "b"] * 20), "column 'label': expected whole numbers, found text, e.g. 'a' in row 1"),
        (table(size=np.nan), "column 'size': expected numbers, found no value in any of 40 rows"),
    ],
)
def test_changed_types(frame: pd.DataFrame, said: str) -> None:
    assert violations(frame, learned()) == (said,)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (table(size=None), "column 'size': found no value in any of 40 rows"),
        (with_value("size", 6, np.inf), "column 'size': found an infinite value in row 7"),
        (table(label=None), "column 'label': the target has no values at all"),
        (table(label=[1, None] * 20), "column 'label': 50% of the rows have no target, first in row 2"),
        (table(label=3), "column 'label': all rows have the same label, 3 in row 1; a classifier needs at least two"),
    ],
)
def test_unfit_from_the_start(frame: pd.DataFrame, said: str) -> None:
    assert violations(frame) == (said,)


def test_dates_and_lists_are_no_features() -> None:
    frame = table(size=pd.date_range("2024", periods=ROWS), count=[[1]] * ROWS)
    first, second = violations(frame)
    assert first.startswith("column 'size': found dates, e.g. Timestamp('2024-01-01")
    assert second.startswith("column 'count': found nested or mixed values, e.g. [1] in row 1")


def test_a_burst_of_missing_values() -> None:
    said = violations(table(size=[1.0, None] * 20), learned())
    assert said == ("column 'size': 50% of the values are missing, first in row 2; expected about 0%",)


def test_the_mark_of_recent_rows_and_the_order_are_no_features() -> None:
    spec = SPEC.model_copy(update={"split": SPEC.split.model_copy(update={"by": "when"})})
    found = checked(table(**{"when": range(ROWS), RECENT: [None] * 20 + [True] * 20}), spec)
    assert [f.name for f in features_of(found)] == ["size", "count", "wet", "colour"]
    assert list(found.frame.columns)[-2:] == ["when", RECENT]
    assert found.frame[RECENT].sum() == 20


def test_unseen_categories_and_duplicates_only_warn() -> None:
    frame = pd.concat([table(colour=["red", "teal"] * 20), table().head(1)], ignore_index=True)
    frame = pd.concat([frame, table().head(1)], ignore_index=True)
    warnings = checked(frame, schema=learned()).warnings
    assert warnings == (
        "column 'colour': 'teal' in row 2 was not there at the first training",
        "2 rows repeat another one, first row 41",
    )


def test_text_that_is_mostly_numbers_is_pointed_out() -> None:
    frame = table(size=[*map(str, range(ROWS - 1)), "n/a?"])
    assert checked(frame).warnings == ("column 'size': taken as text because of 1 of 40 values, e.g. 'n/a?' in row 40",)


def test_rows_without_target_are_left_out() -> None:
    found = checked(table(label=[0.0, 1.0, 1.0, np.nan] * 10))
    assert (len(found.frame), found.schema.target.type) == (30, "integer")
    assert found.warnings == ("column 'label': 10 rows without a target are left out",)


def test_a_regression_needs_numbers() -> None:
    (said,) = violations(table(label=["low", "high"] * 20), spec=REGRESSION)
    assert said == "column 'label': a regression predicts numbers, found text, e.g. 'low' in row 1"
    assert learned(spec=REGRESSION).target.type == "number"


def test_a_regression_that_calls_itself_classification() -> None:
    frame = pd.DataFrame({"x": range(100), "label": np.linspace(0.1, 0.9, 100)})
    (said,) = violations(frame)
    assert said.endswith("different fractional numbers, e.g. 0.1 in row 1; is this `task: regression`?")


def test_the_schema_of_a_trained_version() -> None:
    schema = Schema.of([Feature(name="size", type="number", nullable=True)], Feature(name="label", type="integer"))
    found = checked(table(size=[1.0, None] * 20), schema=schema)
    assert list(found.frame.columns) == ["size", "label"]
