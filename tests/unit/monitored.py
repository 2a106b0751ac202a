"""Traffic for the tests of the monitor: a profile, a promise, predictions and labels, all from a seed."""

import numpy as np

from contracts.data import ColumnProfile, Profile, Promise
from services.monitor.batches import Answered, Truth
from services.monitor.domain import ModelWatch, Traffic
from services.monitor.watch import Rules

VERSION = "1-0123abcd"
CLASSES = 10
EDGES = tuple(np.linspace(-1.2, 1.2, 9).tolist())


def profile(columns: int = 3, rows: int = 2000) -> Profile:
    """Standard normal features, ten equally frequent classes."""
    rng = np.random.default_rng(12345)
    return Profile(
        rows=rows,
        columns=tuple(_numeric(f"x{i}", rng.normal(size=rows)) for i in range(columns)),
        prediction=ColumnProfile(
            name="digit",
            categories=tuple(str(c) for c in range(CLASSES)),
            counts=tuple(np.bincount(rng.integers(0, CLASSES, rows), minlength=CLASSES).tolist()),
        ),
    )


def _numeric(name: str, values: np.ndarray) -> ColumnProfile:
    counts = np.bincount(np.searchsorted(EDGES, values), minlength=len(EDGES) + 1)
    return ColumnProfile(name=name, edges=EDGES, counts=tuple(counts.tolist()))


def promise(value: float = 0.95, window: int = 500, **more: float) -> Promise:
    return Promise(metric="accuracy", value=value, window=window, **more)


def watched(value: float = 0.95, rules: Rules | None = None, window: int = 500, columns: int = 3) -> ModelWatch:
    """A model whose version 1 is live."""
    watch = ModelWatch("digits", rules or Rules())
    watch.deployed(VERSION, "local", profile(columns), promise(value, window), now=0.0)
    return watch


class Stream:
    """Messages in stream order; `accuracy` of the predictions and `shift` of the features can be changed."""

    def __init__(self, seed: int, columns: int = 3, version: str = VERSION) -> None:
        self.rng, self.columns, self.version = np.random.default_rng(seed), columns, version
        self.sequence, self.rows = 0, 0

    def answers(self, rows: int, accuracy: float, shift: float = 0.0) -> tuple[Traffic, Traffic]:
        """A message of predictions and one of all their labels."""
        truth = self.rng.integers(0, CLASSES, rows)
        right = self.rng.random(rows) < accuracy
        predicted = np.where(right, truth, (truth + self.rng.integers(1, CLASSES, rows)) % CLASSES)
        ids = [f"digits.{self.version}.{self.rows + i}" for i in range(rows)]
        values = {f"x{i}": (self.rng.normal(size=rows) + shift).tolist() for i in range(self.columns)}
        self.rows += rows
        time = float(self.rows)
        answered = Answered(self.version, time, ids, values, predicted.tolist())
        truths = [Truth(id, int(label), time, index) for index, (id, label) in enumerate(zip(ids, truth, strict=True))]
        return Traffic(self._next(), answered), Traffic(self._next(), truths)

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence
