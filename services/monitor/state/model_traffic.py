"""A model's traffic, told apart by version: each row is counted once, each label goes to the version that answered."""

import re
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from contracts.profiles import Profile
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.ingest.payloads import FeedbackLabel, PredictionBatch
from services.monitor.state.label_join import ReceivedLabel, RowPositions, UnmatchedLabels, key_of, signature
from services.monitor.state.version_state import VersionState
from services.monitor.state.windows import WindowFinding

_GENERATION = re.compile(r"\d+")
Closed = tuple[VersionState, WindowFinding]


class TrafficMessage(NamedTuple):
    """One message of the model's traffic and its place on the bus."""

    sequence: int
    content: PredictionBatch | list[FeedbackLabel]


class ModelTraffic:
    """What is counted of one model's traffic: its versions, and labels that wait for their predictions."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.position = 0
        """Stream sequence up to which all traffic is in this state: what is redelivered is not counted twice."""
        self.versions: dict[str, VersionState] = {}
        self.early = UnmatchedLabels(rules.pending)
        self.invalid = 0

    def unknown(self, traffic: Iterable[TrafficMessage]) -> set[str]:
        """Versions whose promise must be looked up before `take`."""
        found = {message.content.version for message in traffic if isinstance(message.content, PredictionBatch)}
        return {version for version in found if version not in self.versions or not self.versions[version].promise}

    def introduce(
        self, version: str, profile: Profile | None, promise: PerformanceTarget | None, live: Collection[str]
    ) -> None:
        """Watch a version; without a promise only its rows and labels are counted. The oldest not live are let go."""
        known = self.versions.get(version)
        if known is None or (known.promise is None and promise is not None):
            self.versions[version] = watch = VersionState(version, profile, promise, self._rules)
            if known:
                watch.remember(known)
        while len(self.versions) > self._rules.versions:
            idle = [v for v in self.versions if v not in live and v != version]
            if not idle:
                return
            del self.versions[min(idle, key=_generation)]

    def take(self, traffic: Iterable[TrafficMessage], now: float) -> Iterator[Closed]:
        """Count messages, in any order and however often the bus repeats them; yields each window as it closes."""
        batch: list[tuple[int, PredictionBatch]] = []
        for sequence, content in traffic:
            if sequence <= self.position:
                continue
            self.position = sequence
            if batch and not self._together(batch, content):
                yield from self._count(batch, now)
                batch = []
            if isinstance(content, PredictionBatch):
                batch.append((sequence, content))
            else:
                self._label(sequence, content, now)
        if batch:
            yield from self._count(batch, now)

    def close(self, now: float) -> Iterator[Closed]:
        """Windows that are over by now."""
        for watch in self.versions.values():
            yield from _closed(watch, now)

    def _together(
        self, batch: list[tuple[int, PredictionBatch]], content: PredictionBatch | list[FeedbackLabel]
    ) -> bool:
        """Whether small messages can be counted as one: numpy pays per call, not per row."""
        _, first = batch[0]
        if not isinstance(content, PredictionBatch) or content.version not in self.versions:
            return False
        same = first.version == content.version and first.columns.keys() == content.columns.keys()
        rows = sum(len(known.ids) for _, known in batch) + len(content.ids)
        return same and rows <= self.versions[content.version].window_rows

    def _count(self, batch: list[tuple[int, PredictionBatch]], now: float) -> Iterator[Closed]:
        watch = self.versions.get(batch[0][1].version)
        if watch is None:
            return  # more versions at once than are watched: the oldest are let go
        watch.predict(*_merged(batch), self.early, now)
        yield from _closed(watch, now)

    def _label(self, sequence: int, labels: list[FeedbackLabel], now: float) -> None:
        found: dict[str, list[tuple[int, ReceivedLabel]]] = {}
        for truth in labels:
            value = signature(truth.label)
            if value != value:
                self.invalid += 1
                continue
            key, label = key_of(truth.id), ReceivedLabel(value, sequence, truth.index, truth.time or now)
            watch = next((w for w in self.versions.values() if w.pending.find(key) is not None), None)
            if watch:
                found.setdefault(watch.version, []).append((key, label))
            else:
                self.early.add(key, label)
        for version, matched in found.items():
            self.versions[version].label(matched, now)

    # -- memory ----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "invalid": self.invalid,
            "early": self.early.dump(),
            "versions": {version: watch.dump() for version, watch in self.versions.items()},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.position, self.invalid = state["position"], state["invalid"]
        self.early.load(state["early"])
        self.versions = {name: VersionState.load(one, self._rules) for name, one in state["versions"].items()}


def _closed(watch: VersionState, now: float) -> Iterator[Closed]:
    finding = watch.close_window(now)
    if finding is not None:
        yield watch, finding


def _merged(batch: list[tuple[int, PredictionBatch]]) -> tuple[PredictionBatch, RowPositions]:
    """Messages of one version and the same columns as one, and where each of its rows stands."""
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


def _generation(version: str) -> int:
    found = _GENERATION.match(version)
    return int(found[0]) if found else 0
