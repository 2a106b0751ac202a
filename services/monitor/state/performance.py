"""The labelled rows of one version against its promise: how sure is it that too many are wrong, and since when?"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.profiles import Window
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.sequential_tests import BETS, change_point, e_detector
from services.monitor.state.label_join import LABELLED, ReceivedLabel, Ring, RowPositions


class Loss(NamedTuple):
    """Labelled rows since the metric most likely fell, in the order of their predictions."""

    since: int
    labels: int
    value: float
    coverage: float
    classes: int
    window: Window


class PerformanceTracker:
    """Labelled rows, and the evidence that the promise is not kept.

    Args:
        promise: without it labels are only counted.
        size: labels of a full window.
        run_labels: labels between two false alarms, on average.
    """

    KEPT = ("errors", "alarmed", "fresh_from", "accuracy", "detector")

    def __init__(self, promise: PerformanceTarget | None, size: int, run_labels: float) -> None:
        self._promise, self._size, self._run_labels = promise, size, run_labels
        self.ring = Ring(LABELLED, max(2000, 4 * size))
        self.errors = self.fresh_from = 0
        self.detector = np.zeros(len(BETS))
        self.alarmed: float | None = None
        self.accuracy = -1.0

    @property
    def total(self) -> int:
        """Labels so far."""
        return self.ring.total

    @property
    def fresh(self) -> int:
        """Labels since the evidence began."""
        return self.ring.total - self.fresh_from

    @property
    def tolerated(self) -> float:
        """The error rate that is still as promised."""
        return 1.0 if self._promise is None else min(1.0, 1 - self._promise.value + self._promise.max_loss)

    @property
    def statistic(self) -> float:
        """Evidence of a loss: the mean over the bets."""
        return float(self.detector.mean())

    def add(self, labels: list[ReceivedLabel], predicted: list[float], rows: RowPositions, now: float) -> None:
        """Judge predictions. When the evidence suffices, `now` is kept: more labels are waited for from then on,
        however long ago the predictions were made.
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
        for start in range(0, len(errors), self.ring.capacity):
            part = slice(start, start + self.ring.capacity)
            self.ring.append(**{name: values[part] for name, values in table.items()})
        self.errors += int(errors.sum())
        self._bet(errors, now)

    def _errors(self, predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self._promise and self._promise.metric == "within":
            tolerance = self._promise.tolerance or 0.0
            return ~(np.abs(predicted - truth) <= tolerance * (1 + 1e-9))
        return np.asarray(predicted != truth)

    def _bet(self, errors: NDArray[np.bool_], now: float) -> None:
        recent = self.ring.column("error", max(self.fresh_from, self.total - self._size))
        self.accuracy = float(1 - recent.mean()) if len(recent) else -1.0
        if self.tolerated >= 1.0:
            return
        self.detector, peak = e_detector(self.detector, errors.astype(np.float64), self.tolerated)
        if self.alarmed is None and peak >= self._run_labels:
            self.alarmed = now

    def loss(self, coverage: float) -> Loss:
        """What the labels say about the time since the metric most likely fell."""
        columns, order = self._ordered()
        errors = columns["error"][order].astype(np.float64)
        start = change_point(errors, self.tolerated)
        since, times = order[start:], columns["time"][order[start:]]
        labels = len(since)
        window = Window(
            start=float(times.min()) if labels else 0.0,
            end=float(times.max()) if labels else 0.0,
            rows=max(labels, round(labels / coverage) if coverage else labels),
            labels=labels,
            index=self.total // self._size,
        )
        value = float(1 - errors[start:].mean()) if labels else 1.0
        return Loss(start, labels, value, coverage, len(np.unique(columns["label"][since])), window)

    def rows(self, since: int, at_most: int) -> RowPositions:
        """The newest rows since a change, in the order of their predictions."""
        columns, order = self._ordered()
        newest = order[since:][-at_most:]
        return RowPositions(*(columns[name][newest] for name in RowPositions._fields))

    def _ordered(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        """The fresh rows by column, and their order by prediction."""
        columns = {name: self.ring.column(name, self.fresh_from) for name, _ in LABELLED}
        return columns, np.lexsort((columns["row"], columns["sequence"]))

    def start_afresh(self) -> None:
        """Forget the evidence, not the rows."""
        self.detector, self.alarmed, self.fresh_from = np.zeros(len(BETS)), None, self.total
