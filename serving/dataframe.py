"""Rows as JSON objects → the frame that the estimator was trained on: same columns, same order, same dtypes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from contracts.features import Feature
from serving.prediction_request import Row


class FrameBuilder:
    """Builds the data frames of one model."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._dtypes = {feature.name: feature.dtype for feature in features}
        self._columns = pd.Index([feature.name for feature in features])
        dtypes = set(self._dtypes.values())
        # One dtype for all columns is the common case, and building such a frame is ten times faster.
        self._shared_dtype = dtypes.pop() if dtypes in ({"float64"}, {"int64"}) else None

    def build(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return the frame (rows, features) of validated rows."""
        if self._shared_dtype:
            values = np.array([[row[name] for name in self._dtypes] for row in rows], dtype=self._shared_dtype)
            return pd.DataFrame(values, columns=self._columns, copy=False)
        columns = {name: pd.Series([row[name] for row in rows], dtype=dtype) for name, dtype in self._dtypes.items()}
        return pd.DataFrame(columns, columns=self._columns, copy=False)
