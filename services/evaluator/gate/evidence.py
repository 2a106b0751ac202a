"""Parts of an approval by which a deployed copy is checked and monitored: probe, performance target, profile."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from contracts.events import Task
from contracts.features import Feature, Probe
from contracts.model_spec import Monitor
from contracts.profiles import ColumnProfile
from contracts.values import Value
from contracts.verdicts import PerformanceTarget
from services.evaluator.gate.scored_rows import ModelPredictions, correct

PROBES = 5
"""Held-out rows that a deployed copy must predict alike."""
PROBES_WITH_GAPS = 2
WITHIN = 0.9
"""Quantile of the held-out absolute errors that becomes the tolerance of a regression's performance target."""


def performance_target(
    task: Task, monitor: Monitor, labels: Sequence[Value], predicted: ModelPredictions
) -> PerformanceTarget:
    """Return the performance that the monitor holds the version to, measured on held-out rows."""
    if task == "classification":
        right, tolerance = correct(labels, predicted), None
    else:
        error = np.abs(np.array(predicted.predictions, dtype=np.float64) - np.array(labels, dtype=np.float64))
        finite = error[np.isfinite(error)]
        tolerance = float(np.quantile(finite, WITHIN, method="higher")) if len(finite) else 0.0
        right = error <= tolerance  # never true of a NaN
    return PerformanceTarget(
        metric="accuracy" if task == "classification" else "within",
        value=float(right.mean()) if len(right) else 0.0,
        tolerance=tolerance,
        **monitor.model_dump(),
    )


def probe_rows(frame: pd.DataFrame, features: Sequence[Feature]) -> list[int]:
    """Return positions of rows that `/predict` accepts: first some with missing values, the rest spread evenly."""
    accepted = np.ones(len(frame), dtype=bool)
    gaps = np.zeros(len(frame), dtype=bool)
    for feature in features:
        missing = frame[feature.name].isna().to_numpy()
        accepted &= ~missing if not feature.nullable else True
        gaps |= missing
        if feature.type == "number":
            accepted &= ~np.isinf(frame[feature.name].to_numpy(dtype=np.float64))
    with_gaps = np.flatnonzero(accepted & gaps)[:PROBES_WITH_GAPS].tolist()
    whole = np.flatnonzero(accepted & ~gaps)
    spread = np.linspace(0, len(whole) - 1, min(len(whole), PROBES - len(with_gaps))).round().astype(int)
    return [*with_gaps, *whole[spread].tolist()]


def probe(frame: pd.DataFrame, features: Sequence[Feature], predicted: ModelPredictions) -> Probe:
    """Return a few held-out rows as `/predict` accepts them, with the predictions expected."""
    rows = probe_rows(frame, features)
    return Probe(
        rows=tuple({f.name: cell(frame[f.name].iloc[row], f) for f in features} for row in rows),
        predictions=tuple(plain(predicted.predictions[row]) for row in rows),
    )


def cell(value: Any, feature: Feature) -> Value:
    """Return a value of the frame for JSON: no numpy, gaps are null, integers are integers even in a float column."""
    if pd.isna(value):
        return None
    if feature.type == "integer":
        return int(value)
    if feature.type == "number":
        return float(value)
    return bool(value) if feature.type == "boolean" else str(value)


def plain(prediction: Value) -> Value:
    """Return a prediction for JSON: a number that is not finite is null."""
    return None if isinstance(prediction, float) and not math.isfinite(prediction) else prediction


def recount(profile: ColumnProfile, predictions: Sequence[Value]) -> ColumnProfile:
    """Return `predictions`, counted into the bins or categories of `profile`."""
    if profile.edges is not None:
        values = np.array(predictions, dtype=np.float64)
        bins = np.searchsorted(profile.edges, values[~np.isnan(values)], side="left")
        counts = np.bincount(bins, minlength=len(profile.edges) + 1)
        return profile.model_copy(
            update={"counts": tuple(counts.tolist()), "missing": int(np.isnan(values).sum()), "other": 0}
        )
    names = list(map(str, predictions))
    found = {category: names.count(category) for category in profile.categories or ()}
    other = len(names) - sum(found.values())
    return profile.model_copy(update={"counts": tuple(found.values()), "missing": 0, "other": other})
