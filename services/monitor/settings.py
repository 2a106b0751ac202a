"""What can be set from outside; each as MONITOR_<NAME>."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings
from services.monitor.detection.rules import Rules


class Settings(BusSettings):
    """Settings of the monitor. What belongs to one model (window, max_loss, cooldown) is in its model.yaml."""

    model_config = SettingsConfigDict(env_prefix="MONITOR_")

    run_labels: float = Field(
        default=1e6, gt=1, description="labels between two false alarms of a model that keeps its promise, on average"
    )
    run_windows: float = Field(
        default=1000.0, gt=1, description="windows between two false alarms about drifting data, on average"
    )
    drift_tolerance: float = Field(
        default=0.2, ge=0, description="drift of a column (Cohen's w on its bins) that is no reason for an alarm"
    )
    missing_tolerance: float = Field(
        default=0.1, ge=0, lt=1, description="share of missing or odd values above training's that is no alarm yet"
    )
    min_coverage: float = Field(
        default=0.05, ge=0, le=1, description="share of predictions whose label must be known for a verdict"
    )
    min_rows: int = Field(default=50, ge=1, description="rows a window must have when it is closed by time")
    window_seconds: float = Field(default=900.0, gt=0, description="after which a window closes before it is full")
    gather_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="how long labels are gathered for a retraining before a person is told instead",
    )
    expire_seconds: float = Field(
        default=6 * 3600.0, gt=0, description="after which an incident closes that no run has ended"
    )
    retrains_per_day: int = Field(default=20, ge=0, description="retrainings of a model in 24 hours; then only alerts")
    pending: int = Field(
        default=50_000, ge=100, description="predictions per version that are remembered until their label comes"
    )
    versions: int = Field(default=4, ge=2, description="versions of a model whose labels are still joined")
    poll_seconds: float = Field(
        default=0.5, gt=0, description="how long to wait for traffic before other things are seen to"
    )
    save_seconds: float = Field(default=1.0, ge=0, description="least time between two saves of a model's state")
    scan_seconds: float = Field(default=5.0, gt=0, description="pause between two looks for models that are new")
    dataset_seconds: float = Field(default=300.0, gt=0, description="how long building a dataset may take")
    report_seconds: float = Field(default=10.0, ge=0, description="how long an alert waits for its page")
    retrain_report_seconds: float = Field(
        default=3.0, ge=0, description="how long a retraining waits for its page, begun with the first evidence"
    )
    error_burst: int = Field(default=20, ge=1, description="errors of serving within a minute that are an alarm")

    @property
    def rules(self) -> Rules:
        """What the domain needs of them."""
        return Rules(**{name: getattr(self, name) for name in Rules.__dataclass_fields__})
