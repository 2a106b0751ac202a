"""The rules for when evidence is enough, the same for every model."""

from pydantic import Field

from contracts.values import Frozen


class Rules(Frozen):
    """Thresholds and limits; each is a setting of the monitor too."""

    run_labels: float = Field(
        default=1e6,
        gt=1,
        description="mean number of labels between two false alarms of a model that performs as it was approved",
    )
    run_windows: float = Field(
        default=1000.0, gt=1, description="mean number of windows between two false alarms about drift"
    )
    drift_tolerance: float = Field(
        default=0.2, ge=0, description="drift of a column (Cohen's w on its bins) that is tolerated without an alarm"
    )
    missing_tolerance: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="tolerated rise of a column's share of missing or invalid values above the training data's share",
    )
    min_coverage: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="share of predictions whose label must be known before a model is retrained",
    )
    min_rows: int = Field(default=50, ge=1, description="least number of rows in a window that is closed by time")
    window_seconds: float = Field(
        default=900.0, gt=0, description="seconds after which a window closes before it is full"
    )
    gather_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="seconds to collect labels for a retraining before an alert is published instead",
    )
    expire_seconds: float = Field(
        default=6 * 3600.0, gt=0, description="seconds after which an incident closes that no run has ended"
    )
    retrains_per_day: int = Field(
        default=20,
        ge=0,
        description="largest number of retrainings of a model in 24 hours; beyond it there are only alerts",
    )
    pending: int = Field(
        default=50_000, ge=100, description="predictions per version that are kept to be joined with their label"
    )
    versions: int = Field(default=4, ge=2, description="number of a model's versions whose labels are still joined")
