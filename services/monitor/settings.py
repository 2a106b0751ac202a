"""Settings of the monitor, each read from the environment variable MONITOR_<NAME>."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings
from services.monitor.detection.rules import Rules


class Settings(Rules, BusSettings):
    """Settings of the monitor. What belongs to one model (window, max_loss, cooldown) is in its model.yaml."""

    model_config = SettingsConfigDict(env_prefix="MONITOR_")

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
