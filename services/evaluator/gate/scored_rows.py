"""A model's predictions of the held-out rows, and the terms that a metric takes from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.events import Task
from contracts.values import Value
from services.evaluator.gate import metrics
from services.evaluator.gate.metrics import Floats, Measured


class Unmeasurable(Exception):
    """The metric cannot be computed from the predictions; the text says why."""


@dataclass(frozen=True)
class ModelPredictions:
    """A model's predictions of the held-out rows, in their order."""

    predictions: Sequence[Value]
    classes: Sequence[Value] = ()
    probabilities: Floats | None = None
    """Shape (rows, classes); None when the model gives none, or the gate needs none."""

    def select(self, rows: Sequence[int]) -> "ModelPredictions":
        """Return the predictions of some of the rows."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return ModelPredictions([self.predictions[row] for row in rows], self.classes, probabilities)


def correct(labels: Sequence[Value], predicted: ModelPredictions) -> npt.NDArray[np.bool_]:
    """Return which predictions are correct (shape: rows)."""
    pairs = zip(labels, predicted.predictions, strict=True)
    return np.array([label == prediction for label, prediction in pairs], dtype=bool)


def measured(
    task: Task, metric: str, labels: Sequence[Value], predicted: ModelPredictions, classes: Sequence[Value]
) -> Measured:
    """Return the terms of `metric` for a model's predictions.

    Args:
        task: task of the model.
        metric: any metric but accuracy.
        labels: the true labels, one per row.
        predicted: the predictions of the same rows.
        classes: all values among the labels and the predictions of the models that are compared.

    Raises:
        Unmeasurable: the metric cannot be computed from these predictions.
    """
    if task == "regression":
        return metrics.regression(np.array(labels, dtype=np.float64), numbers(predicted), metric)
    if metric == "log_loss":
        return metrics.log_loss(_likelihood(labels, predicted))
    code = {value: index for index, value in enumerate(classes)}
    truth, coded = (np.array([code[value] for value in values]) for values in (labels, predicted.predictions))
    return metrics.confusion(truth, coded, len(code), metric)


def numbers(predicted: ModelPredictions) -> Floats:
    """Return the predictions of a regression (shape: rows).

    Raises:
        Unmeasurable: some are no finite numbers.
    """
    values = np.array(predicted.predictions, dtype=np.float64)
    if not np.isfinite(values).all():
        raise Unmeasurable(f"{int((~np.isfinite(values)).sum())} of {len(values)} predictions are not finite numbers")
    return values


def _likelihood(labels: Sequence[Value], predicted: ModelPredictions) -> Floats:
    """The probability that the model gave each row's label; zero for a label that the model does not know."""
    if predicted.probabilities is None:
        raise Unmeasurable("the model gives no probabilities")
    if not np.isfinite(predicted.probabilities).all():
        raise Unmeasurable("some probabilities are not finite numbers")
    column = {value: index for index, value in enumerate(predicted.classes)}
    known = np.array([column.get(label, -1) for label in labels])
    picked = predicted.probabilities[np.arange(len(labels)), known]
    return np.asarray(np.where(known >= 0, picked, 0.0))
