"""Counts of the training data, by bin: the reference that drift is measured against."""

from pydantic import Field

from contracts.values import Frozen


class ColumnProfile(Frozen):
    """Counts of one column's training values by bin; mergeable by addition.

    A numeric column has `edges` (k inner cut points, ascending) and k+1 `counts`: bin i holds
    edges[i-1] < x <= edges[i] (`numpy.searchsorted(edges, x, side="left")`). Any other column has
    `categories` (the most frequent ones, as strings) and as many `counts`; the rest is `other`.
    """

    name: str
    edges: tuple[float, ...] | None = Field(default=None, description="inner bin edges of a numeric column")
    categories: tuple[str, ...] | None = Field(default=None, description="values of a categorical column, as strings")
    counts: tuple[int, ...] = Field(description="rows per bin or category")
    other: int = Field(default=0, description="rows in categories beyond the listed ones")
    missing: int = Field(default=0, description="rows without a value")


class Profile(Frozen):
    """Counts of the training data and of the predictions: the reference that drift is measured against."""

    rows: int = Field(ge=0)
    columns: tuple[ColumnProfile, ...] = Field(description="one per feature, in the model's order")
    prediction: ColumnProfile = Field(description="predictions of the new model on held-out rows")


class Window(Frozen):
    """The period of traffic that the evidence comes from."""

    start: float = Field(description="unix seconds of the first prediction")
    end: float = Field(description="unix seconds of the last prediction")
    rows: int = Field(ge=0, description="predictions in it")
    labels: int = Field(ge=0, description="labels that arrived for them")
    index: int = Field(ge=0, description="number of the window since the version went live")
