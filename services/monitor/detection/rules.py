"""When evidence is enough."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """The same for every model. Run lengths are means: false alarms are at least that far apart."""

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
