"""Columns of the data a model was trained on, and rows that show how it answers."""

from typing import Literal

from pydantic import Field

from contracts.values import Frozen, Value

FeatureType = Literal["number", "integer", "boolean", "string"]

RECENT = "bentobelt_recent"
"""Boolean column that marks the labelled rows taken from live traffic in a retraining dataset."""

RECENT_ROWS = 30
"""Recent rows from which on they alone are what a new version is expected to see, and is held to."""


class Feature(Frozen):
    """One column of the data a model was trained on."""

    name: str = Field(min_length=1, description="column name")
    type: FeatureType = Field(description="what its values are")
    nullable: bool = Field(
        default=False, description="whether values were missing at training: a request may then send null"
    )


class Probe(Frozen):
    """Held-out rows and what the model answered at its judgement: a deployed copy must answer the same."""

    rows: tuple[dict[str, Value], ...] = Field(description="at most a handful of rows, feature name to value")
    predictions: tuple[Value, ...] = Field(description="the prediction for each row")
