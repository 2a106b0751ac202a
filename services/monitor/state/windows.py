"""The rows of one version, window by window, against those of its training: has the data drifted or gone bad?"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from contracts.profiles import Profile, Window
from services.monitor.detection.rules import Rules
from services.monitor.detection.sequential_tests import culprits, drift_p_values, e_values, shiryaev_roberts
from services.monitor.state.histograms import MISSING, ODD, Bins

PREDICTION = "prediction"


@dataclass(frozen=True)
class WindowFinding:
    """A closed window: what was found in it, if anything."""

    kind: Literal["data", "quality"] | None
    calm: bool
    window: Window
    evidence: dict[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


class Windows:
    """The window that is open, and the evidence of drift from those before. Times are those of the messages.

    Args:
        profile: of the training data; without it rows are only counted.
        size: rows of a full window.
    """

    KEPT = (
        "rows", "index", "window_from", "labels_before", "window_start", "window_end", "drift", "p_values", "counts",
    )  # fmt: skip

    def __init__(self, profile: Profile | None, size: int, rules: Rules) -> None:
        self._size, self._rules = size, rules
        self._bins = Bins(profile) if profile else None
        self._columns = (*self._bins.names, PREDICTION) if self._bins else ()
        self.counts = self._bins.zeros() if self._bins else np.zeros((0, 0), dtype=np.int64)
        self.rows = self.index = self.window_from = self.labels_before = 0
        self.window_start = self.window_end = 0.0
        self.drift = 0.0
        self.p_values: list[float] = []

    @property
    def moved(self) -> tuple[str, ...]:
        """Columns that hint at drift in the last window, most first."""
        ranked = sorted((p, name) for p, name in zip(self.p_values, self._columns, strict=False) if p < 0.05)
        return tuple(name for _, name in ranked)

    def count(self, columns: dict[str, list[Any]], predictions: list[Any], time: float) -> None:
        """Take rows in."""
        if self._bins:
            self.counts += self._bins.count(columns, predictions)
        if self.rows == self.window_from:
            self.window_start = time
        self.window_start, self.window_end = min(self.window_start, time), max(self.window_end, time)
        self.rows += len(predictions)

    def close(self, now: float, labels: int) -> WindowFinding | None:
        """Judge the window when it is full, or old enough and not too thin; else None: it goes on.

        Args:
            now: unix seconds.
            labels: how many the version has had so far.
        """
        rows = self.rows - self.window_from
        old = now - self.window_start >= self._rules.window_seconds and rows >= min(self._rules.min_rows, self._size)
        if not rows or (rows < self._size and not old):
            return None
        joined = labels - self.labels_before
        found = self._judge(
            Window(start=self.window_start, end=self.window_end, rows=rows, labels=joined, index=self.index)
        )
        self.counts = np.zeros_like(self.counts)
        self.window_from, self.labels_before, self.index = self.rows, labels, self.index + 1
        return found

    def _judge(self, window: Window) -> WindowFinding:
        if not self._bins:
            return WindowFinding(None, True, window)
        bad = self._unreadable(self._bins, window.rows)
        if bad:
            return WindowFinding("quality", False, window, {f"missing_{n}": s for n, s in bad.items()}, tuple(bad))
        p = drift_p_values(self._bins.reference, self.counts, self._rules.drift_tolerance)
        evidence = float(e_values(p).mean())
        self.p_values, self.drift = p.tolist(), shiryaev_roberts(self.drift, evidence)
        if self.drift < self._rules.run_windows:
            return WindowFinding(None, evidence < 1.0, window)
        moved = tuple(self._columns[column] for column in culprits(p))
        found = {"e_value": self.drift, "p_value": float(p.min()), "columns": float(len(moved))}
        self.drift = 0.0
        return WindowFinding("data", False, window, found, moved)

    def _unreadable(self, bins: Bins, rows: int) -> dict[str, float]:
        """Columns with clearly more missing or odd values than at training, worst first."""
        before = bins.reference[:, [MISSING, ODD]].sum(axis=1) / np.maximum(1, bins.reference.sum(axis=1))
        now = self.counts[:, [MISSING, ODD]].sum(axis=1) / rows
        allowed = np.minimum(1.0, before + self._rules.missing_tolerance)
        excess = now - allowed - 3 * np.sqrt(allowed * (1 - allowed) / rows)
        return {self._columns[c]: float(now[c]) for c in np.argsort(-excess, kind="stable") if excess[c] > 0}
