"""Jobs of the trainer, each run in a child process: read and check the data, run the project's tests, train.

Each function takes JSON and a callable that reports progress, and returns JSON. Frames and models go through files.
"""

from __future__ import annotations  # pandas' Series takes no parameters at run time

import contextlib
import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contracts.features import RECENT, RECENT_ROWS, Feature
from contracts.model_spec import ModelSpec
from services.trainer.jobs import estimators, holdout, metrics, profiling, validation
from services.trainer.jobs.data_schema import Rejected, Schema
from services.trainer.jobs.reading import download, read

Progress = Callable[[dict[str, Any]], None]
HEARTBEAT_SECONDS = 1.0
"""Time between two progress reports of a long fit."""
OUTPUT_TAIL = 4000
"""Characters of pytest's output that are kept."""
PYTEST = ("-q", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--no-header", "--color=no")
"""pytest leaves no cache in the folder and does no full garbage collections, which take longer than most tests."""


def prepare(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Read the data, check it, hold rows out, write `data.parquet`, `train.parquet` and `test.parquet`.

    Args:
        argument: `location`, `name` (the dataset, for messages), `spec`, `schema` (null: learn it), `min_rows`,
            `scratch` (folder).
        progress: called with each step.

    Returns: `violations`; or `schema`, `features`, `target`, `columns` (profiles), `reference_rows`, `rows`,
        `held_out`, `warnings`.
    """
    spec, scratch = ModelSpec.model_validate(argument["spec"]), Path(argument["scratch"])
    schema = Schema.model_validate(argument["schema"]) if argument["schema"] else None
    try:
        _report(progress, "read", dataset=argument["name"])
        frame = read(argument["location"], argument["name"])
        _report(progress, "check", rows=len(frame))
        checked = validation.check(frame, spec, schema, argument["min_rows"])
        content = [column.name for column in checked.schema.columns] + [spec.target]
        held_out = holdout.held_out(checked.frame, content, spec.split.test, spec.split.by)
        _enough_labels(checked.frame[spec.target][~held_out], spec)
    except Rejected as problem:
        return {"violations": list(problem.violations)}
    return _write(checked, held_out, scratch)


def fetch(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Download the remote dataset at `location` into `scratch`; return its `path`."""
    _report(progress, "read", dataset=argument["location"])
    path = Path(argument["scratch"]) / "remote"
    download(argument["location"], path)
    return {"path": str(path)}


def tests(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Run the tests of `project` in a copy under `scratch`; return `passed` and the end of the `output`.

    `packages` is the folder that pytest is installed in.
    """
    _report(progress, "tests")
    project = _enter(argument, "tests")
    os.environ.setdefault("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # An environment with extra requirements holds the packages of serving, and pytest is not one of them.
    sys.path.append(argument["packages"])
    import pytest

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main([*PYTEST, f"--rootdir={project}", "-c", str(_pytest_config(project)), "tests"])
    passed = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    return {"passed": passed, "output": output.getvalue().strip()[-OUTPUT_TAIL:]}


def fit(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train on `train.parquet`, measure on `test.parquet`, write `model.joblib`.

    Args:
        argument: `project` (folder), `scratch` (folder), `spec`, `features`.
        progress: called with each step, and once a second during the fit.

    Returns: `metrics`, `classes`, `prediction` (profile of the predictions), `seconds` (of the fit).
    """
    spec, scratch = ModelSpec.model_validate(argument["spec"]), Path(argument["scratch"])
    features = [Feature.model_validate(feature) for feature in argument["features"]]
    train, test = pd.read_parquet(scratch / "train.parquet"), pd.read_parquet(scratch / "test.parquet")
    names = [feature.name for feature in features]
    started = time.monotonic()
    with _heartbeat(progress, started):
        project = _enter(argument, "fit")
        estimators.seed_process(spec.seed)
        if spec.estimator:
            unfitted = estimators.build(spec.estimator, project, spec.task)
        else:
            unfitted = estimators.default(spec.task, features)
        model = estimators.seeded(unfitted, spec.seed)
        model.fit(train[names], _labels(train[spec.target]))
    seconds = time.monotonic() - started
    _report(progress, "save", seconds=round(seconds, 3))
    estimators.save(model, scratch / "model.joblib")
    return {**_scores(model, test, names, spec), "seconds": seconds}


def _scores(model: Any, test: pd.DataFrame, names: list[str], spec: ModelSpec) -> dict[str, Any]:
    predicted = np.asarray(model.predict(test[names]))
    if predicted.shape != (len(test),):
        raise ValueError(f"the estimator predicted the shape {predicted.shape} for {len(test)} rows")
    truth = _labels(test[spec.target])
    classes = list(model.classes_) if spec.task == "classification" else []
    probabilities = model.predict_proba(test[names]) if classes and hasattr(model, "predict_proba") else None
    prediction = Feature(name="prediction", type="number" if spec.task == "regression" else "string")
    reference = _reference(test)
    return {
        "metrics": metrics.score(spec.task, truth, predicted, probabilities, classes),
        "classes": [_plain(label) for label in classes],
        "prediction": profiling.profile(prediction, pd.Series(predicted[reference])).model_dump(),
    }


def _pytest_config(project: Path) -> Path:
    """The project's own configuration, or an empty one: pytest must not search the folders above."""
    for name in ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg"):
        if (project / name).exists():
            return project / name
    (project / "pytest.ini").write_text("[pytest]\n")
    return project / "pytest.ini"


def _write(checked: validation.Checked, held_out: holdout.Mask, scratch: Path) -> dict[str, Any]:
    frame = checked.frame
    train, test = frame[~held_out], frame[held_out]
    for name, rows in (("data", frame), ("train", train), ("test", test)):
        rows.to_parquet(scratch / f"{name}.parquet", index=False)
    features = validation.features_of(checked)
    expected = train[_reference(train)]
    counted = [profiling.profile(feature, expected[feature.name]) for feature in features]
    return {
        "schema": checked.schema.model_dump(),
        "features": [feature.model_dump() for feature in features],
        "target": checked.schema.target.model_dump(),
        "columns": [column.model_dump() for column in counted],
        "reference_rows": len(expected),
        "rows": len(frame),
        "held_out": len(test),
        "warnings": list(checked.warnings),
    }


def _reference(rows: pd.DataFrame) -> holdout.Mask:
    """Mask of the rows that future rows are expected to resemble: the recent ones when there are enough, else all."""
    recent = rows[RECENT].to_numpy(dtype=bool) if RECENT in rows else np.zeros(len(rows), dtype=bool)
    return recent if recent.sum() >= RECENT_ROWS else np.ones(len(rows), dtype=bool)


def _enough_labels(labels: pd.Series[Any], spec: ModelSpec) -> None:
    if spec.task == "classification" and labels.nunique() < 2:
        raise Rejected(f"column {spec.target!r}: the training rows have only the label {labels.iloc[0]!r}")


def _labels(values: pd.Series[Any]) -> Any:
    """The labels as a plain array: text as Python strings, which every estimator accepts."""
    return values.to_numpy(dtype=object) if pd.api.types.is_string_dtype(values.dtype) else values.to_numpy()


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label


def _enter(argument: dict[str, Any], purpose: str) -> Path:
    """Change into a copy of the project: the original is shared, and a project's code may write into its own folder."""
    project = Path(argument["scratch"]) / purpose
    shutil.copytree(argument["project"], project)
    os.chdir(project)
    os.environ.update(argument["spec"]["env"])
    estimators.enter(project)
    return project


@contextlib.contextmanager
def _heartbeat(progress: Progress, started: float) -> Iterator[None]:
    """Report once a second that the fit still runs; scikit-learn itself reports no progress."""
    over = threading.Event()

    def report() -> None:
        _report(progress, "fit")
        while not over.wait(HEARTBEAT_SECONDS):
            _report(progress, "fit", seconds=round(time.monotonic() - started, 1))

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _report(progress: Progress, step: str, **more: Any) -> None:
    progress({"step": step, **more})
