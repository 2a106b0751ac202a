"""What the monitor decides about one model: traffic and news go in, incidents come out. No bus, no clock.

One incident at a time. A loss of the promised metric leads to retraining and outranks alerts; it stays open until a
new version is live or its run ended without one. Drift without labels is for a person: an alert, closed by the first
calm window.
"""

import re
from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np

from contracts.data import Frozen, Profile, Promise, Window
from contracts.envelope import derived_id, run_of
from services.monitor.batches import Answered, Truth
from services.monitor.joins import Early, Label, key_of, signature
from services.monitor.watch import Finding, Rows, Rules, VersionWatch

SOURCE = "bentobelt/monitor"
DAY = 24 * 3600.0
Kind = Literal["performance", "data", "quality"]
Action = Literal["retrain", "alert"]
_GENERATION = re.compile(r"\d+")


class Traffic(NamedTuple):
    """One message of the model's traffic and its place on the bus."""

    sequence: int
    content: Answered | list[Truth]


class Incident(Frozen):
    """Something that a person or the trainer must hear of. `id` is the same however often it is told."""

    id: str
    run: str
    model: str
    version: str
    kind: Kind
    action: Action
    window: Window
    evidence: dict[str, float]
    columns: tuple[str, ...] = ()
    opened: float
    told: bool = False


