"""The state of one version: recent predictions that wait for labels, its windows, and its performance."""

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
    encode_values,
    keys_of,
)
from services.monitor.state.performance import LossEstimate, PerformanceTracker
from services.monitor.state.windows import WindowFinding, Windows


class VersionState:
    """The state of one version. Without a profile and a target, its rows and labels are only counted."""

    def __init__(self, version: str, profile: Profile | None, target: PerformanceTarget | None, rules: Rules) -> None:
        self.version, self.profile, self.target = version, profile, target
        self.window_rows = target.window if target else 500
        """Rows (or labels) in a window."""
        self.predictions = RecentPredictions(rules.pending)
        self.windows = Windows(profile, self.window_rows, rules)
        self.performance = PerformanceTracker(target, self.window_rows, rules.run_labels)
        self.repeated = 0
        """Number of repeated predictions and labels; they are not counted."""

    # -- traffic ---------------------------------------------------------------------------------------------

    def add_predictions(
        self, batch: PredictionBatch, positions: RowPositions, unmatched: UnmatchedLabels, now: float
    ) -> None:
        """Count predictions, store them for the join, and add the labels that came before them."""
        keys, columns, predictions = keys_of(batch.ids), batch.columns, batch.predictions
        new = self.predictions.unseen(keys)
        if len(new) < len(keys):
            self.repeated += len(keys) - len(new)
            keys, predictions = [keys[i] for i in new], [predictions[i] for i in new]
            columns = {name: [values[i] for i in new] for name, values in columns.items()}
            positions = RowPositions(positions.sequence[new], positions.row[new])
        if not keys:
            return
        self.predictions.add(keys, encode_values(predictions), positions.sequence, positions.row)
        self.windows.add(columns, predictions, batch.time)
        self.add_labels(unmatched.pop(keys), now)

    def add_labels(self, labels: list[tuple[int, ReceivedLabel]], now: float) -> None:
        """Add labels of stored predictions to the performance. Repeated labels do not count."""
        rows, new = self.predictions.rows, dict[int, ReceivedLabel]()
        for key, label in labels:
            number = self.predictions.find(key)
            if number is not None and number not in new and not rows.get("known", number):
                new[number] = label
        self.repeated += len(labels) - len(new)
        if not new:
            return
        for number in new:
            rows.set("known", number, True)
        value, sequence, row = ([rows.get(name, number) for number in new] for name in ("value", "sequence", "row"))
        self.performance.add(list(new.values()), value, RowPositions(np.array(sequence), np.array(row)), now)

    # -- findings --------------------------------------------------------------------------------------------

    def close_window(self, now: float) -> WindowFinding | None:
        """Return the result of the window when it is over; otherwise None."""
        return self.windows.close(now, self.performance.label_count)

    def estimate_loss(self) -> LossEstimate:
        """Estimate since when, and by how much, the metric is lower."""
        return self.performance.estimate_loss(self.predictions.coverage())

    def latest_rows(self, at_most: int) -> RowPositions:
        """Return the positions of the newest predictions."""
        rows = self.predictions.rows
        since = max(rows.first, rows.total - at_most)
        return RowPositions(rows.column("sequence", since), rows.column("row", since))

    def rows_since_loss(self) -> RowPositions:
        """Return the positions of the newest predictions since the metric most likely fell, labelled or not."""
        labelled = self.performance.positions(self.estimate_loss().since, self.window_rows)
        latest = self.latest_rows(self.window_rows)
        since = latest.sequence >= labelled.sequence.min(initial=np.iinfo(np.int64).max)
        return RowPositions(latest.sequence[since], latest.row[since])

    def reset_evidence(self) -> None:
        """Discard the evidence and keep the rows: only traffic that comes from now on counts."""
        self.performance.reset_evidence()
        self.windows.drift = 0.0

    def copy_predictions(self, earlier: "VersionState") -> None:
        """Continue with the predictions that were counted before the target was known."""
        self.predictions = earlier.predictions
        self.windows.rows = self.windows.window_from = earlier.windows.rows

    # -- saved state -----------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "profile": self.profile.model_dump(mode="json") if self.profile else None,
            "promise": self.target.model_dump(mode="json") if self.target else None,
            "pending": self.predictions.rows.dump(),
            "labelled": self.performance.rows.dump(),
            "repeated": self.repeated,
            **{name: getattr(part, name) for part in (self.windows, self.performance) for name in part.STORED},
        }

    @classmethod
    def load(cls, saved: dict[str, Any], rules: Rules) -> "VersionState":
        profile = Profile.model_validate(saved["profile"]) if saved["profile"] else None
        target = PerformanceTarget.model_validate(saved["promise"]) if saved["promise"] else None
        state = cls(saved["version"], profile, target, rules)
        state.predictions.load(saved["pending"])
        state.performance.rows.load(saved["labelled"])
        state.repeated = saved["repeated"]
        if state.windows.counts.shape != saved["counts"].shape:
            raise ValueError("the saved counts do not have the shape of the profile")
        for part in (state.windows, state.performance):
            for name in part.STORED:
                setattr(part, name, saved[name])
        return state
