"""The judgement of the gate, and the target that the monitor holds a live version to."""

from typing import Literal

from pydantic import Field

from contracts.values import Frozen


class PerformanceTarget(Frozen):
    """Performance that a live version must keep, and how a loss of it is detected.

    `accuracy`: share of correct labels. `within`: share of predictions no further than `tolerance` from
    the label (regression; tolerance is the 90 % quantile of the held-out absolute errors). Both are means
    of 0/1, so that one sequential test serves both tasks.
    """

    metric: Literal["accuracy", "within"]
    value: float = Field(ge=0, le=1, description="the metric on held-out rows at the verdict")
    tolerance: float | None = Field(
        default=None, ge=0, description="largest |label - prediction| that counts as correct"
    )
    max_loss: float = Field(
        default=0.05, gt=0, lt=1, description="how far the metric may fall below value before it is an incident"
    )
    window: int = Field(default=500, ge=1, description="labelled rows in a window")
    cooldown: float = Field(default=600.0, ge=0, description="seconds after an incident closed before another may open")


class ConditionResult(Frozen):
    """One condition of the gate, judged on one group of held-out rows."""

    condition: str = Field(description="as written in model.yaml, e.g. accuracy - champion > -0.05")
    group: Literal["all", "base", "recent"] = Field(
        default="all", description="group of held-out rows that it was judged on"
    )
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
