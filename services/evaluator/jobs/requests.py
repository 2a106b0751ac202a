"""Typed requests and results of the evaluator's jobs: plain values that worker and child processes share.

Predicting is the part that runs a project's own code. Its outcome is a file of predictions (`ScoringRequest`,
`PredictionResult`), so that judging needs no model.
"""

from pathlib import Path

from contracts.events import ModelApproved, ModelTrained
from contracts.features import Probe
from contracts.profiles import ColumnProfile
from contracts.values import Frozen, Value
from contracts.verdicts import PerformanceTarget, Verdict


class ScoringRequest(Frozen):
    """One model and the held-out rows that it predicts, as files."""

    trained: ModelTrained
    model: Path
    project: Path
    test: Path
    gate_project: Path
    """Folder of the project whose gate is applied: the candidate's."""
    predictions: Path
    """File that the predictions are written to."""


class PredictionResult(Frozen):
    """The outcome of predicting; the predictions themselves are in the request's file."""

    classes: tuple[Value, ...] = ()
    """Labels in the order of the probabilities."""


class ChampionPredictions(Frozen):
    """The live version with its predictions of the same rows, or the reason why there are none."""

    version: str
    predictions: Path | None = None
    classes: tuple[Value, ...] = ()
    reason: str = ""


class JudgementRequest(Frozen):
    """A candidate to predict with and to judge, beside the live version if there is one."""

    candidate: ScoringRequest
    champion: ChampionPredictions | None = None


class JudgementResult(Frozen):
    """The verdict on a candidate, and what an approval of it would carry."""

    verdict: Verdict
    probe: Probe
    promise: PerformanceTarget
    prediction: ColumnProfile


class RegistrationRequest(Frozen):
    """An approved version, to be put into a BentoML model store."""

    home: Path
    """BENTOML_HOME."""
    approved: ModelApproved
    run: str
    metrics: dict[str, float]
    model: Path
    project: Path


class RegistrationResult(Frozen):
    """Folder of the version in the model store."""

    folder: Path


class ReportRequest(Frozen):
    """A judged candidate whose predictions are written, and the file that the page is written to."""

    candidate: ScoringRequest
    champion: ChampionPredictions | None = None
    verdict: Verdict
    page: Path
