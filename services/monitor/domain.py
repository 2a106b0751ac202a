"""Incidents of one model: traffic and notices go in, incidents come out. There is no bus and no clock in here.

A model has one incident at a time. A loss of performance leads to retraining and has priority over alerts. It stays
open until a new version is live, or until its run has ended without one. Drift without labels is an alert for a person.
The first window without signs of drift closes it.
"""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ConfigDict, Field

from contracts.cloudevents import derived_id, run_of
from contracts.profiles import Profile, Window
from contracts.values import Frozen
from contracts.verdicts import PerformanceTarget
from services.monitor.detection.rules import Rules
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import ModelTraffic, TrafficMessage
from services.monitor.state.performance import LossEstimate
from services.monitor.state.version_state import VersionState
from services.monitor.state.windows import WindowFinding

SOURCE = "bentobelt/monitor"
DAY = 24 * 3600.0
Kind = Literal["performance", "data", "quality"]
Action = Literal["retrain", "alert"]


class Incident(Frozen):
    """An occurrence that a person or the trainer must know of. `id` stays the same however often it is published."""

    model_config = ConfigDict(populate_by_name=True)

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
    published: bool = Field(default=False, alias="told", description="saved as `told`, as in earlier releases")


class ModelState:
    """The state of one model: its traffic, its live versions and the open incident."""

    _STORED = ("decided", "live", "closed", "retrains")
    """Attributes that are saved, under these names."""

    def __init__(self, model: str, rules: Rules) -> None:
        self.model, self.rules = model, rules
        self.traffic = ModelTraffic(rules)
        self.live: dict[str, str] = {}
        """The live version of each deployment target."""
        self.decided: dict[str, int] = {}
        """The sequence of the newest `model.deployed` of each deployment target: older ones are ignored."""
        self.incident: Incident | None = None
        self.closed: dict[Action, float] = {"retrain": float("-inf"), "alert": float("-inf")}
        """Time at which the last incident of each kind of action was closed."""
        self.retrains: list[float] = []
        """Times of the retrainings of the last day."""

    # -- traffic ---------------------------------------------------------------------------------------------

    def add_version(self, version: str, profile: Profile | None, target: PerformanceTarget | None) -> None:
        """Add a version; without a target only its rows and labels are counted."""
        self.traffic.add_version(version, profile, target, self.live.values())

    def apply(self, messages: Iterable[TrafficMessage], now: float) -> None:
        """Count messages, and open or close incidents. Repeated messages and any order are allowed."""
        for state, finding in self.traffic.count(messages, now):
            self._apply_finding(state, finding, now)
        self._update_incident(now)

    def tick(self, now: float) -> None:
        """Do what is due by time alone: close windows, open or close incidents."""
        for state, finding in self.traffic.close_windows(now):
            self._apply_finding(state, finding, now)
        self._update_incident(now)

    # -- incidents -------------------------------------------------------------------------------------------

    def _apply_finding(self, state: VersionState, finding: WindowFinding, now: float) -> None:
        if not self._is_live(state):
            return
        if finding.calm and self.incident and self.incident.action == "alert" and self.incident.published:
            self._close("alert", now)
        elif finding.kind and self.incident is None and self._cooldown_over(state, "alert", now):
            self._open(state, finding.kind, "alert", finding, now)

    def _update_incident(self, now: float) -> None:
        """Open a performance incident when there are enough labels, and close one that has expired."""
        if self.incident and now - self.incident.opened > self.rules.expire_seconds:
            self._close(self.incident.action, now)
        for state in self._below_target():
            self._check_performance(state, now)

    def version_below_target(self, now: float) -> VersionState | None:
        """Return the version that seems to be below its target while labels for an incident are still collected."""
        if self.incident and self.incident.kind == "performance":
            return None
        return next((state for state in self._below_target() if self._cooldown_over(state, "retrain", now)), None)

    def _below_target(self) -> list[VersionState]:
        versions = self.traffic.versions.values()
        return [state for state in versions if state.performance.alarmed is not None and self._is_live(state)]

    def _check_performance(self, state: VersionState, now: float) -> None:
        performance, alarmed = state.performance, state.performance.alarmed
        open_already = self.incident is not None and self.incident.kind == "performance"
        if open_already or not self._cooldown_over(state, "retrain", now) or state.target is None or alarmed is None:
            return
        late = now - alarmed > self.rules.gather_seconds
        if performance.fresh_labels < state.window_rows and not late:
            return
        loss = state.estimate_loss()
        if loss.labels and 1 - loss.value <= performance.tolerated_error_rate:
            state.reset_evidence()  # The version has recovered since the alarm.
            return
        enough = loss.labels >= state.window_rows and loss.classes > 1 and loss.coverage >= self.rules.min_coverage
        if not enough and not late:
            return
        within_budget = sum(now - at < DAY for at in self.retrains) < self.rules.retrains_per_day
        evidence = _evidence(state.target, loss, performance.statistic)
        finding = WindowFinding(None, False, loss.window, evidence, state.windows.suspicious_columns)
        self._open(state, "performance", "retrain" if enough and within_budget else "alert", finding, now)

    def _open(self, state: VersionState, kind: Kind, action: Action, finding: WindowFinding, now: float) -> None:
        # Several alerts can fall into one window of labels. The first row of their evidence tells them apart.
        key = f"{kind}.{finding.window.index}.{state.performance.fresh_from}"
        id = derived_id("monitor", f"{self.model}.{state.version}", "drift.detected", key)
        self.incident = Incident(
            id=id,
            run=run_of(SOURCE, id, self.model),
            model=self.model,
            version=state.version,
            kind=kind,
            action=action,
            window=finding.window,
            evidence=finding.evidence,
            columns=finding.columns,
            opened=now,
        )
        if action == "retrain":
            self.retrains = [at for at in self.retrains if now - at < DAY] + [now]

    def _close(self, action: Action, now: float) -> None:
        if self.incident and self.incident.version in self.traffic.versions:
            self.traffic.versions[self.incident.version].reset_evidence()
        self.incident, self.closed[action] = None, now

    def mark_published(self, id: str, now: float) -> None:
        """Record that the incident is on the bus. An alert about performance is closed here: no run will end it."""
        if self.incident and self.incident.id == id:
            self.incident = self.incident.model_copy(update={"published": True})
            if self.incident.kind == "performance" and self.incident.action == "alert":
                self._close("retrain", now)

    def reduce_to_alert(self, id: str) -> None:
        """Turn the incident into an alert: its rows are no longer on the bus, so that nothing can be retrained."""
        if self.incident and self.incident.id == id:
            self.incident = self.incident.model_copy(update={"action": "alert"})

    def rows_of(self, incident: Incident) -> RowPositions:
        """Return the positions of an incident's rows: the labelled rows since the loss, or those of the window."""
        state = self.traffic.versions[incident.version]
        if incident.kind == "performance":
            return state.performance.positions(state.estimate_loss().since, state.performance.rows.capacity)
        return state.latest_rows(min(incident.window.rows, state.window_rows))

    def _is_live(self, state: VersionState) -> bool:
        return state.version in self.live.values()

    def _cooldown_over(self, state: VersionState, action: Action, now: float) -> bool:
        pause = state.target.cooldown if state.target else 0.0
        closed = self.closed["retrain"] if action == "retrain" else max(self.closed.values())
        return now - closed >= pause

    # -- notices ---------------------------------------------------------------------------------------------

    def version_deployed(
        self,
        version: str,
        deployment_target: str,
        profile: Profile,
        target: PerformanceTarget,
        now: float,
        sequence: int = 0,
    ) -> None:
        """Record that a version is live; an open incident of a version that is no longer live is closed."""
        if sequence < self.decided.get(deployment_target, 0):
            return
        self.decided[deployment_target] = sequence
        self.add_version(version, profile, target)
        changed = self.live.get(deployment_target) != version
        self.live[deployment_target] = version
        if self.incident and self.incident.version not in self.live.values():
            self._close(self.incident.action, now)
        if changed:
            self.traffic.versions[version].reset_evidence()

    def run_ended(self, run: str, now: float) -> None:
        """Close the incident that started this run; the run has ended without a new version."""
        if self.incident and self.incident.run == run and self.incident.action == "retrain":
            self._close("retrain", now)

    def serving_errors(self, version: str, count: int, start: float, end: float, now: float) -> None:
        """Open an alert about a burst of serving errors."""
        state = self.traffic.versions.get(version)
        if state is None or not self._is_live(state) or self.incident or not self._cooldown_over(state, "alert", now):
            return
        # These windows are numbered by the minute, so that one minute gives one alert.
        window = Window(start=start, end=end, rows=state.windows.rows, labels=0, index=int(end // 60))
        finding = WindowFinding("quality", False, window, {"serving_errors": float(count)})
        self._open(state, "quality", "alert", finding, now)

    # -- saved state -----------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return {
            **self.traffic.dump(),
            **{name: getattr(self, name) for name in self._STORED},
            "incident": self.incident.model_dump(mode="json", by_alias=True) if self.incident else None,
        }

    @classmethod
    def load(cls, model: str, saved: dict[str, Any], rules: Rules) -> "ModelState":
        state = cls(model, rules)
        state.traffic.load(saved)
        for name in cls._STORED:
            setattr(state, name, saved[name])
        state.incident = Incident.model_validate(saved["incident"]) if saved["incident"] else None
        return state


def _evidence(target: PerformanceTarget, loss: LossEstimate, statistic: float) -> dict[str, float]:
    return {
        target.metric: loss.value,
        "promised": target.value,
        "max_loss": target.max_loss,
        "e_value": statistic,
        "labels": float(loss.labels),
        "coverage": loss.coverage,
    }