class ModelWatch:
    """The state of one model: its versions, labels that wait, the open incident."""

    def __init__(self, model: str, rules: Rules) -> None:
        self.model, self.rules = model, rules
        self.position = 0
        """Stream sequence up to which all traffic is in this state: what is redelivered is not counted twice."""
        self.live: dict[str, str] = {}
        self.decided: dict[str, int] = {}
        """Per target the sequence of the newest `model.deployed`: older news change nothing."""
        self.versions: dict[str, VersionWatch] = {}
        self.early = Early(rules.pending)
        self.invalid = 0
        self.incident: Incident | None = None
        self.closed: dict[Action, float] = {"retrain": float("-inf"), "alert": float("-inf")}
        self.retrains: list[float] = []

    # -- traffic ---------------------------------------------------------------------------------------------

    def unknown(self, traffic: Iterable[Traffic]) -> set[str]:
        """Versions whose promise must be looked up before `apply`."""
        found = {message.content.version for message in traffic if isinstance(message.content, Answered)}
        return {version for version in found if version not in self.versions or not self.versions[version].promise}

    def introduce(self, version: str, profile: Profile | None, promise: Promise | None) -> None:
        """Watch a version; without a promise only its rows and labels are counted."""
        known = self.versions.get(version)
        if known is None or (known.promise is None and promise is not None):
            self.versions[version] = watch = VersionWatch(version, profile, promise, self.rules)
            if known:
                watch.remember(known)
        while len(self.versions) > self.rules.versions:
            idle = [v for v in self.versions if v not in self.live.values() and v != version]
            if not idle:
                return
            del self.versions[min(idle, key=_generation)]

    def apply(self, traffic: Iterable[Traffic], now: float) -> None:
        """Take messages in, in any order and however often the bus repeats them."""
        batch: list[Traffic] = []
        for message in traffic:
            if message.sequence <= self.position:
                continue
            self.position = message.sequence
            if batch and not self._together(batch, message):
                self._predictions(batch, now)
                batch = []
            if isinstance(message.content, Answered):
                batch.append(message)
            else:
                self._labels(message.sequence, message.content, now)
        if batch:
            self._predictions(batch, now)
        self.decide(now)

    def _together(self, batch: list[Traffic], message: Traffic) -> bool:
        """Whether small messages can be counted as one: numpy pays per call, not per row."""
        first, content = batch[0].content, message.content
        if not isinstance(content, Answered) or not isinstance(first, Answered):
            return False
        same = first.version == content.version and first.columns.keys() == content.columns.keys()
        rows = sum(len(known.content.ids) for known in batch if isinstance(known.content, Answered))
        watch = self.versions.get(first.version)
        return same and watch is not None and rows + len(content.ids) <= watch.window_rows

    def _predictions(self, batch: list[Traffic], now: float) -> None:
        parts = [(message.sequence, message.content) for message in batch if isinstance(message.content, Answered)]
        first = parts[0][1]
        watch = self.versions.get(first.version)
        if watch is None:
            return  # more versions at once than are watched: the oldest are let go
        lengths = [len(part.ids) for _, part in parts]
        watch.predict(
            list(chain(*(part.ids for _, part in parts))),
            {name: list(chain(*(part.columns[name] for _, part in parts))) for name in first.columns},
            list(chain(*(part.predictions for _, part in parts))),
            np.repeat(np.array([sequence for sequence, _ in parts], dtype=np.int64), lengths),
            np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            parts[-1][1].time,
            self.early,
        )
        self._close(watch, now)

    def _labels(self, sequence: int, labels: list[Truth], now: float) -> None:
        found: dict[str, list[tuple[int, Label]]] = {}
        for truth in labels:
            value = signature(truth.label)
            if value != value:
                self.invalid += 1
                continue
            key, label = key_of(truth.id), Label(value, sequence, truth.index, truth.time or now)
            watch = next((w for w in self.versions.values() if w.pending.find(key) is not None), None)
            if watch:
                found.setdefault(watch.version, []).append((key, label))
            else:
                self.early.add(key, label)
        for version, matched in found.items():
            self.versions[version].label(matched)

    def tick(self, now: float) -> None:
        """What is due by time alone."""
        for watch in self.versions.values():
            self._close(watch, now)
        self.decide(now)

    # -- incidents -------------------------------------------------------------------------------------------

    def _close(self, watch: VersionWatch, now: float) -> None:
        finding = watch.close_window(now)
        if finding is None or not self._is_live(watch):
            return
        if finding.calm and self.incident and self.incident.action == "alert" and self.incident.told:
            self._end("alert", now)
        elif finding.kind and self.incident is None and self._rested(watch, "alert", now):
            self._open(watch, finding.kind, "alert", finding, now)

    def suspect(self, now: float) -> VersionWatch | None:
        """The version that seems to lose what it promised, while its labels are too few to be sure."""
        if self.incident and self.incident.kind == "performance":
            return None
        alarmed = (watch for watch in self.versions.values() if watch.alarmed is not None and self._is_live(watch))
        return next((watch for watch in alarmed if self._rested(watch, "retrain", now)), None)

    def decide(self, now: float) -> None:
        """Open a performance incident when the labels say so, expire one that nobody ended."""
        if self.incident and now - self.incident.opened > self.rules.expire_seconds:
            self._end(self.incident.action, now)
        for watch in self.versions.values():
            if watch.alarmed is not None and self._is_live(watch):
                self._decide(watch, now)

    def _decide(self, watch: VersionWatch, now: float) -> None:
        busy = self.incident is not None and self.incident.kind == "performance"
        if busy or not self._rested(watch, "retrain", now) or watch.promise is None or watch.alarmed is None:
            return
        late = now - watch.alarmed > self.rules.gather_seconds
        if watch.labelled.total - watch.fresh_from < watch.window_rows and not late:
            return
        loss = watch.loss()
        if loss.labels and 1 - loss.value <= watch.tolerated:
            watch.start_afresh()  # it has recovered since
            return
        enough = loss.labels >= watch.window_rows and loss.classes > 1 and loss.coverage >= self.rules.min_coverage
        if not enough and not late:
            return
        budget = sum(now - at < DAY for at in self.retrains) < self.rules.retrains_per_day
        action: Action = "retrain" if enough and budget else "alert"
        evidence = {
            watch.promise.metric: loss.value,
            "promised": watch.promise.value,
            "max_loss": watch.promise.max_loss,
            "e_value": watch.statistic,
            "labels": float(loss.labels),
            "coverage": loss.coverage,
        }
        self._open(watch, "performance", action, Finding(None, False, loss.window, evidence, self.moved(watch)), now)

    def moved(self, watch: VersionWatch) -> tuple[str, ...]:
        """Columns that hint at drift in the last window, most first."""
        ranked = sorted((p, name) for p, name in zip(watch.p_values, watch.columns, strict=False) if p < 0.05)
        return tuple(name for _, name in ranked)

    def _open(self, watch: VersionWatch, kind: Kind, action: Action, finding: Finding, now: float) -> None:
        # Several late alerts can fall into one window of labels; each begins with fresh evidence.
        key = f"{kind}.{finding.window.index}.{watch.fresh_from}"
        id = derived_id("monitor", f"{self.model}.{watch.version}", "drift.detected", key)
        self.incident = Incident(
            id=id,
            run=run_of(SOURCE, id, self.model),
            model=self.model,
            version=watch.version,
            kind=kind,
            action=action,
            window=finding.window,
            evidence=finding.evidence,
            columns=finding.columns,
            opened=now,
        )
        if action == "retrain":
            self.retrains = [at for at in self.retrains if now - at < DAY] + [now]

    def _end(self, action: Action, now: float) -> None:
        if self.incident and self.incident.version in self.versions:
            self.versions[self.incident.version].start_afresh()
        self.incident, self.closed[action] = None, now

    def told(self, id: str, now: float) -> None:
        """The incident is on the bus. An alert about a loss has no run that would end it: it ends here."""
        if self.incident and self.incident.id == id:
            self.incident = self.incident.model_copy(update={"told": True})
            if self.incident.kind == "performance" and self.incident.action == "alert":
                self._end("retrain", now)

    def only_alert(self, id: str) -> None:
        """Its rows are no longer on the bus: without them nothing can be retrained, a person must know."""
        if self.incident and self.incident.id == id:
            self.incident = self.incident.model_copy(update={"action": "alert"})

    def rows_of(self, incident: Incident) -> Rows:
        """Where the rows behind an incident are: labelled ones since the loss began, else those of the window."""
        watch = self.versions[incident.version]
        if incident.kind == "performance":
            return watch.labelled_rows(watch.loss().since, watch.labelled.capacity)
        return watch.latest_rows(min(incident.window.rows, watch.window_rows))

    def _is_live(self, watch: VersionWatch) -> bool:
        return watch.version in self.live.values()

    def _rested(self, watch: VersionWatch, action: Action, now: float) -> bool:
        pause = watch.promise.cooldown if watch.promise else 0.0
        closed = self.closed["retrain"] if action == "retrain" else max(self.closed.values())
        return now - closed >= pause

    # -- news ------------------------------------------------------------------------------------------------

    def deployed(
        self, version: str, target: str, profile: Profile, promise: Promise, now: float, sequence: int = 0
    ) -> None:
        """A version went live: what was open about another one is settled."""
        if sequence < self.decided.get(target, 0):
            return
        self.decided[target] = sequence
        self.introduce(version, profile, promise)
        changed = self.live.get(target) != version
        self.live[target] = version
        if self.incident and self.incident.version not in self.live.values():
            self._end(self.incident.action, now)
        if changed:
            self.versions[version].start_afresh()

    def run_ended(self, run: str, now: float) -> None:
        """A run ended without a new version; if an incident started it, that is closed."""
        if self.incident and self.incident.run == run and self.incident.action == "retrain":
            self._end("retrain", now)

    def serving_errors(self, version: str, count: int, start: float, end: float, now: float) -> None:
        """Serving reported a burst of errors."""
        watch = self.versions.get(version)
        if watch is None or not self._is_live(watch) or self.incident or not self._rested(watch, "alert", now):
            return
        # Its own window: counted by the minute, so that one minute is told once.
        window = Window(start=start, end=end, rows=watch.rows, labels=0, index=int(end // 60))
        self._open(watch, "quality", "alert", Finding("quality", False, window, {"serving_errors": float(count)}), now)

    # -- memory ----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "decided": self.decided,
            "live": self.live,
            "invalid": self.invalid,
            "closed": self.closed,
            "retrains": self.retrains,
            "incident": self.incident.model_dump(mode="json") if self.incident else None,
            "early": self.early.dump(),
            "versions": {version: watch.dump() for version, watch in self.versions.items()},
        }

    @classmethod
    def load(cls, model: str, state: dict[str, Any], rules: Rules) -> "ModelWatch":
        watch = cls(model, rules)
        for name in ("position", "decided", "live", "invalid", "closed", "retrains"):
            setattr(watch, name, state[name])
        watch.incident = Incident.model_validate(state["incident"]) if state["incident"] else None
        watch.early.load(state["early"])
        watch.versions = {name: VersionWatch.load(one, rules) for name, one in state["versions"].items()}
        return watch


def _generation(version: str) -> int:
    found = _GENERATION.match(version)
    return int(found[0]) if found else 0
