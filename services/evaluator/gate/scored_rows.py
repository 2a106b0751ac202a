"""What a model says of the held-out rows, and what a metric makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contracts.events import Task
from contracts.values import Value
from services.evaluator.gate import metrics
from services.evaluator.gate.metrics import Floats, Measured


class Unmeasurable(Exception):
    """A model's answers do not give the metric; the text says why."""


@dataclass(frozen=True)
class ModelPredictions:
    """What a model says of the held-out rows, in their order."""

    predictions: Sequence[Value]
    classes: Sequence[Value] = ()
    probabilities: Floats | None = None
    """Shape (rows, classes); None when the model gives none, or nobody asks."""

    def of(self, rows: Sequence[int]) -> "ModelPredictions":
        """The answers for some of the rows."""
        probabilities = None if self.probabilities is None else self.probabilities[rows]
        return ModelPredictions([self.predictions[row] for row in rows], self.classes, probabilities)


def hits(labels: Sequence[Value], answers: ModelPredictions) -> npt.NDArray[np.bool_]:
    """Which predictions are right, as booleans."""
    return np.array([label == said for label, said in zip(labels, answers.predictions, strict=True)], dtype=bool)


def measured(
    task: Task, metric: str, labels: Sequence[Value], answers: ModelPredictions, classes: Sequence[Value]
) -> Measured:
    """What `metric` sees of a model's answers.

    Args:
        task: what the model does.
        metric: any but accuracy.
        labels: the truth.
        answers: as many.
        classes: all values among labels and predictions of the models to be compared.

    Raises:
        Unmeasurable: the answers do not give the metric.
    """
    if task == "regression":
        return metrics.regression(np.array(labels, dtype=np.float64), numbers(answers), metric)
    if metric == "log_loss":
        return metrics.log_loss(_likelihood(labels, answers))
    code = {value: index for index, value in enumerate(classes)}
    truth, said = (np.array([code[value] for value in values]) for values in (labels, answers.predictions))
    return metrics.confusion(truth, said, len(code), metric)


def numbers(answers: ModelPredictions) -> Floats:
    """Predictions of a regression.

    Raises:
        Unmeasurable: some are no numbers.
    """
    said = np.array(answers.predictions, dtype=np.float64)
    if not np.isfinite(said).all():
        raise Unmeasurable(f"{int((~np.isfinite(said)).sum())} of {len(said)} predictions are not finite numbers")
    return said


def _likelihood(labels: Sequence[Value], answers: ModelPredictions) -> Floats:
    """The probability each row's true class was given; none for a class the model does not know."""
    if answers.probabilities is None:
        raise Unmeasurable("the model gives no probabilities")
    if not np.isfinite(answers.probabilities).all():
        raise Unmeasurable("some probabilities are not finite numbers")
    column = {value: index for index, value in enumerate(answers.classes)}
    known = np.array([column.get(label, -1) for label in labels])
    picked = answers.probabilities[np.arange(len(labels)), known]
    return np.asarray(np.where(known >= 0, picked, 0.0))
