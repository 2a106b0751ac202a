"""Settings of the monitor, each read from the environment variable MONITOR_<NAME>."""

from dataclasses import fields

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings
from services.monitor.detection.rules import Rules


class Settings(BusSettings):
    """Settings of the monitor. What belongs to one model (window, max_loss, cooldown) is in its model.yaml."""

    model_config = SettingsConfigDict(env_prefix="MONITOR_")

    run_labels: float = Field(
        default=Rules.run_labels,
        gt=1,
        description="mean number of labels between two false alarms of a model that performs as it was approved",
    )
    run_windows: float = Field(
        default=Rules.run_windows, gt=1, description="mean number of windows between two false alarms about drift"
    )
    drift_tolerance: float = Field(
        default=Rules.drift_tolerance,
        ge=0,
        description="drift of a column (Cohen's w on its bins) that is tolerated without an alarm",
    )
    missing_tolerance: float = Field(
        default=Rules.missing_tolerance,
        ge=0,
        lt=1,
        description="tolerated rise of a column's share of missing or invalid values above the training data's share",
    )
    min_coverage: float = Field(
        default=Rules.min_coverage,
        ge=0,
        le=1,
        description="share of predictions whose label must be known before a model is retrained",
    )
    min_rows: int = Field(
        default=Rules.min_rows, ge=1, description="least number of rows in a window that is closed by time"
    )
    window_seconds: float = Field(
        default=Rules.window_seconds, gt=0, description="seconds after which a window closes before it is full"
    )
    gather_seconds: float = Field(
        default=Rules.gather_seconds,
        gt=0,
        description="seconds to collect labels for a retraining before an alert is published instead",
    )
    expire_seconds: float = Field(
        default=Rules.expire_seconds, gt=0, description="seconds after which an incident closes that no run has ended"
    )
    retrains_per_day: int = Field(
        default=Rules.retrains_per_day,
        ge=0,
        description="largest number of retrainings of a model in 24 hours; beyond it there are only alerts",
    )
    pending: int = Field(
        default=Rules.pending, ge=100, description="predictions per version that are kept to be joined with their label"
    )
    versions: int = Field(
        default=Rules.versions, ge=2, description="number of a model's versions whose labels are still joined"
    )
    poll_seconds: float = Field(
        default=0.5, gt=0, description="seconds to wait for traffic before notices and timeouts are handled"
    )
    save_seconds: float = Field(default=1.0, ge=0, description="least number of seconds between two saves of a state")
    scan_seconds: float = Field(default=5.0, gt=0, description="seconds between two searches for new live models")
    dataset_seconds: float = Field(
        default=300.0, gt=0, description="longest time in seconds to build a dataset or to render a report"
    )
    report_seconds: float = Field(
        default=10.0, ge=0, description="longest time in seconds that an alert waits for its report"
    )
    retrain_report_seconds: float = Field(
        default=3.0,
        ge=0,
        description="longest time in seconds that a retraining waits for its report, which is started early",
    )
    error_burst: int = Field(default=20, ge=1, description="serving errors within a minute that raise an alert")

    @property
    def rules(self) -> Rules:
        """The part of the settings that the domain needs."""
        return Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})
