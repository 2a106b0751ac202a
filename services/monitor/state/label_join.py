"""The join of labels with predictions by id: labels may come early, late, repeated or in any order.

Memory is bounded. The rows themselves stay on the bus; only the position of each row is kept (the stream sequence of
its message, and the row's index in it).
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Fields = tuple[tuple[str, str], ...]

PREDICTION_FIELDS: Fields = (("key", "<u8"), ("value", "<f8"), ("sequence", "<i8"), ("row", "<i4"), ("known", "|b1"))
"""Columns of `RecentPredictions`, as they are saved; `known` is true once the label has come."""
LABELLED_FIELDS: Fields = (
    ("sequence", "<i8"), ("row", "<i4"), ("label_sequence", "<i8"), ("label_row", "<i4"),
    ("label", "<f8"), ("error", "|b1"), ("time", "<f8"),
)  # fmt: skip
"""Columns of `PerformanceTracker`, as they are saved."""


class ReceivedLabel(NamedTuple):
    """A label as a number, its position on the bus and its time."""

    value: float
    sequence: int
    row: int
    time: float


class RowPositions(NamedTuple):
    """Positions of rows on the bus: sequence and index of each prediction, and of its label when there is one."""

    sequence: NDArray[np.int64]
    row: NDArray[np.int32]
    label_sequence: NDArray[np.int64] | None = None
    label_row: NDArray[np.int32] | None = None


def key_of(id: str) -> int:
    """Hash a prediction id to 64 bits."""
    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "big")


def keys_of(ids: list[str]) -> list[int]:
    """Hash a list of prediction ids."""
    digests = b"".join([blake2b(id.encode(), digest_size=8).digest() for id in ids])
    keys: list[int] = np.frombuffer(digests, dtype=">u8").tolist()
    return keys


@lru_cache(maxsize=4096)
def encode_value(value: Any) -> float:
    """Turn a label or prediction into a number, so that equal values have equal numbers.

    "3", 3 and 3.0 are equal; any other text becomes 52 bits of its hash; None becomes NaN.
    """
    if value is None:
        return float("nan")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        return number if np.isfinite(number) else float(key_of(value) >> 12)
    return float(value)


def encode_values(values: list[Any]) -> NDArray[np.float64]:
    """Turn a list of labels or predictions into numbers."""
    # numpy is never given texts: an array of texts takes, for every row, the memory of the longest of them.
    if set(map(type, values)) <= {int, float, bool}:
        return np.array(values, dtype=np.float64)
    return np.array([encode_value(value) for value in values], dtype=np.float64)


class RingBuffer:
    """The last `capacity` rows of a table, stored by column. Rows are numbered from 0 in the order of `append`."""

    def __init__(self, fields: Fields, capacity: int) -> None:
        self.capacity, self.total = capacity, 0
        self._columns: dict[str, Array] = {name: np.zeros(0, dtype=dtype) for name, dtype in fields}

    @property
    def first(self) -> int:
        """Number of the oldest row that is still stored."""
        return max(0, self.total - self.capacity)

    def append(self, **columns: Any) -> None:
        """Add rows. All columns have the same number of entries, at most `capacity`."""
        count = len(next(iter(columns.values())))
        self._grow(self.total + count)
        slots = np.arange(self.total, self.total + count) % self.capacity
        for name, values in columns.items():
            self._columns[name][slots] = values
        self.total += count

    def _grow(self, rows: int) -> None:
        """Grow by doubling, so that a version with little traffic does not take the memory of the full capacity."""
        size = len(next(iter(self._columns.values())))
        more = min(self.capacity, max(rows, 2 * size)) - size
        if rows > size and more:
            for name, values in self._columns.items():
                self._columns[name] = np.concatenate((values, np.zeros(more, values.dtype)))

    def get(self, name: str, number: int) -> Any:
        """Return one entry of row `number`."""
        return self._columns[name][number % self.capacity]

    def set(self, name: str, number: int, value: Any) -> None:
        """Replace one entry of row `number`."""
        self._columns[name][number % self.capacity] = value

    def column(self, name: str, since: int = 0) -> Array:
        """Return a column's entries from row number `since` on, oldest first."""
        start, end = max(since, self.first), self.total
        values, slot = self._columns[name], start % self.capacity
        if slot + end - start <= self.capacity:
            return values[slot : slot + end - start].copy()
        return np.concatenate((values[slot:], values[: end % self.capacity]))

    def dump(self) -> dict[str, Any]:
        return {"total": self.total, "columns": {name: self.column(name) for name in self._columns}}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `dump` returned; the capacity may differ."""
        columns = {name: state["columns"][name][-self.capacity :] for name in self._columns}
        self.total = state["total"] - len(next(iter(columns.values())))
        self.append(**columns)


class RecentPredictions:
    """Recent predictions of one version, to be found by id. Beyond the capacity, the oldest are dropped."""

    def __init__(self, capacity: int) -> None:
        self.rows = RingBuffer(PREDICTION_FIELDS, capacity)
        self._numbers: dict[int, int] = {}

    def unseen(self, keys: list[int]) -> list[int]:
        """Return the indices in `keys` of predictions that are not stored yet, each key once."""
        if len(set(keys)) == len(keys) and self._numbers.keys().isdisjoint(keys):
            return list(range(len(keys)))
        first: dict[int, int] = {}
        for index, key in enumerate(keys):
            first.setdefault(key, index)
        return [index for key, index in first.items() if key not in self._numbers]

    def add(self, keys: list[int], values: Array, sequences: Array, rows: Array) -> None:
        """Store predictions: keys, encoded values, and positions on the bus."""
        for start in range(0, len(keys), self.rows.capacity):
            part = slice(start, start + self.rows.capacity)
            self._add(keys[part], values[part], sequences[part], rows[part])

    def _add(self, keys: list[int], values: Array, sequences: Array, rows: Array) -> None:
        stored, before = self.rows, self.rows.total
        leaving = max(0, before + len(keys) - stored.capacity) - stored.first
        if leaving > 0:
            for key in stored.column("key")[:leaving].tolist():
                self._numbers.pop(key, None)
        known = np.zeros(len(keys), dtype=bool)
        stored.append(key=np.array(keys, dtype="<u8"), value=values, sequence=sequences, row=rows, known=known)
        self._numbers.update(zip(keys, range(before, stored.total), strict=True))

    def find(self, key: int) -> int | None:
        """Return the row number of the prediction with this key, or None."""
        return self._numbers.get(key)

    def coverage(self) -> float:
        """Return the share of stored predictions with a label, among those up to the newest one with a label."""
        known = self.rows.column("known")
        labelled = np.nonzero(known)[0]
        return float(len(labelled) / (labelled[-1] + 1)) if len(labelled) else 0.0

    def load(self, state: dict[str, Any]) -> None:
        self.rows.load(state)
        keys = self.rows.column("key").tolist()
        self._numbers = dict(zip(keys, range(self.rows.first, self.rows.total), strict=True))


class UnmatchedLabels:
    """Labels whose prediction has not arrived yet. Beyond the capacity, the oldest are dropped."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._labels, self.dropped = capacity, dict[int, ReceivedLabel](), 0

    @property
    def count(self) -> int:
        """Number of labels without a known prediction, including dropped ones."""
        return len(self._labels) + self.dropped

    def add(self, key: int, label: ReceivedLabel) -> None:
        """Store a label; of several for one prediction, the first counts."""
        if key in self._labels:
            return
        self._labels[key] = label
        if len(self._labels) > self._capacity:
            del self._labels[next(iter(self._labels))]
            self.dropped += 1

    def pop(self, keys: list[int]) -> list[tuple[int, ReceivedLabel]]:
        """Remove and return the labels of these predictions."""
        if not self._labels:
            return []
        found = self._labels.keys() & keys
        return [(key, self._labels.pop(key)) for key in keys if key in found and key in self._labels]

    def dump(self) -> dict[str, Any]:
        labels = list(self._labels.values())
        columns = {
            name: np.array([getattr(label, name) for label in labels], dtype=dtype)
            for name, dtype in (("value", "<f8"), ("sequence", "<i8"), ("row", "<i4"), ("time", "<f8"))
        }
        return {"dropped": self.dropped, "keys": np.array(list(self._labels), dtype="<u8"), **columns}

    def load(self, state: dict[str, Any]) -> None:
        self.dropped = state["dropped"]
        columns = [state[name].tolist() for name in ReceivedLabel._fields]
        labels = (ReceivedLabel(*values) for values in zip(*columns, strict=True))
        self._labels = dict(zip(state["keys"].tolist(), labels, strict=True))
