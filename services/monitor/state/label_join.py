"""Labels meet predictions by id: early, late, repeated, out of order. Everything here is bounded.

Rows themselves stay on the bus; what is kept is where each one is (stream sequence and place in its message).
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Fields = tuple[tuple[str, str], ...]

PENDING: Fields = (("key", "<u8"), ("value", "<f8"), ("sequence", "<i8"), ("row", "<i4"), ("known", "|b1"))
LABELLED: Fields = (
    ("sequence", "<i8"), ("row", "<i4"), ("label_sequence", "<i8"), ("label_row", "<i4"),
    ("label", "<f8"), ("error", "|b1"), ("time", "<f8"),
)  # fmt: skip


class ReceivedLabel(NamedTuple):
    """A label and where it came from."""

    value: float
    sequence: int
    row: int
    time: float


class RowPositions(NamedTuple):
    """Where rows stand on the bus: sequence and place of each prediction, and of its label when there is one."""

    sequence: NDArray[np.int64]
    row: NDArray[np.int32]
    label_sequence: NDArray[np.int64] | None = None
    label_row: NDArray[np.int32] | None = None


def key_of(id: str) -> int:
    """64 bits that stand for a prediction id."""
    return int.from_bytes(blake2b(id.encode(), digest_size=8).digest(), "big")


def keys_of(ids: list[str]) -> list[int]:
    """The same for a list."""
    digests = b"".join([blake2b(id.encode(), digest_size=8).digest() for id in ids])
    keys: list[int] = np.frombuffer(digests, dtype=">u8").tolist()
    return keys


@lru_cache(maxsize=4096)
def signature(value: Any) -> float:
    """A number that is equal for equal answers: "3", 3 and 3.0 are one; other text is 52 bits of its hash."""
    if value is None:
        return float("nan")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        return number if np.isfinite(number) else float(key_of(value) >> 12)
    return float(value)


def signatures(values: list[Any]) -> NDArray[np.float64]:
    """The same for a list."""
    # Never an array of texts: it takes as much room per row as the longest of them.
    if set(map(type, values)) <= {int, float, bool}:
        return np.array(values, dtype=np.float64)
    return np.array([signature(value) for value in values], dtype=np.float64)


class Ring:
    """The last `capacity` rows of a table, by column; row numbers go on counting."""

    def __init__(self, fields: Fields, capacity: int) -> None:
        self.capacity, self.total = capacity, 0
        self._columns: dict[str, Array] = {name: np.zeros(0, dtype=dtype) for name, dtype in fields}

    @property
    def first(self) -> int:
        """Number of the oldest row that is still here."""
        return max(0, self.total - self.capacity)

    def append(self, **columns: Any) -> None:
        """Add rows; every column has as many entries, at most `capacity`."""
        count = len(next(iter(columns.values())))
        self._make_room(self.total + count)
        slots = np.arange(self.total, self.total + count) % self.capacity
        for name, values in columns.items():
            self._columns[name][slots] = values
        self.total += count

    def _make_room(self, rows: int) -> None:
        """Grow by doubling: a version with little traffic does not pay for the capacity."""
        room = len(next(iter(self._columns.values())))
        more = min(self.capacity, max(rows, 2 * room)) - room
        if rows > room and more:
            for name, values in self._columns.items():
                self._columns[name] = np.concatenate((values, np.zeros(more, values.dtype)))

    def at(self, name: str, number: int) -> Any:
        return self._columns[name][number % self.capacity]

    def put(self, name: str, number: int, value: Any) -> None:
        self._columns[name][number % self.capacity] = value

    def column(self, name: str, since: int = 0) -> Array:
        """A column's entries from row number `since` on, oldest first."""
        start, end = max(since, self.first), self.total
        values, slot = self._columns[name], start % self.capacity
        if slot + end - start <= self.capacity:
            return values[slot : slot + end - start].copy()
        return np.concatenate((values[slot:], values[: end % self.capacity]))

    def dump(self) -> dict[str, Any]:
        return {"total": self.total, "columns": {name: self.column(name) for name in self._columns}}

    def load(self, state: dict[str, Any]) -> None:
        """Take over what was dumped, also with another capacity."""
        columns = {name: state["columns"][name][-self.capacity :] for name in self._columns}
        self.total = state["total"] - len(next(iter(columns.values())))
        self.append(**columns)


