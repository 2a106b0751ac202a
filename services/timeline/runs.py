"""Runs, computed from their events: the state and time of each stage, and the outcome. Pure.

build_runs(events)                every run in a history
apply_event(run, event, about)    one run after one more event, for following it live
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from contracts.cloudevents import Envelope
from contracts.events import (
    DataRejected,
    DriftDetected,
    Event,
    ImagePushed,
    ModelApproved,
    ModelDeployed,
    ModelRejected,
    ModelSuperseded,
    ModelTrained,
    ReviewDecided,
    StageFailed,
    TrainingFailed,
)
from contracts.subjects import STAGES
from services.timeline import wording

State = Literal["waiting", "working", "done", "failed", "stopped"]
Outcome = Literal["running", "deployed", "review", "rejected", "failed", "superseded"]


@dataclass(frozen=True)
class Stage:
    """One service's part of a run. `stopped` means that the run ended here without an error, e.g. a rejection."""

    service: str
    state: State = "waiting"
    started: datetime | None = None
    ended: datetime | None = None
    summary: str = ""

    @property
    def seconds(self) -> float | None:
        """Time between the event that started the stage and the one that ended it; None while it works."""
        if not self.started or not self.ended:
            return None
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(frozen=True)
class RunEvent:
    """One event of a run, ready to be shown."""

    time: datetime
    subject: str
    summary: str
    id: str
    source: str
    sequence: int
    detail: str = ""


@dataclass(frozen=True)
class Run:
    """A run so far. `outcome` is `review` while its version waits for a person."""

    id: str
    model: str
    generation: int
    started_by: str
    """Subject of the event that started it."""
    cause: str
    """Id of that event."""
    started: datetime
    ended: datetime | None = None
    version: str | None = None
    outcome: Outcome = "running"
    reason: str = ""
    url: str | None = None
    stages: tuple[Stage, ...] = tuple(Stage(service) for service in STAGES.values())
    events: tuple[RunEvent, ...] = ()
    seen: frozenset[tuple[str, str, str]] = field(default=frozenset(), repr=False)

    @property
    def active_service(self) -> str | None:
        """The service that works on the run now."""
        return next((stage.service for stage in self.stages if stage.state == "working"), None)

    @property
    def failed_service(self) -> str | None:
        """The service whose stage failed."""
        return next((stage.service for stage in self.stages if stage.state == "failed"), None)

    @property
    def is_over(self) -> bool:
        """True when nothing more happens unless a person acts."""
        return self.outcome != "running"

    @property
    def seconds(self) -> float | None:
        """Time between its first event and the one that ended it; None while it runs."""
        return max(0.0, (self.ended - self.started).total_seconds()) if self.ended else None


def build_runs(events: Iterable[tuple[Event, Envelope]]) -> list[Run]:
    """Return every run in a history, in the order they started.

    Events that belong to no run, such as an alert or a rollback, are left out.
    """
    runs: dict[str, Run] = {}
    for event, about in events:
        if run := apply_event(runs.get(about.run), event, about):
            runs[about.run] = run
    return list(runs.values())


def apply_event(run: Run | None, event: Event, about: Envelope) -> Run | None:
    """Return the run after `event`; None when the event belongs to no run. A repeated event changes nothing."""
    if run is None:
        run = _start(event, about)
    key = (about.subject, about.source, about.id)
    if run is None or key in run.seen:
        return run
    summary, detail = wording.describe(event), wording.detail(event)
    shown = RunEvent(about.time, about.subject, summary, about.id, about.source, about.sequence, detail)
    run = replace(run, seen=run.seen | {key}, events=(*run.events, shown))
    return _next(run, event, about.time)


def outcome_line(run: Run) -> str:
    """Return in one line how a run ended that did not deploy. The reason of a failure is shown elsewhere."""
    version = f"{run.model} {run.version}"
    return {
        "review": f"{version} waits for a person: {run.reason}",
        "rejected": f"{version} was rejected: {run.reason}",
        "superseded": f"{version} was not rolled out: {run.reason}",
        "failed": f"{run.model} was not deployed: the {run.failed_service} failed",
    }.get(run.outcome, f"{run.model} is {run.outcome}")


def next_command(run: Run) -> str | None:
    """Return the command that a person can run next."""
    version = f"{run.model} {run.version}"
    return {
        "running": f"belt watch {run.id}",
        "deployed": f"belt predict {run.model} ROWS",
        "review": f'belt review approve {version} --reason "…"   (or reject; `belt review list` shows the verdict)',
        "rejected": f"belt trace {run.model}:{run.version}",
        "failed": f"belt logs {run.id}",
        "superseded": "belt deployments",
    }[run.outcome]


def _start(event: Event, about: Envelope) -> Run | None:
    retrains = isinstance(event, DriftDetected) and event.action == "retrain"
    # The stream keeps 30 days: the first event left of an old run may be the trainer's.
    from_trainer = isinstance(event, DataRejected | ModelTrained | TrainingFailed)
    if not (retrains or from_trainer or about.subject == "data.pushed"):
        return None
    run = Run(about.run, about.model, about.generation, about.subject, about.id, about.time)
    return _start_stage(run, "trainer", about.time)


def _next(run: Run, event: Event, now: datetime) -> Run:
    summary = wording.describe(event)
    match event:
        case DataRejected():
            return _end_run(run, "trainer", "failed", now, "failed", f"data rejected: {summary}")
        case ModelTrained():
            done = _end_stage(run, "trainer", "done", now, summary)
            return _start_stage(replace(done, version=event.version), "evaluator", now)
        case ModelApproved():
            return _start_stage(_end_stage(run, "evaluator", "done", now, summary), "builder", now)
        case ModelRejected():
            outcome: Outcome = "review" if event.by == "gate" else "rejected"
            return _end_run(run, "evaluator", "stopped", now, outcome, summary)
        case ReviewDecided(decision="approve"):
            return _start_stage(run, "evaluator", now)
        case ImagePushed():
            return _start_stage(_end_stage(run, "builder", "done", now, summary), "deployer", now)
        # A run that is live somewhere stays deployed: a later failure concerns another target or a rollback.
        case StageFailed() if run.outcome != "deployed":
            run = replace(run, version=run.version or event.version)
            return _end_run(run, STAGES[event.stage], "failed", now, "failed", f"{event.stage} failed: {summary}")
        case ModelDeployed(reason="release"):
            live = _end_run(run, "deployer", "done", now, "deployed", summary)
            return replace(live, url=event.url, version=event.version)
        case ModelSuperseded() if run.outcome != "deployed":
            return _end_run(run, "deployer", "stopped", now, "superseded", summary)
        case _:
            return run


def _start_stage(run: Run, service: str, now: datetime) -> Run:
    started = _with_stage(run, Stage(service, "working", started=now))
    return replace(started, outcome="running", reason="", ended=None)


def _end_run(run: Run, service: str, state: State, now: datetime, outcome: Outcome, reason: str) -> Run:
    return replace(_end_stage(run, service, state, now, reason), outcome=outcome, reason=reason, ended=now)


def _end_stage(run: Run, service: str, state: State, now: datetime, summary: str) -> Run:
    before = next(stage for stage in run.stages if stage.service == service)
    return _with_stage(run, replace(before, state=state, ended=now, summary=summary))


def _with_stage(run: Run, changed: Stage) -> Run:
    return replace(run, stages=tuple(changed if stage.service == changed.service else stage for stage in run.stages))
