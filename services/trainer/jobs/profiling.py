"""Counts of columns in bins: the reference that drift is later measured against."""

from __future__ import annotations  # pandas' Series takes no parameters at run time

from typing import Any

import numpy as np
import pandas as pd

from contracts.features import Feature
from contracts.profiles import ColumnProfile

BINS = 10
CATEGORIES = 50


def profile(feature: Feature, values: pd.Series[Any]) -> ColumnProfile:
    """Count numbers in at most 10 quantile bins, anything else by its 50 most frequent values, as strings."""
    present = values.dropna()
    missing = len(values) - len(present)
    if feature.is_numeric:
        return _numeric(feature.name, present.to_numpy(dtype="float64"), missing)
    return _categorical(feature.name, present, missing)


def _numeric(name: str, values: Any, missing: int) -> ColumnProfile:
    if not len(values):
        return ColumnProfile(name=name, edges=(), counts=(0,), missing=missing)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return ColumnProfile(name=name, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), missing=missing)


def _categorical(name: str, values: pd.Series[Any], missing: int) -> ColumnProfile:
    found = values.map(str).value_counts()
    # Ties in a fixed order, so that the same rows give the same profile.
    ranked = sorted(found.items(), key=lambda item: (-item[1], str(item[0])))
    top, rest = ranked[:CATEGORIES], ranked[CATEGORIES:]
    return ColumnProfile(
        name=name,
        categories=tuple(str(value) for value, _ in top),
        counts=tuple(int(count) for _, count in top),
        other=int(sum(count for _, count in rest)),
        missing=missing,
    )
