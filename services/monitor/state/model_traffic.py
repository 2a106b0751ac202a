"""A model's traffic by version: each row is counted once, each label goes to the version that predicted."""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from contracts.profiles import Profile
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.ingest.payloads import FeedbackLabel, PredictionBatch
from services.monitor.state.label_join import ReceivedLabel, RowPositions, UnmatchedLabels, encode_value, key_of
from services.monitor.state.version_state import VersionState
from services.monitor.state.windows import WindowFinding

ClosedWindow = tuple[VersionState, WindowFinding]


class TrafficMessage(NamedTuple):
    """One message of the model's traffic and its stream sequence on the bus."""

    sequence: int
    content: PredictionBatch | list[FeedbackLabel]


class ModelTraffic:
    """The counted traffic of one model: its versions, and labels whose prediction has not arrived yet."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.position = 0
        """Stream sequence up to which all traffic is in this state: redelivered messages are not counted twice."""
        self.versions: dict[str, VersionState] = {}
        self.unmatched = UnmatchedLabels(rules.pending)
        self.invalid_labels = 0

    def versions_to_look_up(self, messages: Iterable[TrafficMessage]) -> set[str]:
        """Return the versions in these messages that must be added, with their target, before `count`."""
        found = {message.content.version for message in messages if isinstance(message.content, PredictionBatch)}
        return {version for version in found if version not in self.versions or not self.versions[version].target}

    def add_version(
        self, version: str, profile: Profile | None, target: PerformanceTarget | None, live: Collection[str]
    ) -> None:
        """Add a version. Beyond the limit, the oldest versions that are not live are dropped."""
        known = self.versions.get(version)
        if known is None or (known.target is None and target is not None):
            self.versions[version] = state = VersionState(version, profile, target, self._rules)
            if known:
                state.copy_predictions(known)
        while len(self.versions) > self._rules.versions:
            idle = [name for name in self.versions if name not in live and name != version]
            if not idle:
                return
            del self.versions[min(idle, key=lambda name: int(name.partition("-")[0]))]

    def count(self, messages: Iterable[TrafficMessage], now: float) -> Iterator[ClosedWindow]:
        """Count messages and yield each window as it closes. Repeated messages and any order are allowed."""
        batch: list[tuple[int, PredictionBatch]] = []
        for sequence, content in messages:
            if sequence <= self.position:
                continue
            self.position = sequence
            if batch and not self._can_merge(batch, content):
                yield from self._count_predictions(batch, now)
                batch = []
            if isinstance(content, PredictionBatch):
                batch.append((sequence, content))
            else:
                self._join_labels(sequence, content, now)
        if batch:
            yield from self._count_predictions(batch, now)

    def close_windows(self, now: float) -> Iterator[ClosedWindow]:
        """Close the windows that are over by now."""
        for state in self.versions.values():
            yield from _closed(state, now)

    def _can_merge(
        self, batch: list[tuple[int, PredictionBatch]], content: PredictionBatch | list[FeedbackLabel]
    ) -> bool:
        """Return whether a message can be counted together with the batch: numpy's cost is per call, not per row."""
        _, first = batch[0]
        if not isinstance(content, PredictionBatch) or content.version not in self.versions:
            return False
        same = first.version == content.version and first.columns.keys() == content.columns.keys()
        rows = sum(len(known.ids) for _, known in batch) + len(content.ids)
        return same and rows <= self.versions[content.version].window_rows

    def _count_predictions(self, batch: list[tuple[int, PredictionBatch]], now: float) -> Iterator[ClosedWindow]:
        state = self.versions.get(batch[0][1].version)
        if state is None:
            return  # More versions send traffic at once than the limit allows; this one was dropped.
        state.add_predictions(*_merged(batch), self.unmatched, now)
        yield from _closed(state, now)

    def _join_labels(self, sequence: int, labels: list[FeedbackLabel], now: float) -> None:
        """Give each label to the version whose prediction it belongs to."""
        found: dict[str, list[tuple[int, ReceivedLabel]]] = {}
        for given in labels:
            value = encode_value(given.label)
            if value != value:
                self.invalid_labels += 1
                continue
            key, label = key_of(given.id), ReceivedLabel(value, sequence, given.index, given.time or now)
            state = next((one for one in self.versions.values() if one.predictions.find(key) is not None), None)
            if state:
                found.setdefault(state.version, []).append((key, label))
            else:
                self.unmatched.add(key, label)
        for version, joined in found.items():
            self.versions[version].add_labels(joined, now)

    # -- saved state -----------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "invalid": self.invalid_labels,
            "early": self.unmatched.dump(),
            "versions": {version: state.dump() for version, state in self.versions.items()},
        }

    def load(self, saved: dict[str, Any]) -> None:
        self.position, self.invalid_labels = saved["position"], saved["invalid"]
        self.unmatched.load(saved["early"])
        self.versions = {name: VersionState.load(one, self._rules) for name, one in saved["versions"].items()}


def _closed(state: VersionState, now: float) -> Iterator[ClosedWindow]:
    finding = state.close_window(now)
    if finding is not None:
        yield state, finding


def _merged(batch: list[tuple[int, PredictionBatch]]) -> tuple[PredictionBatch, RowPositions]:
    """Merge messages of one version with the same columns; return the batch and the position of each of its rows."""
    sequences, parts = zip(*batch, strict=True)
    first, lengths = parts[0], [len(part.ids) for part in parts]
    merged = PredictionBatch(
        first.version,
        parts[-1].time,
        list(chain(*(part.ids for part in parts))),
        {name: list(chain(*(part.columns[name] for part in parts))) for name in first.columns},
        list(chain(*(part.predictions for part in parts))),
    )
    row = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return merged, RowPositions(np.repeat(np.array(sequences, dtype=np.int64), lengths), row)
