"""Checks of a table: against the needs of a model project, and against the schema of its first training."""

from __future__ import annotations  # pandas' Series takes no parameters at run time

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from contracts.features import RECENT, Feature, FeatureType
from contracts.model_spec import ModelSpec
from services.trainer.jobs.data_schema import Column, Rejected, Schema

MISSING_RISE = 0.3
"""Largest allowed rise of the share of missing values over that of the first training."""
CATEGORIES = 1000
"""Text columns with more values than this are not watched for unseen ones."""
CONTINUOUS = 50
"""Distinct fractional labels from which a classification target looks like a regression's."""
NAMES: dict[str, str] = {
    "number": "numbers", "integer": "whole numbers", "boolean": "true or false", "string": "text", "empty": "no value",
}  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """Data fit for training: a column per feature, the target, and those that split the rows."""

    frame: pd.DataFrame
    schema: Schema
    warnings: tuple[str, ...]


def check(frame: pd.DataFrame, spec: ModelSpec, schema: Schema | None, min_rows: int) -> Checked:
    """Return the table with the dtypes of `Feature.dtype`, and the schema that it fits.

    Without a schema, the schema is learned from the table.

    Raises:
        Rejected: with every violation found.
    """
    _needs(frame, spec, schema, min_rows)
    warnings: list[str] = []
    labelled = _labelled(frame, spec, schema, warnings)
    columns: list[Column] = []
    violations: list[str] = []
    features = _features(frame, spec, schema, warnings)
    for name in features:
        expected = next((c for c in schema.columns if c.name == name), None) if schema else None
        try:
            columns.append(_column(labelled[name], expected, warnings))
        except Rejected as problem:
            violations += problem.violations
    target, labels = _target(labelled[spec.target], spec, schema, violations)
    if violations or target is None or labels is None:
        raise Rejected(*violations)
    parts = {column.name: _cast(labelled[column.name], column) for column in columns} | {spec.target: labels}
    if spec.split.by:
        parts[spec.split.by] = labelled[spec.split.by]
    if RECENT in frame:
        parts[RECENT] = labelled[RECENT].eq(True)  # a gap is a base row
    conformed = pd.DataFrame(parts).reset_index(drop=True)
    warnings += _duplicates(conformed, [*features, spec.target])
    return Checked(conformed, schema or Schema(columns=tuple(columns), target=target), tuple(warnings))


def features_of(checked: Checked) -> tuple[Feature, ...]:
    """Return the columns as events describe them."""
    return tuple(_with_gaps(column, checked.frame[column.name]) for column in checked.schema.columns)


def _needs(frame: pd.DataFrame, spec: ModelSpec, schema: Schema | None, min_rows: int) -> None:
    found = [str(column) for column in frame.columns if column != RECENT]
    listed = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
    violations = []
    if spec.target not in found:
        violations.append(f"column {spec.target!r}: the target is missing; the columns are {listed}")
    if spec.split.by and spec.split.by not in found:
        violations.append(f"column {spec.split.by!r}: named by split.by but missing; the columns are {listed}")
    violations += [
        f"column {column.name!r}: expected {NAMES[column.type]}, but there is no such column"
        for column in (schema.columns if schema else ())
        if column.name not in found
    ]
    if not set(found) - {spec.target, spec.split.by}:
        violations.append(f"there is no column beside {spec.target!r} to predict it from")
    if len(frame) < min_rows:
        violations.append(f"too few rows: {len(frame)}, at least {min_rows} are needed")
    if violations:
        raise Rejected(*violations)


def _features(frame: pd.DataFrame, spec: ModelSpec, schema: Schema | None, warnings: list[str]) -> list[str]:
    """The columns to learn from; the one that orders the rows and the one that marks them are none."""
    found = [str(column) for column in frame.columns if column not in (spec.target, spec.split.by, RECENT)]
    if schema is None:
        return found
    known = [column.name for column in schema.columns]
    warnings += [f"column {new!r} is new and left out until the project changes" for new in found if new not in known]
    return known


