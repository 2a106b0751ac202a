"""Columns of the data that a model was trained on, and rows with the predictions that a model must repeat."""

from typing import Literal

from pydantic import Field

from contracts.values import Frozen, Value

FeatureType = Literal["number", "integer", "boolean", "string"]

Dtype = Literal["float64", "int64", "bool", "str"]

DTYPES: dict[FeatureType, Dtype] = {"number": "float64", "integer": "int64", "boolean": "bool", "string": "str"}
"""The pandas dtype of a column without missing values, in training and in serving."""

RECENT = "bentobelt_recent"
"""Boolean column that marks the labelled rows taken from live traffic in a retraining dataset."""

RECENT_ROWS = 30
"""With at least this many recent rows, a new version is profiled and judged by the recent rows alone."""


class Feature(Frozen):
    """One column of the data a model was trained on."""

    name: str = Field(min_length=1, description="column name")
    type: FeatureType = Field(description="type of the values")
    nullable: bool = Field(
        default=False, description="true if values were missing at training: a request may then send null"
    )

    @property
    def dtype(self) -> Dtype:
        """The pandas dtype that training and serving give the column; integers and booleans with gaps are floats."""
        return "float64" if self.nullable and self.type != "string" else DTYPES[self.type]

    @property
    def is_numeric(self) -> bool:
        """True for numbers and integers: what has quantiles."""
        return self.type in ("number", "integer")


class Probe(Frozen):
    """Held-out rows and the model's predictions for them: a deployed copy must give the same predictions."""

    rows: tuple[dict[str, Value], ...] = Field(description="a few rows, feature name to value")
    predictions: tuple[Value, ...] = Field(description="the prediction for each row")
