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
    UNMATCHED.labels(state.model).set(state.traffic.early.unmatched + state.traffic.invalid)
    POSITION.labels(state.model).set(state.traffic.position)
    for version in set(state.live.values()) & state.traffic.versions.keys():
        watch = state.traffic.versions[version]
        values = {
            VALUE: watch.judged.accuracy if watch.judged.accuracy >= 0 else float("nan"),
            PROMISED: watch.promise.value if watch.promise else float("nan"),
            COVERAGE: watch.pending.coverage(),
            LOSS: watch.judged.statistic,
            DRIFT: watch.windows.drift,
            ROWS: watch.windows.rows,
            LABELS: watch.judged.total,
        }
        for gauge, value in values.items():
            gauge.labels(state.model, version).set(value)