class RecentPredictions:
    """Recent predictions of one version, found by id."""

    def __init__(self, capacity: int) -> None:
        self.ring = Ring(PENDING, capacity)
        self._numbers: dict[int, int] = {}

    def unseen(self, keys: list[int]) -> list[int]:
        """Places in `keys` of ids that are not here yet, each once."""
        if len(set(keys)) == len(keys) and self._numbers.keys().isdisjoint(keys):
            return list(range(len(keys)))
        first: dict[int, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        return [place for key, place in first.items() if key not in self._numbers]

    def add(self, keys: list[int], values: Array, sequences: Array, rows: Array) -> None:
        """Remember predictions; the oldest are forgotten beyond the capacity."""
        for start in range(0, len(keys), self.ring.capacity):
            part = slice(start, start + self.ring.capacity)
            self._add(keys[part], values[part], sequences[part], rows[part])

    def _add(self, keys: list[int], values: Array, sequences: Array, rows: Array) -> None:
        ring, before = self.ring, self.ring.total
        leaving = max(0, before + len(keys) - ring.capacity) - ring.first
        if leaving > 0:
            for key in ring.column("key")[:leaving].tolist():
                self._numbers.pop(key, None)
        known = np.zeros(len(keys), dtype=bool)
        ring.append(key=np.array(keys, dtype="<u8"), value=values, sequence=sequences, row=rows, known=known)
        self._numbers.update(zip(keys, range(before, ring.total), strict=True))

    def find(self, key: int) -> int | None:
        """The number of the row with this id."""
        return self._numbers.get(key)

    def coverage(self) -> float:
        """Share of the predictions kept here, up to the newest one with a label, whose label is known."""
        known = self.ring.column("known")
        labelled = np.nonzero(known)[0]
        return float(len(labelled) / (labelled[-1] + 1)) if len(labelled) else 0.0

    def load(self, state: dict[str, Any]) -> None:
        self.ring.load(state)
        keys = self.ring.column("key").tolist()
        self._numbers = dict(zip(keys, range(self.ring.first, self.ring.total), strict=True))


class UnmatchedLabels:
    """Labels whose prediction has not come (yet): the bus may bring them in any order."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._waiting, self.dropped = capacity, dict[int, ReceivedLabel](), 0

    @property
    def unmatched(self) -> int:
        """Labels that no known prediction belongs to."""
        return len(self._waiting) + self.dropped

    def add(self, key: int, label: ReceivedLabel) -> None:
        """Keep it; the first one for an id counts."""
        if key in self._waiting:
            return
        self._waiting[key] = label
        if len(self._waiting) > self._capacity:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1

    def take(self, keys: list[int]) -> list[tuple[int, ReceivedLabel]]:
        """Those that have been waiting for these predictions."""
        if not self._waiting:
            return []
        found = self._waiting.keys() & keys
        return [(key, self._waiting.pop(key)) for key in keys if key in found and key in self._waiting]

    def dump(self) -> dict[str, Any]:
        columns = list(zip(*self._waiting.values(), strict=True)) or [(), (), (), ()]
        dtypes = ("<f8", "<i8", "<i4", "<f8")
        arrays = [np.array(values, dtype=dtype) for values, dtype in zip(columns, dtypes, strict=True)]
        return {"dropped": self.dropped, "keys": np.array(list(self._waiting), dtype="<u8"), **_named(arrays)}

    def load(self, state: dict[str, Any]) -> None:
        self.dropped = state["dropped"]
        columns = [state[name].tolist() for name in ReceivedLabel._fields]
        labels = (ReceivedLabel(*values) for values in zip(*columns, strict=True))
        self._waiting = dict(zip(state["keys"].tolist(), labels, strict=True))


def _named(arrays: list[Array]) -> dict[str, Array]:
    return dict(zip(ReceivedLabel._fields, arrays, strict=True))
