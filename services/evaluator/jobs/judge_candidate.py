"""Judging a candidate from predictions: its own, and those of the live version.

`judge` loads the candidate and predicts in the same process, which saves the start of a second one.
`judge_predictions` needs no model.
"""

from typing import Any

import pandas as pd

from contracts.features import RECENT, RECENT_ROWS
from contracts.model_spec import ModelSpec
from services.evaluator.gate import evidence
from services.evaluator.gate import judge as gate
from services.evaluator.gate.scored_rows import ModelPredictions
from services.evaluator.jobs.predict import Progress, labelled_rows, predict_rows, read, spec_of, write
from services.evaluator.jobs.requests import ChampionPredictions, JudgementRequest, JudgementResult, ScoringRequest


def judge(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Predict the held-out rows with the candidate and judge it: `JudgementRequest` in, `JudgementResult` out.

    The predictions of a candidate that does not pass are written to the file of its request, for the report.
    """
    request = JudgementRequest.model_validate(argument)
    candidate, spec = request.candidate, spec_of(request.candidate.gate_project)
    rows = labelled_rows(candidate)
    predictions = predict_rows(candidate, rows, progress)
    progress({"step": "judge", "rows": len(rows), "conditions": len(spec.gate.conditions)})
    result = judge_predictions(candidate, spec, rows, predictions, request.champion)
    if result.verdict.outcome != "pass":
        write(predictions, candidate.predictions)
    return result.model_dump(mode="json")


def judge_predictions(
    candidate: ScoringRequest,
    spec: ModelSpec,
    rows: pd.DataFrame,
    predictions: ModelPredictions,
    champion: ChampionPredictions | None,
) -> JudgementResult:
    """Return the verdict, and the probe, performance target and profile of an approval.

    Target and profile come from the recent rows when there are enough of them: future rows are like those.
    """
    trained = candidate.trained
    labels = rows[trained.target.name].tolist()
    recent = rows[RECENT].fillna(False).astype(bool).tolist() if RECENT in rows else None
    verdict = gate.judge(trained.task, spec.gate, labels, predictions, _champion(champion), recent)
    expected = gate.groups(len(labels), recent).get("recent", [])
    expected = expected if len(expected) >= RECENT_ROWS else list(range(len(labels)))
    newest = predictions.select(expected)
    return JudgementResult(
        verdict=verdict,
        probe=evidence.probe(rows, trained.features, predictions),
        promise=evidence.performance_target(trained.task, spec.monitor, [labels[row] for row in expected], newest),
        prediction=evidence.recount(trained.profile.prediction, newest.predictions),
    )


def _champion(champion: ChampionPredictions | None) -> gate.Champion | None:
    if champion is None:
        return None
    predictions = read(champion.predictions, champion.classes) if champion.predictions else None
    return gate.Champion(champion.version, predictions, champion.reason)
