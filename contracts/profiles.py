"""The shape of data as events describe it: features, profile, probe, promise."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Value = bool | int | float | str | None
"""One cell of a row, or one label, as JSON knows it. Order matters: a bool is not an int."""

FeatureType = Literal["number", "integer", "boolean", "string"]

RECENT = "bentobelt_recent"
"""Boolean column that marks the labelled rows taken from live traffic in a retraining dataset."""
RECENT_ROWS = 30
"""Recent rows from which on they alone are what a new version is expected to see, and is held to."""


MIN_MEMORY = 256 * 1024**2
"""Bytes; with less, a server of the smallest model is killed while it starts."""


class Frozen(BaseModel):
    """An immutable value. Unknown keys are ignored: additive changes only within v1."""

    model_config = ConfigDict(frozen=True, strict=False)


class Feature(Frozen):
    """One column of the data a model was trained on."""

    name: str = Field(min_length=1, description="column name")
    type: FeatureType = Field(description="what its values are")
    nullable: bool = Field(
        default=False, description="whether values were missing at training: a request may then send null"
    )


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
    """What the training data looked like: the reference that drift is measured against."""

    rows: int = Field(ge=0)
    columns: tuple[ColumnProfile, ...] = Field(description="one per feature, in the model's order")
    prediction: ColumnProfile = Field(description="predictions of the new model on held-out rows")


class Probe(Frozen):
    """Held-out rows and what the model answered at its judgement: a deployed copy must answer the same."""

    rows: tuple[dict[str, Value], ...] = Field(description="at most a handful of rows, feature name to value")
    predictions: tuple[Value, ...] = Field(description="the prediction for each row")


class Promise(Frozen):
    """What the monitor holds a live version to, and how patiently.

    `accuracy`: share of correct labels. `within`: share of predictions no further than `tolerance` from
    the label (regression; tolerance is the 90 % quantile of the held-out absolute errors). Both are means
    of 0/1, so that one sequential test serves both tasks.
    """

    metric: Literal["accuracy", "within"]
    value: float = Field(ge=0, le=1, description="the metric on held-out rows at the verdict")
    tolerance: float | None = Field(default=None, ge=0, description="largest |label - prediction| that counts as right")
    max_loss: float = Field(
        default=0.05, gt=0, lt=1, description="how far the metric may fall below value before it is an incident"
    )
    window: int = Field(default=500, ge=1, description="labelled rows in a window")
    cooldown: float = Field(default=600.0, ge=0, description="seconds after an incident closed before another may open")


class Limits(Frozen):
    """What a serving container may use.

    1 GiB: a server with scikit-learn and pandas takes about a quarter of it, the rest is for the model and its
    requests. One CPU: a server is one process whose model answers from one thread.
    """

    memory: int = Field(default=1024**3, ge=MIN_MEMORY, description="bytes")
    cpus: float = Field(default=1.0, ge=0.1, description="number of CPUs, fractions too")


class Environment(Frozen):
    """The Python environment a model was trained in and must be loaded in."""

    python: str = Field(description="interpreter version, e.g. 3.11.7")
    lock: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the hash-locked requirements")
    requirements: tuple[str, ...] = Field(default=(), description="the project's extra packages")
    locked: str | None = Field(
        default=None,
        description="URI of the locked requirements when there are extra packages (an artifact named by the digest)",
    )


class ConditionResult(Frozen):
    """One condition of the gate, judged on one group of held-out rows."""

    condition: str = Field(description="as written in model.yaml, e.g. accuracy - champion > -0.05")
    group: Literal["all", "base", "recent"] = Field(default="all", description="which held-out rows it was judged on")
    estimate: float | None = Field(
        default=None, description="of the condition's left side; null when there is no live champion"
    )
    low: float | None = Field(default=None, description="lower end of the interval")
    high: float | None = Field(default=None, description="upper end of the interval")
    rows: int = Field(ge=0, description="held-out rows behind the estimate")
    outcome: Literal["pass", "fail", "unknown"]
    why: str = Field(default="", description="one sentence for a person")


class Verdict(Frozen):
    """The gate's judgement: all conditions pass → pass; any fails → fail; else unknown."""

    outcome: Literal["pass", "fail", "unknown"]
    confidence: float = Field(gt=0, lt=1, description="shared over the conditions")
    conditions: tuple[ConditionResult, ...]
    champion: str | None = Field(default=None, description="the live version it was compared with")


class Window(Frozen):
    """The stretch of traffic that evidence was found in."""

    start: float = Field(description="unix seconds of the first prediction")
    end: float = Field(description="unix seconds of the last prediction")
    rows: int = Field(ge=0, description="predictions in it")
    labels: int = Field(ge=0, description="labels that arrived for them")
    index: int = Field(ge=0, description="number of the window since the version went live")
