"""What is known of one version: its window of traffic, its labels, and the evidence that builds up from both."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.data import Profile, Promise, Window
from services.monitor.bins import MISSING, ODD, Bins
from services.monitor.joins import LABELLED, Early, Label, Pending, Ring, keys_of, signatures
from services.monitor.statistics import (
    BETS,
    change_point,
    culprits,
    drift_p_values,
    e_detector,
    e_values,
    shiryaev_roberts,
)

PREDICTION = "prediction"


@dataclass(frozen=True)
class Rules:
    """When evidence is enough. Run lengths are means: false alarms are at least that far apart."""

    run_labels: float = 1e6
    run_windows: float = 1000.0
    drift_tolerance: float = 0.2
    missing_tolerance: float = 0.1
    min_coverage: float = 0.05
    min_rows: int = 50
    window_seconds: float = 900.0
    gather_seconds: float = 3600.0
    expire_seconds: float = 6 * 3600.0
    retrains_per_day: int = 20
    pending: int = 50_000
    versions: int = 4


class Rows(NamedTuple):
    """Where rows stand on the bus: sequence and place of each prediction, and of its label when there is one."""

    sequence: NDArray[np.int64]
    row: NDArray[np.int32]
    label_sequence: NDArray[np.int64] | None = None
    label_row: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Finding:
    """A closed window: what was found in it, if anything."""

    kind: Literal["data", "quality"] | None
    calm: bool
    window: Window
    evidence: dict[str, float] = field(default_factory=dict)
    columns: tuple[str, ...] = ()


class Loss(NamedTuple):
    """Labelled rows since the metric most likely fell, in the order of their predictions."""

    since: int
    labels: int
    value: float
    coverage: float
    classes: int
    window: Window


class VersionWatch:
    """The state of one version. Times are those of the messages."""

    def __init__(self, version: str, profile: Profile | None, promise: Promise | None, rules: Rules) -> None:
        self.version, self.profile, self.promise, self.rules = version, profile, promise, rules
        self._bins = Bins(profile) if profile else None
        self.counts = self._bins.zeros() if self._bins else np.zeros((0, 0), dtype=np.int64)
        self.pending = Pending(rules.pending)
        self.labelled = Ring(LABELLED, max(2000, 4 * self.window_rows))
        self.rows = self.repeated = self.errors = 0
        self.index = self.window_from = self.labels_before = 0
        self.window_start = self.window_end = 0.0
        self.drift = 0.0
        self.detector = np.zeros(len(BETS))
        self.alarmed: float | None = None
        self.fresh_from = 0
        self.accuracy = -1.0
        self.p_values: list[float] = []

    @property
    def window_rows(self) -> int:
        """Rows (or labels) in a window."""
        return self.promise.window if self.promise else 500

    @property
    def tolerated(self) -> float:
        """The error rate that is still as promised."""
        return 1.0 if self.promise is None else min(1.0, 1 - self.promise.value + self.promise.max_loss)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is counted, the predictions last."""
        return (*self._bins.names, PREDICTION) if self._bins else ()

    # -- traffic ---------------------------------------------------------------------------------------------

    def predict(
        self, ids: list[str], columns: dict[str, list[Any]], predictions: list[Any],
        sequences: NDArray[np.int64], rows: NDArray[np.int32], time: float, early: Early,
    ) -> None:  # fmt: skip
        """Count predictions, remember them for their labels, and join the labels that came before them."""
        keys = keys_of(ids)
        fresh = self.pending.unseen(keys)
        if len(fresh) < len(keys):
            self.repeated += len(keys) - len(fresh)
            keys, predictions = [keys[i] for i in fresh], [predictions[i] for i in fresh]
            columns = {name: [values[i] for i in fresh] for name, values in columns.items()}
            sequences, rows = sequences[fresh], rows[fresh]
        if not keys:
            return
        self.pending.add(keys, signatures(predictions), sequences, rows)
        if self._bins:
            self.counts += self._bins.count(columns, predictions)
        if self.rows == self.window_from:
            self.window_start = time
        self.window_start, self.window_end = min(self.window_start, time), max(self.window_end, time)
        self.rows += len(keys)
        self.label(early.take(keys))

    def label(self, labels: list[tuple[int, Label]]) -> int:
        """Judge labels of predictions that are known; returns how many counted. Repeated ones do not."""
        found = [(number, label) for key, label in labels if (number := self.pending.find(key)) is not None]
        new: dict[int, Label] = {}
        for number, label in found:
            if number not in new and not self.pending.ring.at("known", number):
                new[number] = label
        self.repeated += len(labels) - len(new)
        if new:
            self._judge(new)
        return len(new)

    def _judge(self, labels: dict[int, Label]) -> None:
        ring = self.pending.ring
        for number in labels:
            ring.put("known", number, True)
        predicted = np.array([ring.at("value", number) for number in labels])
        truth = np.array([label.value for label in labels.values()])
        errors = self._errors(predicted, truth)
        table: dict[str, Any] = {
            "sequence": [ring.at("sequence", number) for number in labels],
            "row": [ring.at("row", number) for number in labels],
            "label_sequence": [label.sequence for label in labels.values()],
            "label_row": [label.row for label in labels.values()],
            "label": truth, "error": errors, "time": [label.time for label in labels.values()],
        }  # fmt: skip
        for start in range(0, len(errors), self.labelled.capacity):
            part = slice(start, start + self.labelled.capacity)
            self.labelled.append(**{name: values[part] for name, values in table.items()})
        self.errors += int(errors.sum())
        self._bet(errors)

    def _errors(self, predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.bool_]:
        if self.promise and self.promise.metric == "within":
            tolerance = self.promise.tolerance or 0.0
            return ~(np.abs(predicted - truth) <= tolerance * (1 + 1e-9))
        return np.asarray(predicted != truth)

    def _bet(self, errors: NDArray[np.bool_]) -> None:
        recent = self.labelled.column("error", max(self.fresh_from, self.labelled.total - self.window_rows))
        self.accuracy = float(1 - recent.mean()) if len(recent) else -1.0
        if self.tolerated >= 1.0:
            return
        self.detector, peak = e_detector(self.detector, errors.astype(np.float64), self.tolerated)
        if self.alarmed is None and peak >= self.rules.run_labels:
            self.alarmed = self.window_end

    # -- what it adds up to ----------------------------------------------------------------------------------

    @property
    def statistic(self) -> float:
        """Evidence of a loss: the mean over the bets."""
        return float(self.detector.mean())

    def loss(self) -> Loss:
        """What the labels say about the time since the metric most likely fell."""
        columns = {n: self.labelled.column(n, self.fresh_from) for n in ("sequence", "row", "error", "label", "time")}
        order = np.lexsort((columns["row"], columns["sequence"]))
        errors = columns["error"][order].astype(np.float64)
        start = change_point(errors, self.tolerated)
        since, times = order[start:], columns["time"][order[start:]]
        labels = len(since)
        coverage = self.pending.coverage()
        window = Window(
            start=float(times.min()) if labels else 0.0,
            end=float(times.max()) if labels else 0.0,
            rows=max(labels, round(labels / coverage) if coverage else labels),
            labels=labels,
            index=self.labelled.total // self.window_rows,
        )
        value = float(1 - errors[start:].mean()) if labels else 1.0
        classes = len(np.unique(columns["label"][since]))
        return Loss(start, labels, value, coverage, classes, window)

    def labelled_rows(self, loss_since: int, at_most: int) -> Rows:
        """The newest labelled rows since a change, in the order of their predictions."""
        names = ("sequence", "row", "label_sequence", "label_row")
        columns = [self.labelled.column(name, self.fresh_from) for name in names]
        order = np.lexsort((columns[1], columns[0]))[loss_since:][-at_most:]
        return Rows(*(column[order] for column in columns))

    def latest_rows(self, at_most: int) -> Rows:
        """The newest predictions."""
        ring = self.pending.ring
        since = max(ring.first, ring.total - at_most)
        return Rows(ring.column("sequence", since), ring.column("row", since))

    def rows_since_loss(self) -> Rows:
        """The newest predictions since the metric most likely fell, labelled or not."""
        labelled, latest = self.labelled_rows(self.loss().since, self.window_rows), self.latest_rows(self.window_rows)
        since = latest.sequence >= labelled.sequence.min(initial=np.iinfo(np.int64).max)
        return Rows(latest.sequence[since], latest.row[since])

    def close_window(self, now: float) -> Finding | None:
        """Judge the window when it is full, or old enough and not too thin; else None: it goes on."""
        rows = self.rows - self.window_from
        old = now - self.window_start >= self.rules.window_seconds and rows >= min(
            self.rules.min_rows, self.window_rows
        )
        if not rows or (rows < self.window_rows and not old):
            return None
        finding = self._finding(rows)
        self.counts = np.zeros_like(self.counts)
        self.window_from, self.labels_before, self.index = self.rows, self.labelled.total, self.index + 1
        return finding

    def _finding(self, rows: int) -> Finding:
        labels = self.labelled.total - self.labels_before
        window = Window(start=self.window_start, end=self.window_end, rows=rows, labels=labels, index=self.index)
        if not self._bins:
            return Finding(None, True, window)
        bad = self._unreadable(rows)
        if bad:
            return Finding("quality", False, window, {f"missing_{n}": s for n, s in bad.items()}, tuple(bad))
        p = drift_p_values(self._bins.reference, self.counts, self.rules.drift_tolerance)
        evidence = float(e_values(p).mean())
        self.p_values, self.drift = p.tolist(), shiryaev_roberts(self.drift, evidence)
        if self.drift < self.rules.run_windows:
            return Finding(None, evidence < 1.0, window)
        moved = tuple(self.columns[column] for column in culprits(p))
        found = {"e_value": self.drift, "p_value": float(p.min()), "columns": float(len(moved))}
        self.drift = 0.0
        return Finding("data", False, window, found, moved)

    def _unreadable(self, rows: int) -> dict[str, float]:
        """Columns with clearly more missing or odd values than at training, worst first."""
        assert self._bins is not None
        reference = self._bins.reference
        before = reference[:, [MISSING, ODD]].sum(axis=1) / np.maximum(1, reference.sum(axis=1))
        now = self.counts[:, [MISSING, ODD]].sum(axis=1) / rows
        allowed = np.minimum(1.0, before + self.rules.missing_tolerance)
        excess = now - allowed - 3 * np.sqrt(allowed * (1 - allowed) / rows)
        return {self.columns[c]: float(now[c]) for c in np.argsort(-excess, kind="stable") if excess[c] > 0}

    def start_afresh(self) -> None:
        """Forget the evidence, not the rows: what comes now decides."""
        self.detector, self.alarmed, self.drift = np.zeros(len(BETS)), None, 0.0
        self.fresh_from = self.labelled.total

    def remember(self, before: "VersionWatch") -> None:
        """Take over the predictions that came before the promise was known."""
        self.pending, self.rows, self.window_from = before.pending, before.rows, before.rows

    # -- memory ----------------------------------------------------------------------------------------------

    _PLAIN = (
        "rows", "repeated", "errors", "index", "window_from", "labels_before", "window_start", "window_end", "drift",
        "alarmed", "fresh_from", "accuracy", "p_values", "counts", "detector",
    )  # fmt: skip

    def dump(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "profile": self.profile.model_dump(mode="json") if self.profile else None,
            "promise": self.promise.model_dump(mode="json") if self.promise else None,
            "pending": self.pending.ring.dump(),
            "labelled": self.labelled.dump(),
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    @classmethod
    def load(cls, state: dict[str, Any], rules: Rules) -> "VersionWatch":
        profile = Profile.model_validate(state["profile"]) if state["profile"] else None
        promise = Promise.model_validate(state["promise"]) if state["promise"] else None
        watch = cls(state["version"], profile, promise, rules)
        watch.pending.load(state["pending"])
        watch.labelled.load(state["labelled"])
        shape = watch.counts.shape
        for name in cls._PLAIN:
            setattr(watch, name, state[name])
        if watch.counts.shape != shape:
            raise ValueError("the counts are not of this profile")
        return watch
