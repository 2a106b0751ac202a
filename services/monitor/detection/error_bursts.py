"""Detection of bursts of serving errors. Pure: all times are those of the log lines."""

from collections import deque
from typing import NamedTuple

SECONDS = 60.0
LINES = 1000
VERSIONS = 100
"""Number of versions that are counted at once. This limits memory: beyond it, the version whose last error is oldest is
dropped."""


class Burst(NamedTuple):
    """Errors of one version between two moments (unix seconds)."""

    version: str
    errors: int
    start: float
    end: float


class ErrorBursts:
    """Errors of the last minute per model and version."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._lines: dict[tuple[str, str], deque[tuple[float, int]]] = {}

    def add(self, model: str, version: str, time: float, count: int = 1) -> Burst | None:
        """Count errors. Return the burst when the threshold is reached, and start counting from zero."""
        lines = self._lines.pop((model, version), None) or deque(maxlen=LINES)
        lines.append((time, count))
        while lines and lines[0][0] < time - SECONDS:
            lines.popleft()
        total = sum(count for _, count in lines)
        if total < self._threshold:
            self._lines[model, version] = lines
            if len(self._lines) > VERSIONS:
                del self._lines[next(iter(self._lines))]
            return None
        return Burst(version, total, min(at for at, _ in lines), max(at for at, _ in lines))
