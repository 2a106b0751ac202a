"""What Prometheus is told about each live version."""

from prometheus_client import Gauge

from services.monitor.domain import ModelWatch

_BY = ("model", "version")
VALUE = Gauge("bentobelt_monitor_accuracy", "accuracy (or share within tolerance) of the last window of labels", _BY)
PROMISED = Gauge("bentobelt_monitor_promised", "what the version was approved with", _BY)
COVERAGE = Gauge("bentobelt_monitor_coverage", "share of recent predictions whose label is known", _BY)
LOSS = Gauge("bentobelt_monitor_loss_statistic", "evidence of a loss; an alarm at MONITOR_RUN_LABELS", _BY)
DRIFT = Gauge("bentobelt_monitor_drift_statistic", "evidence of drift; an alarm at MONITOR_RUN_WINDOWS", _BY)
ROWS = Gauge("bentobelt_monitor_rows", "predictions counted", _BY)
LABELS = Gauge("bentobelt_monitor_labels", "labels joined", _BY)
UNMATCHED = Gauge("bentobelt_monitor_unmatched", "labels without a known prediction", ("model",))
POSITION = Gauge("bentobelt_monitor_position", "stream sequence up to which traffic is counted", ("model",))


def show(state: ModelWatch) -> None:
    """Set all gauges of a model."""
    UNMATCHED.labels(state.model).set(state.early.unmatched + state.invalid)
    POSITION.labels(state.model).set(state.position)
    for version in set(state.live.values()) & state.versions.keys():
        watch = state.versions[version]
        values = {
            VALUE: watch.accuracy if watch.accuracy >= 0 else float("nan"),
            PROMISED: watch.promise.value if watch.promise else float("nan"),
            COVERAGE: watch.pending.coverage(),
            LOSS: watch.statistic,
            DRIFT: watch.drift,
            ROWS: watch.rows,
            LABELS: watch.labelled.total,
        }
        for gauge, value in values.items():
            gauge.labels(state.model, version).set(value)
