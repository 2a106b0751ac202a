"""One version: its predictions wait for their labels; rows go into its windows, labelled ones against its promise."""

from typing import Any

import numpy as np

from contracts.profiles import Profile
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.ingest.payloads import PredictionBatch
from services.monitor.state.label_join import (
    ReceivedLabel,
    RecentPredictions,
    RowPositions,
    UnmatchedLabels,
    keys_of,
    signatures,
)
from services.monitor.state.performance import Loss, PerformanceTracker
from services.monitor.state.windows import WindowFinding, Windows


class VersionState:
    """The state of one version."""

    def __init__(self, version: str, profile: Profile | None, promise: PerformanceTarget | None, rules: Rules) -> None:
        self.version, self.profile, self.promise = version, profile, promise
        self.window_rows = promise.window if promise else 500
        """Rows (or labels) in a window."""
        self.pending = RecentPredictions(rules.pending)
        self.windows = Windows(profile, self.window_rows, rules)
        self.judged = PerformanceTracker(promise, self.window_rows, rules.run_labels)
        self.repeated = 0

    # -- traffic ---------------------------------------------------------------------------------------------

    def predict(self, answered: PredictionBatch, rows: RowPositions, early: UnmatchedLabels, now: float) -> None:
        """Count predictions, remember them for their labels, and join the labels that came before them."""
        keys, columns, predictions = keys_of(answered.ids), answered.columns, answered.predictions
        fresh = self.pending.unseen(keys)
        if len(fresh) < len(keys):
            self.repeated += len(keys) - len(fresh)
            keys, predictions = [keys[i] for i in fresh], [predictions[i] for i in fresh]
            columns = {name: [values[i] for i in fresh] for name, values in columns.items()}
            rows = RowPositions(rows.sequence[fresh], rows.row[fresh])
        if not keys:
            return
        self.pending.add(keys, signatures(predictions), rows.sequence, rows.row)
        self.windows.count(columns, predictions, answered.time)
        self.label(early.take(keys), now)

    def label(self, labels: list[tuple[int, ReceivedLabel]], now: float) -> None:
        """Judge labels of predictions that are known. Repeated ones do not count."""
        new: dict[int, ReceivedLabel] = {}
        for key, label in labels:
            number = self.pending.find(key)
            if number is not None and number not in new and not self.pending.ring.at("known", number):
                new[number] = label
        self.repeated += len(labels) - len(new)
        if new:
            self._judge(new, now)

    def _judge(self, labels: dict[int, ReceivedLabel], now: float) -> None:
        ring = self.pending.ring
        for number in labels:
            ring.put("known", number, True)
        value, sequence, row = ([ring.at(name, number) for number in labels] for name in ("value", "sequence", "row"))
        rows = RowPositions(np.array(sequence), np.array(row))
        self.judged.add(list(labels.values()), value, rows, now)

    # -- what it adds up to ----------------------------------------------------------------------------------

    def close_window(self, now: float) -> WindowFinding | None:
        """What its window holds once it is over; else None."""
        return self.windows.close(now, self.judged.total)

    def loss(self) -> Loss:
        """What the labels say about the time since the metric most likely fell."""
        return self.judged.loss(self.pending.coverage())

    def latest_rows(self, at_most: int) -> RowPositions:
        """The newest predictions."""
        ring = self.pending.ring
        since = max(ring.first, ring.total - at_most)
        return RowPositions(ring.column("sequence", since), ring.column("row", since))

    def rows_since_loss(self) -> RowPositions:
        """The newest predictions since the metric most likely fell, labelled or not."""
        labelled = self.judged.rows(self.loss().since, self.window_rows)
        latest = self.latest_rows(self.window_rows)
        since = latest.sequence >= labelled.sequence.min(initial=np.iinfo(np.int64).max)
        return RowPositions(latest.sequence[since], latest.row[since])

    def start_afresh(self) -> None:
        """Forget the evidence, not the rows: what comes now decides."""
        self.judged.start_afresh()
        self.windows.drift = 0.0

    def remember(self, before: "VersionState") -> None:
        """Take over the predictions that came before the promise was known."""
        self.pending, self.windows.rows, self.windows.window_from = (
            before.pending,
            before.windows.rows,
            before.windows.rows,
        )

    # -- memory ----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "profile": self.profile.model_dump(mode="json") if self.profile else None,
            "promise": self.promise.model_dump(mode="json") if self.promise else None,
            "pending": self.pending.ring.dump(),
            "labelled": self.judged.ring.dump(),
            "repeated": self.repeated,
            **{name: getattr(part, name) for part in (self.windows, self.judged) for name in part.KEPT},
        }

    @classmethod
    def load(cls, state: dict[str, Any], rules: Rules) -> "VersionState":
        profile = Profile.model_validate(state["profile"]) if state["profile"] else None
        promise = PerformanceTarget.model_validate(state["promise"]) if state["promise"] else None
        watch = cls(state["version"], profile, promise, rules)
        watch.pending.load(state["pending"])
        watch.judged.ring.load(state["labelled"])
        watch.repeated = state["repeated"]
        if watch.windows.counts.shape != state["counts"].shape:
            raise ValueError("the counts are not of this profile")
        for part in (watch.windows, watch.judged):
            for name in part.KEPT:
                setattr(part, name, state[name])
        return watch
