"""The choice of the held-out rows: the same rows are always held out."""

from __future__ import annotations  # pandas' Series takes no parameters at run time

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from contracts.features import RECENT
from services.trainer.jobs.data_schema import Rejected

Mask = npt.NDArray[np.bool_]


def held_out(frame: pd.DataFrame, content: list[str], test: float, by: str | None = None) -> Mask:
    """Return the mask of the rows that are held out from training.

    By default a row's own content decides: it is on the same side in every version, and so are its duplicates.
    With `by`, the newest `test` share of the rows is held out, of base and recent rows alike.

    Args:
        frame: checked rows.
        content: the columns that make a row what it is: features and target.
        test: share of the rows to hold out.
        by: column to order by.

    Raises:
        Rejected: `by` cannot be ordered, or one side would be empty.
    """
    mask = _by_content(frame, content, test)
    if by is not None:
        recent = frame[RECENT].to_numpy() if RECENT in frame else np.zeros(len(frame), dtype=bool)
        times = _times(frame[by], recent)
        for group in (~recent, recent):
            if group.any() and times[group].notna().all():  # live traffic may not carry the column
                mask[group] = _newest(times[group], test)
    if not mask.any() or mask.all():
        side = "held-out" if not mask.any() else "training"
        raise Rejected(f"too few rows: of {len(frame)} none is a {side} row with split.test = {test}")
    return mask


def _by_content(frame: pd.DataFrame, content: list[str], test: float) -> Mask:
    # Neither the order of the columns nor how a number is stored may matter: a gap in another row turns
    # whole numbers into floats.
    plain = pd.DataFrame({name: _plain(frame[name]) for name in sorted(content)})
    hashes = pd.util.hash_pandas_object(plain, index=False).to_numpy()
    return np.asarray(hashes < np.uint64(test * float(2**64)))


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    if pd.api.types.is_string_dtype(values.dtype):
        return values.astype(object)
    return values.astype("float64") + 0.0  # -0.0 is 0.0


def _times(values: pd.Series[Any], recent: Mask) -> pd.Series[Any]:
    if pd.api.types.is_string_dtype(values.dtype) or values.dtype == object:
        values = _dates(values)
    gaps = values.isna().to_numpy() & ~recent
    if gaps.any():
        raise Rejected(f"column {values.name!r}: split.by orders by it, but row {int(gaps.argmax()) + 1} has no value")
    return values


def _dates(values: pd.Series[Any]) -> pd.Series[Any]:
    parsed: pd.Series[Any] = pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")
    wrong = (parsed.isna() & values.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise Rejected(
            f"column {values.name!r}: split.by needs numbers or ISO 8601 dates, "
            f"found {values.iloc[row]!r} in row {row + 1}"
        )
    return parsed


def _newest(times: pd.Series[Any], test: float) -> Mask:
    ordered = times.sort_values()
    first = ordered.iloc[min(round(len(ordered) * (1 - test)), len(ordered) - 1)]
    # Rows of one moment stay together: held out, unless nothing older would be left.
    return np.asarray(times >= first if first > ordered.iloc[0] else times > first)
