"""The page about a model that was not approved: the verdict, and Evidently's pictures of the held-out rows.

Evidently is imported inside functions: it takes 280 MB, which no fork server should hold for the few models that are
not approved.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from contracts.events import ModelTrained
from contracts.features import RECENT, Feature
from services.evaluator.jobs.predict import PREDICTION, labelled_rows
from services.evaluator.jobs.requests import ChampionPredictions, ReportRequest, ScoringRequest
from services.evaluator.verdict_page import page

MOST_ROWS = 10_000
MOST_COLUMNS = 30
"""Each column adds a set of pictures: with more columns the page is too large to open."""
PREDICTED = "(prediction)"
"""Column of the predictions: a name that no feature has."""


def report(argument: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write the page of a `ReportRequest`; the result is empty."""
    progress({"step": "report"})
    request = ReportRequest.model_validate(argument)
    caption, pictures = draw(request.candidate, request.champion)
    request.page.write_text(page(request.candidate.trained, request.verdict, pictures, caption))
    return {}


def draw(candidate: ScoringRequest, champion: ChampionPredictions | None) -> tuple[str, str]:
    """Return a caption that says what is compared, and Evidently's HTML.

    Recent rows are compared with older rows if there are both; else the candidate with the champion, if that predicted.
    """
    from evidently import Report
    from evidently.presets import ClassificationPreset, DataDriftPreset, RegressionPreset

    trained, frame = candidate.trained, labelled_rows(candidate)
    current = _with_predictions(frame, trained, candidate.predictions)
    reference = None
    caption = "current = this candidate on its held-out rows"
    if champion and champion.predictions:
        reference = _with_predictions(frame, trained, champion.predictions)
        caption += f", reference = the live version {champion.version} on the same rows"
    presets: list[Any] = [ClassificationPreset() if trained.task == "classification" else RegressionPreset()]
    if RECENT in frame and 0 < frame[RECENT].sum() < len(frame):
        recent = frame[RECENT].astype(bool)
        current, reference = current[recent], current[~recent]
        caption = "current = this candidate on the recent rows, reference = this candidate on the older rows"
        presets.append(DataDriftPreset())
    names = [f for f in trained.features[:MOST_COLUMNS] if _has_values(f.name, current, reference)]
    compared = None if reference is None else _dataset(reference, names, trained)
    snapshot = Report(presets).run(_dataset(current, names, trained), compared)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/evidently.html"
        snapshot.save_html(file)  # a str: with a Path it silently writes nothing
        return caption, Path(file).read_text()


def _with_predictions(frame: pd.DataFrame, trained: ModelTrained, predictions: Path) -> pd.DataFrame:
    """Features, labels and predictions in types that Evidently accepts."""
    columns = {f.name: _known(frame[f.name], f) for f in trained.features[:MOST_COLUMNS]}
    predicted = pd.read_parquet(predictions)[PREDICTION]
    kind: Any = "str" if trained.task == "classification" else "float64"
    labels = {trained.target.name: frame[trained.target.name].astype(kind)}
    return pd.DataFrame(columns | labels | {PREDICTED: predicted.astype(kind)})


def _has_values(name: str, *tables: pd.DataFrame | None) -> bool:
    return all(table is None or bool(table[name].notna().any()) for table in tables)


def _known(values: "pd.Series[Any]", feature: Feature) -> "pd.Series[Any]":
    return values.astype("float64" if feature.is_numeric else "str")


def _dataset(table: pd.DataFrame, features: list[Feature], trained: ModelTrained) -> Any:
    """The table with the role of every column: where Evidently guesses, it takes some for text and ignores some."""
    from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Regression

    target = trained.target.name
    numbers = [f.name for f in features if f.is_numeric]
    others = [f.name for f in features if not f.is_numeric]
    roles: dict[str, Any]
    if trained.task == "classification":
        role: Any = MulticlassClassification(target=target, prediction_labels=PREDICTED)
        if len(trained.classes) == 2:
            positive = str(trained.classes[1])
            role = BinaryClassification(target=target, prediction_labels=PREDICTED, pos_label=positive)
        roles = {"classification": [role]}
        others += [target, PREDICTED]
    else:
        roles = {"regression": [Regression(target=target, prediction=PREDICTED)]}
        numbers += [target, PREDICTED]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=others, **roles)
    sampled = table.sample(min(len(table), MOST_ROWS), random_state=0)
    return Dataset.from_pandas(sampled[numbers + others], data_definition=definition)
