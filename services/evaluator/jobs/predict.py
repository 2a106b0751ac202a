"""Predictions for held-out rows. Of the evaluator, only this module loads models; `judge_candidate` calls it, too."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from contracts.events import ModelTrained
from contracts.model_spec import ModelSpec, parse
from contracts.values import Value
from services.evaluator.gate.scored_rows import ModelPredictions
from services.evaluator.jobs.requests import PredictionResult, ScoringRequest

Progress = Callable[[dict[str, Any]], None]
PREDICTION, PROBABILITY = "prediction", "probability_"


class InvalidPredictions(Exception):
    """The model returns something else than one prediction per row."""


def predict(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Predict held-out rows and write the predictions to a file: `ScoringRequest` in, `PredictionResult` out."""
    request = ScoringRequest.model_validate(argument)
    predictions = predict_rows(request, labelled_rows(request), progress)
    write(predictions, request.predictions)
    return PredictionResult(classes=tuple(predictions.classes)).model_dump(mode="json")


def predict_rows(request: ScoringRequest, rows: pd.DataFrame, progress: Progress) -> ModelPredictions:
    """Return the model's predictions, in the project's own code; probabilities only when the gate needs them."""
    trained = request.trained
    progress({"step": "predict", "rows": len(rows), "predicting": trained.version})
    os.environ.update(spec_of(request.project).env)
    sys.path.insert(0, str(request.project))
    model = joblib.load(request.model)
    inputs = rows[[feature.name for feature in trained.features]]
    predicted = _one_per_row(model.predict(inputs), len(inputs))
    if trained.task == "regression":
        return ModelPredictions(predicted.astype(np.float64).tolist())
    needed = any(condition.metric == "log_loss" for condition in spec_of(request.gate_project).gate.conditions)
    probabilities = _probabilities(model, inputs) if needed else None
    return ModelPredictions(predicted.tolist(), _classes(model, trained), probabilities)


def labelled_rows(request: ScoringRequest) -> pd.DataFrame:
    """Return the held-out rows that have a label."""
    rows = pd.read_parquet(request.test)
    return rows[rows[request.trained.target.name].notna()].reset_index(drop=True)


def spec_of(project: Path) -> ModelSpec:
    """Return the spec in a project's folder."""
    return parse((project / "model.yaml").read_text())


def write(predictions: ModelPredictions, file: Path) -> None:
    """Write predictions, and probabilities if there are any, as a Parquet file with a row per held-out row."""
    columns: dict[str, Any] = {PREDICTION: predictions.predictions}
    if predictions.probabilities is not None:
        columns |= {f"{PROBABILITY}{index}": column for index, column in enumerate(predictions.probabilities.T)}
    pd.DataFrame(columns).to_parquet(file)


def read(file: Path, classes: tuple[Value, ...]) -> ModelPredictions:
    """Read what `write` wrote."""
    table = pd.read_parquet(file)
    names = [name for name in table.columns if name.startswith(PROBABILITY)]
    probabilities = table[names].to_numpy() if names else None
    return ModelPredictions(table[PREDICTION].tolist(), classes, probabilities)


def _one_per_row(predicted: Any, rows: int) -> Any:
    predicted = np.asarray(predicted)
    if predicted.size != rows:
        raise InvalidPredictions(
            f"predict gave an array of shape {predicted.shape} for {rows} rows; one prediction per row is needed"
        )
    return predicted.reshape(rows)


def _classes(model: Any, trained: ModelTrained) -> tuple[Any, ...]:
    return tuple(np.asarray(model.classes_).tolist()) if hasattr(model, "classes_") else trained.classes


def _probabilities(model: Any, rows: pd.DataFrame) -> Any:
    return np.asarray(model.predict_proba(rows), dtype=np.float64) if hasattr(model, "predict_proba") else None
