"""Builds the estimator that a project names, or a sensible default, and seeds it."""

import copyreg
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
from sklearn.tree._tree import Tree

from contracts.features import Feature

COMPRESSION = 1
"""zlib: trees shrink to a sixth, and every room after this one moves the file."""


class EstimatorMissing(Exception):
    """What the project's function returned cannot be trained; the text says what it is."""


def enter(project: Path) -> None:
    """Let this process import the project's code, and leave nothing of it behind in the folder."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(project))


def build(name: str, project: Path, task: str) -> Any:
    """The unfitted estimator that `module:function` of the project returns.

    Raises:
        NoEstimator: there is no such function, or it returns something else.
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
    """Gradient boosting, which copes with gaps and any scale; text one-hot encoded."""
    text = [feature.name for feature in features if feature.type == "string"]
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=50, sparse_output=False)
    boosting = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    columns = ColumnTransformer([("text", encoder, text)], remainder="passthrough", verbose_feature_names_out=False)
    return Pipeline([("columns", columns), ("boosting", boosting())])


def seed_process(seed: int) -> None:
    """Seed what estimators without a random_state draw from."""
    random.seed(seed)
    np.random.seed(seed)


def seeded(estimator: Any, seed: int) -> Any:
    """The estimator with every random state it left open set to `seed`."""
    open_states = {
        name: seed
        for name, value in estimator.get_params(deep=True).items()
        if name.split("__")[-1] == "random_state" and value is None
    }
    return estimator.set_params(**open_states)


def save(model: Any, path: Path) -> None:
    """Write the fitted model; the same model gives the same bytes."""
    copyreg.pickle(Tree, _without_rubbish)
    joblib.dump(model, path, compress=COMPRESSION)


def _without_rubbish(tree: Any) -> Any:
    """How to pickle a tree: the bytes between the fields of its nodes hold whatever was in memory before."""
    make, arguments, state = tree.__reduce__()
    nodes = np.zeros(state["nodes"].shape, state["nodes"].dtype)  # zeros_like fills field by field, too
    for field in nodes.dtype.names:
        nodes[field] = state["nodes"][field]
    return make, arguments, {**state, "nodes": nodes}


def _checked(made: Any, name: str, task: str) -> Any:
    found = f"estimator {name} returned {_described(made)}"
    missing = [method for method in ("fit", "predict", "get_params") if not callable(getattr(made, method, None))]
    if isinstance(made, type) or missing:
        raise EstimatorMissing(f"{found}; a scikit-learn estimator is needed, with fit and predict")
    try:
        fresh = clone(made)
    except (TypeError, RuntimeError) as error:
        raise EstimatorMissing(f"{found}, which scikit-learn cannot clone: {error}") from None
    if task == "classification" and is_regressor(fresh):
        raise EstimatorMissing(f"{found}, a regressor, but model.yaml says task: classification")
    if task == "regression" and is_classifier(fresh):
        raise EstimatorMissing(f"{found}, a classifier, but model.yaml says task: regression")
    return fresh


def _described(made: Any) -> str:
    if made is None:
        return "nothing (None)"
    if isinstance(made, type):
        return f"the class {made.__name__} itself"
    kind = type(made).__name__
    if isinstance(made, str | int | float):
        return f"{reprlib.repr(made)} ({kind})"
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
