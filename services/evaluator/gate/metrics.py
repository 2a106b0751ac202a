"""Metrics of a gate as functions of sums over rows, so that resampling rows is resampling sums.

The trainer reports scikit-learn's metrics once per model; those cannot be computed for thousands of resamples at once.
Tests hold that both give the same values.

Every metric turns a held-out row and its prediction into a few numbers and is a function of their sums. It is the same
function for one set of sums and for thousands: arrays of shape (…, columns) in, (…) out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Measured:
    """The terms of one metric for one model: `value(kinds[of].sum(axis=0))` is the metric on all rows."""

    kinds: Floats
    """The different rows of terms (kinds × columns)."""
    of: Codes
    """The kind of each held-out row."""
    value: Callable[[Floats], Floats]
    classes: int | None = None
    """Set when the columns are the cells of a confusion matrix, label-major."""


def confusion(labels: Codes, predictions: Codes, classes: int, metric: str) -> Measured:
    """f1, precision, recall and balanced_accuracy from the confusion matrix.

    Args:
        labels: codes 0 … classes-1.
        predictions: codes of the same classes.
        classes: how many there are among labels and predictions.
        metric: its name.
    """
    cells, of = np.unique(labels * classes + predictions, return_inverse=True)
    kinds = np.zeros((len(cells), classes * classes))
    kinds[np.arange(len(cells)), cells] = 1.0
    rate = _RATES[metric]
    return Measured(kinds, of, lambda sums: rate(sums.reshape(*sums.shape[:-1], classes, classes)), classes)


def log_loss(likelihood: Floats) -> Measured:
    """Mean of -log of the probability given to the true class (shape: rows)."""
    return _mean(-np.log(np.clip(likelihood, np.finfo(np.float64).eps, 1.0)))


def regression(labels: Floats, predictions: Floats, metric: str) -> Measured:
    """mae, rmse and r2; r2 is NaN where all labels are the same."""
    error, centred = predictions - labels, labels - labels.mean()
    if metric == "mae":
        return _mean(np.abs(error))
    if metric == "rmse":
        mean = _mean(error**2)
        return Measured(mean.kinds, mean.of, lambda sums: np.sqrt(mean.value(sums)))
    columns = np.column_stack([error**2, centred**2, centred, np.ones_like(error)])
    return Measured(columns, np.arange(len(columns)), _r2)


def _mean(values: Floats) -> Measured:
    columns = np.column_stack([values, np.ones_like(values)])
    return Measured(columns, np.arange(len(columns)), lambda sums: sums[..., 0] / sums[..., 1])


def _r2(sums: Floats) -> Floats:
    residual, squares, total, rows = np.moveaxis(sums, -1, 0)
    spread = squares - total**2 / rows
    spread = np.where(spread <= 1e-12 * np.maximum(squares, 1e-300), np.nan, spread)
    return np.asarray(1 - residual / spread)


def _mean_over(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    return np.asarray(np.where(present, values, 0.0).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def _over(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _parts(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Correct, labelled and predicted rows per class."""
    return np.diagonal(matrix, axis1=-2, axis2=-1).copy(), matrix.sum(axis=-1), matrix.sum(axis=-2)


def _balanced_accuracy(matrix: Floats) -> Floats:
    correct, labelled, _ = _parts(matrix)
    return _mean_over(_over(correct, labelled), labelled > 0)


def _f1(matrix: Floats) -> Floats:
    correct, labelled, predicted = _parts(matrix)
    return _mean_over(_over(2 * correct, labelled + predicted), labelled + predicted > 0)


def _precision(matrix: Floats) -> Floats:
    correct, labelled, predicted = _parts(matrix)
    return _mean_over(_over(correct, predicted), labelled + predicted > 0)


def _recall(matrix: Floats) -> Floats:
    correct, labelled, predicted = _parts(matrix)
    return _mean_over(_over(correct, labelled), labelled + predicted > 0)


_RATES: dict[str, Callable[[Any], Floats]] = {
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "precision": _precision,
    "recall": _recall,
}
"""Macro averages as scikit-learn's with `zero_division=0`."""
