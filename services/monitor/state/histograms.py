"""Histograms: rows are counted into the bins of the training profile. No other step looks at every single value."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.profiles import ColumnProfile, Profile

Counts = NDArray[np.int64]

MISSING, INVALID = 0, 1
"""The first two cells of every column: rows without a value, and rows whose value is not a number where one belongs."""


class Bins:
    """The bins of all columns of a profile, the predictions last.

    A column's cells are: missing, invalid, then its bins or categories; the last category is "any other".
    """

    def __init__(self, profile: Profile) -> None:
        self._columns = [_Column(column) for column in (*profile.columns, profile.prediction)]
        self.names = tuple(column.name for column in profile.columns)
        self.width = max(column.width for column in self._columns)
        self.reference = self._table([column.reference for column in self._columns])

    def zeros(self) -> Counts:
        """Return counts of no rows, of shape (columns + 1, cells)."""
        return np.zeros_like(self.reference)

    def count(self, columns: dict[str, list[Any]], predictions: list[Any]) -> Counts:
        """Count rows per cell, (columns + 1, cells). An absent column counts as missing in every row."""
        absent = [None] * len(predictions)
        lists = [columns.get(name, absent) for name in self.names] + [predictions]
        return self._table([column.count(values) for column, values in zip(self._columns, lists, strict=True)])

    def _table(self, rows: list[Counts]) -> Counts:
        table = np.zeros((len(rows), self.width), dtype=np.int64)
        for place, cells in enumerate(rows):
            table[place, : len(cells)] = cells
        return table


class _Column:
    def __init__(self, profile: ColumnProfile) -> None:
        self._edges = None if profile.edges is None else np.array(profile.edges, dtype=np.float64)
        self._index = {text: place for place, text in enumerate(profile.categories or ())}
        # JSON and pandas may write 3 or 3.0: both are one category. An exact match with the profile comes first.
        self._index = {_plain(text): place for text, place in self._index.items()} | self._index
        known = len(profile.edges) + 1 if profile.edges is not None else len(profile.categories or ())
        others = [profile.other] if profile.edges is None else []
        counts = (*profile.counts[:known], *(0 for _ in range(known - len(profile.counts))))
        self.reference = np.array([profile.missing, 0, *counts, *others], dtype=np.int64)
        self.width, self._known = len(self.reference), known

    def count(self, values: list[Any]) -> Counts:
        cells = self._numbers(values) if self._edges is not None else self._categories(values)
        return np.bincount(cells, minlength=self.width)

    def _numbers(self, values: list[Any]) -> NDArray[np.intp]:
        assert self._edges is not None
        try:
            numbers = np.array(values, dtype=np.float64)
        except (ValueError, TypeError):
            numbers = np.array([_number(value) for value in values])
        cells = np.searchsorted(self._edges, numbers, side="left") + 2
        no_number = np.isnan(numbers)
        if no_number.any():
            cells[no_number] = [MISSING if values[row] is None else INVALID for row in np.nonzero(no_number)[0]]
        return cells

    def _categories(self, values: list[Any]) -> NDArray[np.intp]:
        if len(set(map(type, values))) > 1:  # as keys of a dict, 1 and True are equal
            return np.array([self._cell(value) for value in values], dtype=np.intp)
        cells = {value: self._cell(value) for value in set(values)}
        return np.array([cells[value] for value in values], dtype=np.intp)

    def _cell(self, value: Any) -> int:
        if value is None:
            return MISSING
        text = value if type(value) is str else str(value)
        place = self._index.get(text)
        if place is None:
            place = self._index.get(_plain(text), self._known)
        return place + 2


def _plain(text: str) -> str:
    return text[:-2] if text.endswith(".0") else text


def _number(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError):
        return float("nan")
