"""What the monitor decides about one model: traffic and news go in, incidents come out. No bus, no clock.

One incident at a time. A loss of the promised metric leads to retraining and outranks alerts; it stays open until a
new version is live or its run ended without one. Drift without labels is for a person: an alert, closed by the first
calm window.
"""

from collections.abc import Iterable
from typing import Any, Literal

from contracts.cloudevents import derived_id, run_of
from contracts.profiles import Profile, Window
from contracts.values import Frozen
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import ModelTraffic, TrafficMessage
from services.monitor.state.version_state import VersionState
from services.monitor.state.windows import WindowFinding

SOURCE = "bentobelt/monitor"
DAY = 24 * 3600.0
Kind = Literal["performance", "data", "quality"]
Action = Literal["retrain", "alert"]


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


class ModelState:
    """The state of one model: its traffic, what is live, the open incident."""

    _KEPT = ("decided", "live", "closed", "retrains")

    def __init__(self, model: str, rules: Rules) -> None:
        self.model, self.rules = model, rules
        self.traffic = ModelTraffic(rules)
        self.live: dict[str, str] = {}
        self.decided: dict[str, int] = {}
        """Per target the sequence of the newest `model.deployed`: older news change nothing."""
        self.incident: Incident | None = None
        self.closed: dict[Action, float] = {"retrain": float("-inf"), "alert": float("-inf")}
        self.retrains: list[float] = []

    # -- traffic ---------------------------------------------------------------------------------------------

    def introduce(self, version: str, profile: Profile | None, promise: PerformanceTarget | None) -> None:
        """Watch a version; without a promise only its rows and labels are counted."""
        self.traffic.introduce(version, profile, promise, self.live.values())

    def apply(self, traffic: Iterable[TrafficMessage], now: float) -> None:
        """Take messages in, in any order and however often the bus repeats them."""
        for watch, finding in self.traffic.take(traffic, now):
            self._found(watch, finding, now)
        self.decide(now)

    def tick(self, now: float) -> None:
        """What is due by time alone."""
        for watch, finding in self.traffic.close(now):
            self._found(watch, finding, now)
        self.decide(now)

    # -- incidents -------------------------------------------------------------------------------------------

    def _found(self, watch: VersionState, finding: WindowFinding, now: float) -> None:
        if not self._is_live(watch):
            return
        if finding.calm and self.incident and self.incident.action == "alert" and self.incident.told:
            self._end("alert", now)
        elif finding.kind and self.incident is None and self._rested(watch, "alert", now):
            self._open(watch, finding.kind, "alert", finding, now)

    def suspect(self, now: float) -> VersionState | None:
        """The version that seems to lose what it promised, while its labels are too few to be sure."""
        if self.incident and self.incident.kind == "performance":
            return None
        return next((watch for watch in self._losing() if self._rested(watch, "retrain", now)), None)

    def decide(self, now: float) -> None:
        """Open a performance incident when the labels say so, expire one that nobody ended."""
        if self.incident and now - self.incident.opened > self.rules.expire_seconds:
            self._end(self.incident.action, now)
        for watch in self._losing():
            self._decide(watch, now)

    def _losing(self) -> list[VersionState]:
        return [w for w in self.traffic.versions.values() if w.judged.alarmed is not None and self._is_live(w)]

    def _decide(self, watch: VersionState, now: float) -> None:
        busy = self.incident is not None and self.incident.kind == "performance"
        if busy or not self._rested(watch, "retrain", now) or watch.promise is None or watch.judged.alarmed is None:
            return
        late = now - watch.judged.alarmed > self.rules.gather_seconds
        if watch.judged.fresh < watch.window_rows and not late:
            return
        loss = watch.loss()
        if loss.labels and 1 - loss.value <= watch.judged.tolerated:
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
            "e_value": watch.judged.statistic,
            "labels": float(loss.labels),
            "coverage": loss.coverage,
        }
        self._open(
            watch, "performance", action, WindowFinding(None, False, loss.window, evidence, watch.windows.moved), now
        )

    def _open(self, watch: VersionState, kind: Kind, action: Action, finding: WindowFinding, now: float) -> None:
        # Several late alerts can fall into one window of labels; each begins with fresh evidence.
        key = f"{kind}.{finding.window.index}.{watch.judged.fresh_from}"
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
        if self.incident and self.incident.version in self.traffic.versions:
            self.traffic.versions[self.incident.version].start_afresh()
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

    def rows_of(self, incident: Incident) -> RowPositions:
        """Where the rows behind an incident are: labelled ones since the loss began, else those of the window."""
        watch = self.traffic.versions[incident.version]
        if incident.kind == "performance":
            return watch.judged.rows(watch.loss().since, watch.judged.ring.capacity)
        return watch.latest_rows(min(incident.window.rows, watch.window_rows))

    def _is_live(self, watch: VersionState) -> bool:
        return watch.version in self.live.values()

    def _rested(self, watch: VersionState, action: Action, now: float) -> bool:
        pause = watch.promise.cooldown if watch.promise else 0.0
        closed = self.closed["retrain"] if action == "retrain" else max(self.closed.values())
        return now - closed >= pause

    # -- news ------------------------------------------------------------------------------------------------

    def deployed(
        self, version: str, target: str, profile: Profile, promise: PerformanceTarget, now: float, sequence: int = 0
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
            self.traffic.versions[version].start_afresh()

    def run_ended(self, run: str, now: float) -> None:
        """A run ended without a new version; if an incident started it, that is closed."""
        if self.incident and self.incident.run == run and self.incident.action == "retrain":
            self._end("retrain", now)

    def serving_errors(self, version: str, count: int, start: float, end: float, now: float) -> None:
        """Serving reported a burst of errors."""
        watch = self.traffic.versions.get(version)
        if watch is None or not self._is_live(watch) or self.incident or not self._rested(watch, "alert", now):
            return
        # Its own window: counted by the minute, so that one minute is told once.
        window = Window(start=start, end=end, rows=watch.windows.rows, labels=0, index=int(end // 60))
        self._open(
            watch, "quality", "alert", WindowFinding("quality", False, window, {"serving_errors": float(count)}), now
        )

    # -- memory ----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            **self.traffic.dump(),
            **{name: getattr(self, name) for name in self._KEPT},
            "incident": self.incident.model_dump(mode="json") if self.incident else None,
        }

    @classmethod
    def load(cls, model: str, state: dict[str, Any], rules: Rules) -> "ModelState":
        watch = cls(model, rules)
        watch.traffic.load(state)
        for name in cls._KEPT:
            setattr(watch, name, state[name])
        watch.incident = Incident.model_validate(state["incident"]) if state["incident"] else None
        return watch
