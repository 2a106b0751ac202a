"""The page on a model that was not approved: the verdict, and Evidently's pictures of the held-out rows.

Runs in a child of its own. Evidently is imported inside, not at the top: it costs 280 MB, which no warm process should
hold for the few models that are not approved.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from contracts.events import ModelTrained
from contracts.features import RECENT, Feature
from contracts.verdicts import Verdict
from services.evaluator.domain import ChampionPredictions, ScoringRequest
from services.evaluator.jobs.judge import PREDICTION
from services.evaluator.verdict_page import page

MOST_ROWS = 10_000
MOST_COLUMNS = 30
"""Each column is another set of pictures: with more the page is too heavy to open."""
SAID = "(prediction)"
"""A name that no feature has."""


def write(argument: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write the page.

    Args:
        argument: `candidate`, a `ScoringRequest` with its answers; `rival`, a `ChampionPredictions` or null;
            `verdict`; `to`, a path.
        progress: told what is being done.
    """
    progress({"step": "report"})
    asked = ScoringRequest.model_validate(argument["candidate"])
    rival = ChampionPredictions.model_validate(argument["rival"]) if argument["rival"] else None
    shown, details = pictures(asked, rival)
    verdict = Verdict.model_validate(argument["verdict"])
    Path(argument["to"]).write_text(page(asked.trained, verdict, details, shown))
    return {}


def pictures(asked: ScoringRequest, rival: ChampionPredictions | None) -> tuple[str, str]:
    """What is compared, and Evidently's HTML.

    The candidate on recent against base rows if there are both, else against the champion, if that was asked.
    """
    from evidently import Report
    from evidently.presets import ClassificationPreset, DataDriftPreset, RegressionPreset

    trained = asked.trained
    frame = pd.read_parquet(asked.test)
    frame = frame[frame[trained.target.name].notna()].reset_index(drop=True)
    current = _answered(frame, trained, asked.answers)
    reference = _answered(frame, trained, rival.answers) if rival and rival.answers else None
    shown = "current = this candidate on its held-out rows"
    if rival and rival.answers:
        shown += f", reference = the live version {rival.version} on the same rows"
    presets: list[Any] = [ClassificationPreset() if trained.task == "classification" else RegressionPreset()]
    if RECENT in frame and 0 < frame[RECENT].sum() < len(frame):
        recent = frame[RECENT].astype(bool)
        current, reference = current[recent], current[~recent]
        shown = "current = this candidate on the recent rows, reference = this candidate on the older rows"
        presets.append(DataDriftPreset())
    names = [f for f in trained.features[:MOST_COLUMNS] if _has_values(f.name, current, reference)]
    compared = None if reference is None else _dataset(reference, names, trained)
    snapshot = Report(presets).run(_dataset(current, names, trained), compared)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/evidently.html"
        snapshot.save_html(file)  # a str: with a Path it silently writes nothing
        return shown, Path(file).read_text()


def _answered(frame: pd.DataFrame, trained: ModelTrained, answers: Path) -> pd.DataFrame:
    """Features, truth and answers in types that Evidently knows."""
    columns = {f.name: _known(frame[f.name], f) for f in trained.features[:MOST_COLUMNS]}
    said = pd.read_parquet(answers)[PREDICTION]
    kind: Any = "str" if trained.task == "classification" else "float64"
    truth = {trained.target.name: frame[trained.target.name].astype(kind)}
    return pd.DataFrame(columns | truth | {SAID: said.astype(kind)})


def _has_values(name: str, *tables: pd.DataFrame | None) -> bool:
    return all(table is None or bool(table[name].notna().any()) for table in tables)


def _known(values: "pd.Series[Any]", feature: Feature) -> "pd.Series[Any]":
    return values.astype("float64" if feature.type in ("number", "integer") else "str")


def _dataset(table: pd.DataFrame, features: list[Feature], trained: ModelTrained) -> Any:
    """With every column's role said: left to guess, Evidently takes some for text and some for nothing."""
    from evidently import BinaryClassification, DataDefinition, Dataset, MulticlassClassification, Regression

    target = trained.target.name
    numbers = [f.name for f in features if f.type in ("number", "integer")]
    others = [f.name for f in features if f.type not in ("number", "integer")]
    roles: dict[str, Any]
    if trained.task == "classification":
        role: Any = MulticlassClassification(target=target, prediction_labels=SAID)
        if len(trained.classes) == 2:
            positive = str(trained.classes[1])
            role = BinaryClassification(target=target, prediction_labels=SAID, pos_label=positive)
        roles = {"classification": [role]}
        others += [target, SAID]
    else:
        roles = {"regression": [Regression(target=target, prediction=SAID)]}
        numbers += [target, SAID]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=others, **roles)
    sampled = table.sample(min(len(table), MOST_ROWS), random_state=0)
    return Dataset.from_pandas(sampled[numbers + others], data_definition=definition)
