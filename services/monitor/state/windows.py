"""Windows of one version's rows, compared with its training data: evidence of drift and of bad input."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from contracts.profiles import Profile, Window
from services.monitor.detection.rules import Rules
from services.monitor.detection.sequential_tests import culprits, drift_p_values, e_values, shiryaev_roberts
from services.monitor.state.histograms import INVALID, MISSING, Bins

PREDICTION = "prediction"


@dataclass(frozen=True)
class WindowFinding:
    """The result of a closed window: `kind` is None when nothing was found; `calm` when nothing hints at drift."""

    kind: Literal["data", "quality"] | None
    calm: bool
    window: Window
    evidence: dict[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


class Windows:
    """The open window, and the evidence of drift from the windows before it. Times are those of the messages.

    Without a profile of the training data rows are only counted. A full window has `size` rows.
    """

    STORED = (
        "rows", "index", "window_from", "labels_before", "window_start", "window_end", "drift", "p_values", "counts",
    )  # fmt: skip
    """Attributes that are saved, under these names."""

    def __init__(self, profile: Profile | None, size: int, rules: Rules) -> None:
        self._size, self._rules = size, rules
        self._bins = Bins(profile) if profile else None
        self._columns = (*self._bins.names, PREDICTION) if self._bins else ()
        self.counts = self._bins.zeros() if self._bins else np.zeros((0, 0), dtype=np.int64)
        self.rows = self.index = self.window_from = self.labels_before = 0
        self.window_start = self.window_end = 0.0
        self.drift = 0.0
        """Evidence of drift (Shiryaev–Roberts)."""
        self.p_values: list[float] = []
        """Of the last window, one per column."""

    @property
    def suspicious_columns(self) -> tuple[str, ...]:
        """Columns whose p-value in the last window is below 0.05, smallest first: a hint, not a finding."""
        ranked = sorted((p, name) for p, name in zip(self.p_values, self._columns, strict=False) if p < 0.05)
        return tuple(name for _, name in ranked)

    def add(self, columns: dict[str, list[Any]], predictions: list[Any], time: float) -> None:
        """Count rows in the open window."""
        if self._bins:
            self.counts += self._bins.count(columns, predictions)
        if self.rows == self.window_from:
            self.window_start = time
        self.window_start, self.window_end = min(self.window_start, time), max(self.window_end, time)
        self.rows += len(predictions)

    def close(self, now: float, labels: int) -> WindowFinding | None:
        """Close and test the window when it is full, or old and not too small; otherwise return None.

        `labels` is the number of labels that the version has received so far.
        """
        rows = self.rows - self.window_from
        old = now - self.window_start >= self._rules.window_seconds and rows >= min(self._rules.min_rows, self._size)
        if not rows or (rows < self._size and not old):
            return None
        joined = labels - self.labels_before
        finding = self._test(
            Window(start=self.window_start, end=self.window_end, rows=rows, labels=joined, index=self.index)
        )
        self.counts = np.zeros_like(self.counts)
        self.window_from, self.labels_before, self.index = self.rows, labels, self.index + 1
        return finding

    def _test(self, window: Window) -> WindowFinding:
        if not self._bins:
            return WindowFinding(None, True, window)
        bad = self._bad_input(self._bins, window.rows)
        if bad:
            evidence = {f"missing_{name}": share for name, share in bad.items()}
            return WindowFinding("quality", False, window, evidence, tuple(bad))
        p = drift_p_values(self._bins.reference, self.counts, self._rules.drift_tolerance)
        e_value = float(e_values(p).mean())
        self.p_values, self.drift = p.tolist(), shiryaev_roberts(self.drift, e_value)
        if self.drift < self._rules.run_windows:
            return WindowFinding(None, e_value < 1.0, window)
        drifted = tuple(self._columns[column] for column in culprits(p))
        evidence = {"e_value": self.drift, "p_value": float(p.min()), "columns": float(len(drifted))}
        self.drift = 0.0
        return WindowFinding("data", False, window, evidence, drifted)

    def _bad_input(self, bins: Bins, rows: int) -> dict[str, float]:
        """Return columns with significantly more missing or invalid values than in training, with their share."""
        before = bins.reference[:, [MISSING, INVALID]].sum(axis=1) / np.maximum(1, bins.reference.sum(axis=1))
        now = self.counts[:, [MISSING, INVALID]].sum(axis=1) / rows
        allowed = np.minimum(1.0, before + self._rules.missing_tolerance)
        excess = now - allowed - 3 * np.sqrt(allowed * (1 - allowed) / rows)
        return {self._columns[c]: float(now[c]) for c in np.argsort(-excess, kind="stable") if excess[c] > 0}
