"""The rules for when evidence is enough, the same for every model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Thresholds and limits. `services.monitor.settings` describes each of them."""

    run_labels: float = 1e6
    run_windows: float = 1000.0
    drift_tolerance: float = 0.2
    missing_tolerance: float = 0.1
    min_coverage: float = 0.05
    min_rows: int = 50
    window_seconds: float = 900.0
    gather_seconds: float = 3600.0
    expire_seconds: float = 6 * 3600.0
    retrains_per_day: int = 20
    pending: int = 50_000
    versions: int = 4
