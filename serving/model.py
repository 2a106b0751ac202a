"""A packed model (contracts.packaged_model): loading it, and asking it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import joblib
import numpy as np

from contracts.events import Task
from contracts.features import Feature
from contracts.packaged_model import FILE, MODEL_FILE, PROJECT_FOLDER, Manifest
from contracts.values import Value
from serving.dataframe import Table
from serving.prediction_request import Row


class Estimator(Protocol):
    def predict(self, X: Any, /) -> Any: ...


@dataclass(frozen=True)
class ModelOutput:
    """What a model said, one entry per row."""

    prediction: list[Value]
    probabilities: list[list[float]] | None = None

    def part(self, start: int, stop: int) -> "ModelOutput":
        """The answers of rows start … stop."""
        probabilities = self.probabilities[start:stop] if self.probabilities is not None else None
        return ModelOutput(self.prediction[start:stop], probabilities)


class WrongCount(Exception):
    """The estimator did not give one prediction per row."""


class Model:
    """An estimator that takes rows and answers in the label's own type."""

    def __init__(self, manifest: Manifest, estimator: Estimator) -> None:
        self.manifest = manifest
        self._estimator: Any = estimator
        self._table = Table(manifest.features)
        # For regressors, and for classifiers that were not built to give them, hasattr says no.
        self._gives_probabilities = manifest.task == "classification" and hasattr(estimator, "predict_proba")
        self._classes = _classes_by_probability(estimator) if self._gives_probabilities else None

    def answer(self, rows: Sequence[Row]) -> ModelOutput:
        """Predictions for validated rows.

        Raises:
            WrongCount: not one prediction per row.
            Exception: whatever the estimator raises; it is the project's own code.
        """
        frame = self._table.frame(rows)
        shares = np.asarray(self._estimator.predict_proba(frame)) if self._gives_probabilities else None
        if shares is not None and self._classes is not None:
            predicted = self._classes.take(shares.argmax(axis=1))
        else:
            predicted = np.asarray(self._estimator.predict(frame))
        if len(predicted) != len(rows) or (shares is not None and len(shares) != len(rows)):
            raise WrongCount(f"the model gave {len(predicted)} predictions for {len(rows)} rows")
        native = native_labels(predicted, self.manifest.target, self.manifest.task)
        return ModelOutput(native, shares.tolist() if shares is not None else None)


def load(folder: Path) -> Model:
    """The packed model in `folder`. Runs the project's code: only for what the gate or a person approved.

    Raises:
        OSError, ValidationError, or what unpickling raises: it is no packed model.
    """
    manifest = Manifest.model_validate_json((folder / FILE).read_bytes())
    sys.path.insert(0, str(folder / PROJECT_FOLDER))
    return Model(manifest, joblib.load(folder / MODEL_FILE))


def native_labels(predicted: "np.ndarray[Any, Any]", target: Feature, task: Task) -> list[Value]:
    """Predictions in the label's own type: 3 stays 3, True stays true, whatever numpy made of them."""
    values: list[Any] = predicted.reshape(len(predicted)).tolist() if predicted.size == len(predicted) else []
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if target.type == "boolean":
        return [bool(value) for value in values]
    if target.type == "number":
        return [float(value) for value in values]
    if target.type == "integer" and task == "classification":
        return [int(value) for value in values]
    return values


def _classes_by_probability(estimator: Any) -> "np.ndarray[Any, Any] | None":
    """The classes, when `predict` is by definition the most probable of them: asking once is enough then.

    True of scikit-learn's forests, by name so that nothing is imported for it; not of an SVC, nor of a tuned threshold.
    """
    last = (
        estimator.steps[-1][1]
        if type(estimator).__qualname__ == "Pipeline" and hasattr(estimator, "steps")
        else estimator
    )
    method = type(last).predict
    forest = method.__module__ == "sklearn.ensemble._forest" and method.__qualname__ == "ForestClassifier.predict"
    classes = getattr(last, "classes_", None)
    return classes if forest and isinstance(classes, np.ndarray) else None