def _labelled(frame: pd.DataFrame, spec: ModelSpec, schema: Schema | None, warnings: list[str]) -> pd.DataFrame:
    missing = frame[spec.target].isna()
    if missing.all():
        raise Rejected(f"column {spec.target!r}: the target has no values at all")
    if missing.mean() > MISSING_RISE:
        raise Rejected(
            f"column {spec.target!r}: {missing.mean():.0%} of the rows have no target, first in {_row(missing)}"
        )
    if missing.any():
        warnings.append(f"column {spec.target!r}: {missing.sum()} rows without a target are left out")
    return frame[~missing]


def _column(values: pd.Series[Any], expected: Column | None, warnings: list[str]) -> Column:
    """Return the description of a column.

    Raises:
        Rejected: it is empty, holds values that no model can use, or other values than at the first training.
    """
    name, kind = str(values.name), kind_of(values)
    wanted = f"expected {NAMES[expected.type]}, " if expected else ""
    if kind == "empty":
        raise Rejected(f"column {name!r}: {wanted}found no value in any of {len(values)} rows")
    if kind not in NAMES:
        raise Rejected(
            f"column {name!r}: found {kind}, e.g. {_example(values)}; a feature is a number, true/false or text"
        )
    if expected and not _fits(values, kind, expected.type):
        raise Rejected(f"column {name!r}: {wanted}found {_misfit(values, kind, expected.type)}")
    if kind in ("number", "integer") and (infinite := _infinite(values)).any():
        raise Rejected(f"column {name!r}: found an infinite value in {_row(infinite)}")
    missing = values.isna()
    if expected and missing.mean() > expected.missing + MISSING_RISE:
        raise Rejected(
            f"column {name!r}: {missing.mean():.0%} of the values are missing, first in {_row(missing)}; "
            f"expected about {expected.missing:.0%}"
        )
    warnings += _oddities(values, kind, expected)
    if expected:
        return expected.model_copy(update={"nullable": expected.nullable or bool(missing.any())})
    categories = _categories(values) if kind == "string" else None
    return Column(
        name=name, type=_feature_type(kind), nullable=bool(missing.any()), missing=missing.mean(), categories=categories
    )


def kind_of(values: pd.Series[Any]) -> str:
    """Return a FeatureType, `empty`, or a description of values that no feature can have."""
    if values.isna().all():
        return "empty"
    inferred = pd.api.types.infer_dtype(
        values.astype(values.cat.categories.dtype) if isinstance(values.dtype, pd.CategoricalDtype) else values,
        skipna=True,
    )
    kinds = {
        "string": "string", "boolean": "boolean", "integer": "integer", "floating": "number", "decimal": "number",
        "mixed-integer-float": "number", "datetime64": "dates", "datetime": "dates", "date": "dates",
        "timedelta64": "durations", "time": "times", "bytes": "bytes",
    }  # fmt: skip
    return kinds.get(inferred, "nested or mixed values")


def _fits(values: pd.Series[Any], kind: str, expected: FeatureType) -> bool:
    if expected == "integer" and kind == "number":
        return not _fractional(values).any()
    return kind == expected or (expected == "number" and kind == "integer")


def _fractional(values: pd.Series[Any]) -> pd.Series[bool]:
    numbers = values.astype("float64")
    return numbers.notna() & (numbers % 1 != 0)


def _infinite(values: pd.Series[Any]) -> pd.Series[bool]:
    return values.astype("float64").abs() == np.inf


def _misfit(values: pd.Series[Any], kind: str, expected: FeatureType) -> str:
    """The values found instead, with an example and its row."""
    if kind == "string" and expected in ("number", "integer"):
        odd = pd.to_numeric(values, errors="coerce").isna() & values.notna()
    elif kind == "number" and expected == "integer":
        odd = _fractional(values)
    else:
        odd = values.notna()
    odd = odd if odd.any() else values.notna()
    return f"{NAMES[kind]}, e.g. {_example(values, odd)}"


