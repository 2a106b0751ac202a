"""A packaged model (contracts.packaged_model): load it, and predict with it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from contracts.events import Task
from contracts.features import Feature
from contracts.packaged_model import FILE, MODEL_FILE, PROJECT_FOLDER, Manifest
from contracts.values import Value
from serving.dataframe import FrameBuilder
from serving.prediction_request import Row


@dataclass(frozen=True)
class ModelOutput:
    """Predictions of a model, one entry per row; `probabilities` has one number per class."""

    prediction: list[Value]
    probabilities: list[list[float]] | None = None

    def part(self, start: int, stop: int) -> "ModelOutput":
        """Return the output for rows start … stop - 1."""
        probabilities = self.probabilities[start:stop] if self.probabilities is not None else None
        return ModelOutput(self.prediction[start:stop], probabilities)


class WrongPredictionCount(Exception):
    """The estimator did not return one prediction per row."""


class Model:
    """An estimator that takes rows and returns predictions in the label's own type."""

    def __init__(self, manifest: Manifest, estimator: Any) -> None:
        self.manifest = manifest
        self._estimator = estimator
        self._frames = FrameBuilder(manifest.features)
        # hasattr is false for regressors, and for classifiers configured without probabilities.
        self._has_probabilities = manifest.task == "classification" and hasattr(estimator, "predict_proba")
        self._classes = _classes_by_probability(estimator) if self._has_probabilities else None

    def predict(self, rows: Sequence[Row]) -> ModelOutput:
        """Return predictions for validated rows.

        Raises:
            WrongPredictionCount: not one prediction per row.
            Exception: any exception of the estimator, which is the project's own code.
        """
        frame = self._frames.build(rows)
        probabilities = np.asarray(self._estimator.predict_proba(frame)) if self._has_probabilities else None
        if probabilities is not None and self._classes is not None:
            predicted = self._classes.take(probabilities.argmax(axis=1))
        else:
            predicted = np.asarray(self._estimator.predict(frame))
        if len(predicted) != len(rows) or (probabilities is not None and len(probabilities) != len(rows)):
            raise WrongPredictionCount(f"the model returned {len(predicted)} predictions for {len(rows)} rows")
        native = native_labels(predicted, self.manifest.target, self.manifest.task)
        return ModelOutput(native, probabilities.tolist() if probabilities is not None else None)


def load(folder: Path) -> Model:
    """Load the packaged model in `folder`. This runs the project's code, so it is only for approved models.

    Raises:
        OSError, ValidationError, or an exception of unpickling: the folder has no packaged model.
    """
    manifest = Manifest.model_validate_json((folder / FILE).read_bytes())
    sys.path.insert(0, str(folder / PROJECT_FOLDER))
    return Model(manifest, joblib.load(folder / MODEL_FILE))


def native_labels(predicted: "np.ndarray[Any, Any]", target: Feature, task: Task) -> list[Value]:
    """Return predictions in the label's own type: an integer stays an integer, whatever dtype numpy gave it."""
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
    """Return the classes when `predict` is by definition the most probable of them, so that one call gives both.

    That is true of scikit-learn's forests, not of an SVC or a tuned threshold. The class is compared by name, so that
    nothing is imported for it.
    """
    is_pipeline = type(estimator).__qualname__ == "Pipeline" and hasattr(estimator, "steps")
    last = estimator.steps[-1][1] if is_pipeline else estimator
    method = type(last).predict
    is_forest = method.__module__ == "sklearn.ensemble._forest" and method.__qualname__ == "ForestClassifier.predict"
    classes = getattr(last, "classes_", None)
    return classes if is_forest and isinstance(classes, np.ndarray) else None
