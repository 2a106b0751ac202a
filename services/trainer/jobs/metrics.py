"""The metrics that a gate may name, on held-out rows, as `model.trained` reports them.

The evaluator computes the same metrics from sums, for thousands of resamples at once; the two do not share code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics


def score(
    task: str, truth: Any, predicted: Any, probabilities: Any = None, classes: Sequence[Any] = ()
) -> dict[str, float]:
    """Return `contracts.model_spec.METRICS` of the task; log_loss only when there are probabilities."""
    if task == "regression":
        return {
            "r2": float(metrics.r2_score(truth, predicted)),
            "mae": float(metrics.mean_absolute_error(truth, predicted)),
            "rmse": float(metrics.root_mean_squared_error(truth, predicted)),
        }
    # Labels that are not among the held-out rows have no recall to average.
    labels = np.unique(truth)
    recall = metrics.recall_score(truth, predicted, labels=labels, average="macro", zero_division=0)
    found = {
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
        "balanced_accuracy": float(recall),
        "f1": float(metrics.f1_score(truth, predicted, average="macro", zero_division=0)),
        "precision": float(metrics.precision_score(truth, predicted, average="macro", zero_division=0)),
        "recall": float(metrics.recall_score(truth, predicted, average="macro", zero_division=0)),
    }
    if probabilities is not None:
        found["log_loss"] = _log_loss(truth, np.asarray(probabilities), list(classes))
    return found


def _log_loss(truth: Any, probabilities: Any, classes: list[Any]) -> float:
    """Mean log loss; a label that training has not seen has probability zero."""
    column = {label: index for index, label in enumerate(classes)}
    given = [probabilities[row, column[label]] if label in column else 0.0 for row, label in enumerate(truth)]
    return float(-np.log(np.clip(given, np.finfo("float64").eps, 1.0)).mean())