def _oddities(values: pd.Series[Any], kind: str, expected: Column | None) -> Iterator[str]:
    if expected and expected.categories is not None:
        unseen = values.notna() & ~values.astype(str).isin(expected.categories)
        if unseen.any():
            count = values[unseen].nunique()
            others = f" and {count - 1} other values were" if count > 1 else " was"
            yield f"column {values.name!r}: {_example(values, unseen)}{others} not there at the first training"
    if expected is None and kind == "string":
        text = pd.to_numeric(values, errors="coerce").isna() & values.notna()
        count, of = text.sum(), values.notna().sum()
        if 0 < count < 0.1 * of:
            found = _example(values, text)
            yield f"column {values.name!r}: taken as text because of {count} of {of} values, e.g. {found}"
    if expected is None and values.isna().mean() > 0.5:
        yield f"column {values.name!r}: {values.isna().mean():.0%} of the values are missing"


def _target(
    values: pd.Series[Any], spec: ModelSpec, schema: Schema | None, violations: list[str]
) -> tuple[Feature | None, pd.Series[Any] | None]:
    kind, name = kind_of(values), spec.target
    if spec.task == "classification" and kind == "number" and not _fractional(values).any():
        kind = "integer"  # whole labels that a gap in a CSV made floats
    if spec.task == "regression" and kind == "integer":
        kind = "number"
    expected = schema.target.type if schema else None
    problem = _target_problem(values, kind, expected, spec)
    if problem:
        violations.append(f"column {name!r}: {problem}")
        return None, None
    feature = Feature(name=name, type=_feature_type(expected or kind))
    return feature, _cast(values, feature)


def _target_problem(values: pd.Series[Any], kind: str, expected: FeatureType | None, spec: ModelSpec) -> str | None:
    if kind not in NAMES:
        return f"the target holds {kind}, e.g. {_example(values)}"
    if expected and not _fits(values, kind, expected):
        return f"expected {NAMES[expected]}, found {_misfit(values, kind, expected)}"
    if spec.task == "regression":
        if kind != "number":
            return f"a regression predicts numbers, found {_misfit(values, kind, 'number')}"
        infinite = _infinite(values)
        return f"found an infinite value in {_row(infinite)}" if infinite.any() else None
    if values.nunique() < 2:
        return f"all rows have the same label, {_example(values)}; a classifier needs at least two"
    if kind == "number" and values.nunique() > CONTINUOUS:
        return f"{values.nunique()} different fractional numbers, e.g. {_example(values)}; is this `task: regression`?"
    return None


def _cast(values: pd.Series[Any], feature: Feature) -> pd.Series[Any]:
    return values.astype(_with_gaps(feature, values).dtype)


def _with_gaps(feature: Feature, values: pd.Series[Any]) -> Feature:
    """The feature as events describe it: a gap seen now makes it nullable from now on."""
    nullable = feature.nullable or bool(values.isna().any())
    return Feature(name=feature.name, type=feature.type, nullable=nullable)


def _duplicates(frame: pd.DataFrame, content: list[str]) -> list[str]:
    repeated = frame.duplicated(subset=content)
    if not repeated.any():
        return []
    return [f"{repeated.sum()} rows repeat another one, first {_row(repeated)}"]


def _feature_type(kind: str) -> FeatureType:
    match kind:
        case "number" | "integer" | "boolean" | "string":
            return kind
    raise ValueError(kind)


def _categories(values: pd.Series[Any]) -> tuple[str, ...] | None:
    found = values.dropna().astype(str).unique()
    return tuple(sorted(found)) if len(found) <= CATEGORIES else None


def _example(values: pd.Series[Any], which: pd.Series[bool] | None = None) -> str:
    """`'abc' in row 3`: the first of `which` (default: that has a value)."""
    chosen = values.notna() if which is None else which
    value = values[chosen].iloc[0]
    shown = repr(value.item() if hasattr(value, "item") else value)
    return f"{shown if len(shown) <= 60 else shown[:60] + '…'} in {_row(chosen)}"


def _row(which: pd.Series[Any]) -> str:
    """The first row of `which`; rows count from 1, a header is not one. The index is the position in the table."""
    return f"row {int(which.index[which.to_numpy()][0]) + 1}"
