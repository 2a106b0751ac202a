"""The estimator of a project, or a sensible default: built, seeded and saved."""

import importlib
import random
import reprlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from contracts.features import Feature

COMPRESSION = 1
"""zlib level 1: trees shrink to a sixth, and every later stage downloads the file."""


class EstimatorMissing(Exception):
    """The project's function is missing or returns no estimator; the text says what was found."""


def enter(project: Path) -> None:
    """Make the project's code importable, without leaving bytecode in its folder."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(project))


def build(name: str, project: Path, task: str) -> Any:
    """Return the unfitted estimator that `module:function` of the project makes.

    Raises:
        EstimatorMissing: there is no such function, or it returns something else.
    """
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.partition(".")[0]:
            raise
        raise EstimatorMissing(f"estimator {name}: the project has no module {module_name!r}") from None
    if not Path(module.__file__ or "").resolve().is_relative_to(project.resolve()):
        raise EstimatorMissing(
            f"estimator {name}: module {module_name!r} is an installed one; give the project's another name"
        )
    function = getattr(module, function_name, None)
    if not callable(function):
        raise EstimatorMissing(f"estimator {name}: there is no function {function_name!r} in module {module_name!r}")
    return _checked(function(), name, task)


def default(task: str, features: Sequence[Feature]) -> Pipeline:
    """Return gradient boosting, which accepts missing values and any scale, with text one-hot encoded."""
    text = [feature.name for feature in features if feature.type == "string"]
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
    boosting = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    columns = ColumnTransformer([("text", encoder, text)], remainder="passthrough", verbose_feature_names_out=False)
    return Pipeline([("columns", columns), ("boosting", boosting())])


def seed_process(seed: int) -> None:
    """Seed the global generators that estimators without a random_state use."""
    random.seed(seed)
    np.random.seed(seed)


def seeded(estimator: Any, seed: int) -> Any:
    """Return the estimator with every random state that is None set to `seed`."""
    open_states = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if name.split("__")[-1] == "random_state" and value is None
    }
    return estimator.set_params(**open_states)


def save(model: Any, path: Path) -> None:
    """Write the fitted model. Two trainings on the same data may give different bytes: a version is not its bytes."""
    joblib.dump(model, path, compress=COMPRESSION)


def _checked(returned: Any, name: str, task: str) -> Any:
    found = f"estimator {name} returned {_described(returned)}"
    missing = [method for method in ("fit", "predict", "get_params") if not callable(getattr(returned, method, None))]
    if isinstance(returned, type) or missing:
        raise EstimatorMissing(f"{found}; a scikit-learn estimator is needed, with fit and predict")
    try:
        fresh = clone(returned)
    except (TypeError, RuntimeError) as error:
        raise EstimatorMissing(f"{found}, which scikit-learn cannot clone: {error}") from None
    if task == "classification" and is_regressor(fresh):
        raise EstimatorMissing(f"{found}, a regressor, but model.yaml says task: classification")
    if task == "regression" and is_classifier(fresh):
        raise EstimatorMissing(f"{found}, a classifier, but model.yaml says task: regression")
    return fresh


def _described(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    kind = type(value).__name__
    if isinstance(value, str | int | float):
        return f"{reprlib.repr(value)} ({kind})"
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
