"""What runs in children, in the environment a model was trained in: asking it, judging it, storing it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from contracts.events import ModelApproved, ModelTrained
from contracts.features import RECENT, RECENT_ROWS
from contracts.model_spec import ModelSpec, parse
from contracts.packaged_model import Manifest
from services.evaluator import domain
from services.evaluator.domain import ChampionPredictions, JudgementResult, ScoringRequest
from services.evaluator.gate import evidence
from services.evaluator.gate import judge as gate
from services.evaluator.gate.scored_rows import ModelPredictions
from services.storage import model_store

Progress = Callable[[dict[str, Any]], None]
PREDICTION, PROBABILITY = "prediction", "probability_"


class InvalidPredictions(Exception):
    """The model answers something else than one prediction per row."""


def answer(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Ask a model about held-out rows; its answers go to a file.

    Args:
        argument: an `ScoringRequest`.
        progress: told what is being done.

    Returns: `classes`, the labels in the order of the probabilities.
    """
    asked = ScoringRequest.model_validate(argument)
    answers = _ask(asked, _labelled(asked), _spec(asked.judged_by), progress)
    _write(answers, asked.answers)
    return {"classes": list(answers.classes)}


def judge(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Ask the candidate about its held-out rows and judge it.

    Args:
        argument: `candidate`, an `ScoringRequest`; `rival`, a `ChampionPredictions` or null.
        progress: told what is being done.

    Returns: a `JudgementResult`.
    """
    asked = ScoringRequest.model_validate(argument["candidate"])
    rival = ChampionPredictions.model_validate(argument["rival"]) if argument["rival"] else None
    trained, spec = asked.trained, _spec(asked.judged_by)
    frame = _labelled(asked)
    answers = _ask(asked, frame, spec, progress)
    progress({"step": "judge", "rows": len(frame), "conditions": len(spec.gate.conditions)})
    labels = frame[trained.target.name].tolist()
    recent = frame[RECENT].fillna(False).astype(bool).tolist() if RECENT in frame else None
    verdict = gate.judge(trained.task, spec.gate, labels, answers, _champion(rival), recent)
    if verdict.outcome != "pass":
        _write(answers, asked.answers)
    rows = gate.groups(len(labels), recent).get("recent", [])
    rows = rows if len(rows) >= RECENT_ROWS else list(range(len(labels)))
    newest = answers.of(rows)
    return JudgementResult(
        verdict=verdict,
        probe=evidence.probe(frame, trained.features, answers),
        promise=evidence.promise(trained.task, spec.monitor, [labels[row] for row in rows], newest),
        prediction=evidence.recount(trained.profile.prediction, newest.predictions),
    ).model_dump(mode="json")


def store(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Put an approved model into the BentoML model store.

    Args:
        argument: `home` (BENTOML_HOME), `approved` (the event), `run`, `metrics`, and the paths `model` and `project`.
        progress: told what is being done.

    Returns: `folder`, where it is.
    """
    event, run = ModelApproved.model_validate(argument["approved"]), argument["run"]
    project = Path(argument["project"])
    progress({"step": "register", "tag": event.tag})
    folder = model_store.save(
        Path(argument["home"]),
        event.tag,
        Path(argument["model"]),
        project,
        Manifest.of(event, run, _spec(project).serve.max_rows),
        domain.labels(event, run),
        domain.metadata(event, argument["metrics"]),
    )
    return {"folder": str(folder)}


def _spec(project: Path) -> ModelSpec:
    return parse((project / "model.yaml").read_text())


def _labelled(asked: ScoringRequest) -> pd.DataFrame:
    frame = pd.read_parquet(asked.test)
    return frame[frame[asked.trained.target.name].notna()].reset_index(drop=True)


def _ask(asked: ScoringRequest, frame: pd.DataFrame, spec: ModelSpec, progress: Progress) -> ModelPredictions:
    """The model's answers on the rows of `frame`, in the project's own code."""
    trained = asked.trained
    progress({"step": "predict", "rows": len(frame), "asked": trained.version})
    sys.path.insert(0, str(asked.project))
    model = joblib.load(asked.model)
    rows = frame[[feature.name for feature in trained.features]]
    said = _flat(model.predict(rows), len(rows))
    if trained.task == "regression":
        return ModelPredictions(said.astype(np.float64).tolist())
    wanted = any(condition.metric == "log_loss" for condition in spec.gate.conditions)
    probabilities = _probabilities(model, rows) if wanted else None
    return ModelPredictions(said.tolist(), _classes(model, trained), probabilities)


def _flat(said: Any, rows: int) -> Any:
    said = np.asarray(said)
    if said.size != rows:
        raise InvalidPredictions(
            f"predict gave an array of shape {said.shape} for {rows} rows; one prediction per row is needed"
        )
    return said.reshape(rows)


def _classes(model: Any, trained: ModelTrained) -> tuple[Any, ...]:
    return tuple(np.asarray(model.classes_).tolist()) if hasattr(model, "classes_") else trained.classes


def _probabilities(model: Any, rows: pd.DataFrame) -> Any:
    return np.asarray(model.predict_proba(rows), dtype=np.float64) if hasattr(model, "predict_proba") else None


def _write(answers: ModelPredictions, path: Path) -> None:
    columns: dict[str, Any] = {PREDICTION: answers.predictions}
    if answers.probabilities is not None:
        columns |= {f"{PROBABILITY}{index}": column for index, column in enumerate(answers.probabilities.T)}
    pd.DataFrame(columns).to_parquet(path)


def _champion(rival: ChampionPredictions | None) -> gate.Champion | None:
    if rival is None:
        return None
    if rival.answers is None:
        return gate.Champion(rival.version, None, rival.why)
    read = pd.read_parquet(rival.answers)
    chances = [name for name in read.columns if name.startswith(PROBABILITY)]
    probabilities = read[chances].to_numpy() if chances else None
    return gate.Champion(rival.version, ModelPredictions(read[PREDICTION].tolist(), rival.classes, probabilities))
