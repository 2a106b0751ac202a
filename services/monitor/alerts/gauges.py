"""Prometheus gauges of each live version."""

from prometheus_client import Gauge

from services.monitor.domain import ModelState
from services.monitor.state.version_state import VersionState

_BY = ("model", "version")
VALUE = Gauge("bentobelt_monitor_accuracy", "accuracy (or share within tolerance) of the last window of labels", _BY)
PROMISED = Gauge("bentobelt_monitor_promised", "performance target: the metric at approval", _BY)
COVERAGE = Gauge("bentobelt_monitor_coverage", "share of recent predictions whose label is known", _BY)
LOSS = Gauge("bentobelt_monitor_loss_statistic", "evidence of a loss; an alarm at MONITOR_RUN_LABELS", _BY)
DRIFT = Gauge("bentobelt_monitor_drift_statistic", "evidence of drift; an alarm at MONITOR_RUN_WINDOWS", _BY)
ROWS = Gauge("bentobelt_monitor_rows", "predictions counted", _BY)
LABELS = Gauge("bentobelt_monitor_labels", "labels joined", _BY)
UNMATCHED = Gauge("bentobelt_monitor_unmatched", "labels without a known prediction", ("model",))
POSITION = Gauge("bentobelt_monitor_position", "stream sequence up to which traffic is counted", ("model",))

BY_VERSION = (VALUE, PROMISED, COVERAGE, LOSS, DRIFT, ROWS, LABELS)


class ModelGauges:
    """Gauges of one model. Only live versions have them, so that their number does not grow with each deployment."""

    def __init__(self, model: str) -> None:
        self._model, self._versions = model, set[str]()

    def update(self, state: ModelState) -> None:
        """Set all gauges of the model."""
        UNMATCHED.labels(self._model).set(state.traffic.unmatched.count + state.traffic.invalid_labels)
        POSITION.labels(self._model).set(state.traffic.position)
        live = set(state.live.values()) & state.traffic.versions.keys()
        self._remove_versions(self._versions - live)
        self._versions = live
        for version in live:
            for gauge, value in zip(BY_VERSION, _values(state.traffic.versions[version]), strict=True):
                gauge.labels(self._model, version).set(value)

    def remove(self) -> None:
        """Remove all gauges of the model: another replica reads it from now on."""
        self._remove_versions(self._versions)
        self._versions = set()
        for gauge in (UNMATCHED, POSITION):
            gauge.remove(self._model)

    def _remove_versions(self, versions: set[str]) -> None:
        for version in versions:
            for gauge in BY_VERSION:
                gauge.remove(self._model, version)


def _values(state: VersionState) -> tuple[float, ...]:
    return (
        state.performance.accuracy if state.performance.accuracy >= 0 else float("nan"),
        state.target.value if state.target else float("nan"),
        state.predictions.coverage(),
        state.performance.statistic,
        state.windows.drift,
        state.windows.rows,
        state.performance.label_count,
    )
