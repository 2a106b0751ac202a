"""Performance of one version on labelled rows: the evidence that it is below its target, and since when."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.profiles import Window
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.sequential_tests import BETS, change_point, e_detector
from services.monitor.state.label_join import LABELLED_FIELDS, ReceivedLabel, RingBuffer, RowPositions


class LossEstimate(NamedTuple):
    """The labelled rows since the metric most likely fell, in the order of their predictions.

    `since` is the index of the first of them among the rows since the last reset, `value` is the metric on them, and
    `classes` the number of different labels.
    """

    since: int
    labels: int
    value: float
    coverage: float
    classes: int
    window: Window


class PerformanceTracker:
    """Labelled rows of one version, and the evidence that its performance is below the target.

    Without a target labels are only counted. `run_labels` is the mean number of labels between two false alarms.
    """

    STORED = ("errors", "alarmed", "fresh_from", "accuracy", "detector")
    """Attributes that are saved, under these names."""

    def __init__(self, target: PerformanceTarget | None, window_rows: int, run_labels: float) -> None:
        self._target, self._window_rows, self._run_labels = target, window_rows, run_labels
        self.rows = RingBuffer(LABELLED_FIELDS, max(2000, 4 * window_rows))
        self.errors = 0
        self.fresh_from = 0
        """Number of the first labelled row that counts as evidence."""
        self.detector = np.zeros(len(BETS))
        """The Shiryaev–Roberts statistic of each bet."""
        self.alarmed: float | None = None
        """Time at which the evidence became sufficient."""
        self.accuracy = -1.0
        """Of the last window of labels; -1 when there are none."""

    @property
    def label_count(self) -> int:
        """Number of labels so far."""
        return self.rows.total

    @property
    def fresh_labels(self) -> int:
        """Number of labels since the evidence was reset."""
        return self.rows.total - self.fresh_from

    @property
    def tolerated_error_rate(self) -> float:
        """The largest error rate that still meets the target."""
        return 1.0 if self._target is None else min(1.0, 1 - self._target.value + self._target.max_loss)

    @property
    def statistic(self) -> float:
        """Evidence of a loss: the mean over the bets."""
        return float(self.detector.mean())

    def add(self, labels: list[ReceivedLabel], predicted: list[float], rows: RowPositions, now: float) -> None:
        """Compare labels with their predictions, and update the evidence.

        The time `now` is kept when the evidence becomes sufficient: further labels are collected from then on, even if
        the predictions were made long before.
        """
        truth = np.array([label.value for label in labels])
        errors = self._errors(np.array(predicted), truth)
        table: dict[str, Any] = {
            "sequence": rows.sequence,
            "row": rows.row,
            "label_sequence": [label.sequence for label in labels],
            "label_row": [label.row for label in labels],
            "label": truth,
            "error": errors,
            "time": [label.time for label in labels],
        }
        for start in range(0, len(errors), self.rows.capacity):
            part = slice(start, start + self.rows.capacity)
            self.rows.append(**{name: values[part] for name, values in table.items()})
        self.errors += int(errors.sum())
        self._update_evidence(errors, now)

    def _errors(self, predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self._target and self._target.metric == "within":
            tolerance = self._target.tolerance or 0.0
            return ~(np.abs(predicted - truth) <= tolerance * (1 + 1e-9))
        return np.asarray(predicted != truth)

    def _update_evidence(self, errors: NDArray[np.bool_], now: float) -> None:
        recent = self.rows.column("error", max(self.fresh_from, self.label_count - self._window_rows))
        self.accuracy = float(1 - recent.mean()) if len(recent) else -1.0
        if self.tolerated_error_rate >= 1.0:
            return
        self.detector, peak = e_detector(self.detector, errors.astype(np.float64), self.tolerated_error_rate)
        if self.alarmed is None and peak >= self._run_labels:
            self.alarmed = now

    def estimate_loss(self, coverage: float) -> LossEstimate:
        """Estimate since when the metric is lower, and by how much. `coverage`: share of predictions with a label."""
        columns, order = self._fresh_rows()
        errors = columns["error"][order].astype(np.float64)
        start = change_point(errors, self.tolerated_error_rate)
        since, times = order[start:], columns["time"][order[start:]]
        labels = len(since)
        window = Window(
            start=float(times.min()) if labels else 0.0,
            end=float(times.max()) if labels else 0.0,
            rows=max(labels, round(labels / coverage) if coverage else labels),
            labels=labels,
            index=self.label_count // self._window_rows,
        )
        value = float(1 - errors[start:].mean()) if labels else 1.0
        return LossEstimate(start, labels, value, coverage, len(np.unique(columns["label"][since])), window)

    def positions(self, since: int, at_most: int) -> RowPositions:
        """Return the positions of the newest labelled rows since a change, in the order of their predictions."""
        columns, order = self._fresh_rows()
        newest = order[since:][-at_most:]
        return RowPositions(*(columns[name][newest] for name in RowPositions._fields))

    def _fresh_rows(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        """Return the rows since the last reset by column, and their order by prediction."""
        columns = {name: self.rows.column(name, self.fresh_from) for name, _ in LABELLED_FIELDS}
        return columns, np.lexsort((columns["row"], columns["sequence"]))

    def reset_evidence(self) -> None:
        """Discard the evidence and keep the rows: only labels that come from now on count."""
        self.detector, self.alarmed, self.fresh_from = np.zeros(len(BETS)), None, self.label_count
