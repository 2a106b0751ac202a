"""What the events of a run add up to: which stage is where, how long it took, how it ended. Pure.

stories(events)             every run in a history
after(run, event, about)    one run after one more event, for following it live
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

ROOM_OF = STAGES
ROOMS = tuple(STAGES.values())
State = Literal["waiting", "working", "done", "failed", "stopped"]
Outcome = Literal["running", "deployed", "review", "rejected", "failed", "superseded"]


@dataclass(frozen=True)
class Stage:
    """One room's part of a run. `stopped`: it ended here, but nothing broke (a rejection, a newer version)."""

    room: str
    state: State = "waiting"
    started: datetime | None = None
    ended: datetime | None = None
    says: str = ""

    @property
    def seconds(self) -> float | None:
        """From the event that started it to the one that ended it."""
        if not self.started or not self.ended:
            return None
        return max(0.0, (self.ended - self.started).total_seconds())


@dataclass(frozen=True)
class Moment:
    """One event on a timeline."""

    time: datetime
    subject: str
    says: str
    id: str
    source: str
    sequence: int
    detail: str = ""


@dataclass(frozen=True)
class Run:
    """A run so far. `outcome` is `review` while a version waits for a person."""

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
    why: str = ""
    url: str | None = None
    stages: tuple[Stage, ...] = tuple(Stage(room) for room in ROOMS)
    moments: tuple[Moment, ...] = ()
    seen: frozenset[tuple[str, str, str]] = field(default=frozenset(), repr=False)

    @property
    def under_way(self) -> str | None:
        """The room that works on it."""
        return next((stage.room for stage in self.stages if stage.state == "working"), None)

    @property
    def broken(self) -> str | None:
        """The room where it failed."""
        return next((stage.room for stage in self.stages if stage.state == "failed"), None)

    @property
    def over(self) -> bool:
        """Nothing more will happen by itself."""
        return self.outcome != "running"

    @property
    def seconds(self) -> float | None:
        """From its first event to the one that ended it; None while it runs."""
        return max(0.0, (self.ended - self.started).total_seconds()) if self.ended else None


def stories(events: Iterable[tuple[Event, Envelope]]) -> list[Run]:
    """Every run in a history, in the order they started. Events of no run (an alert, a rollback's) are left out."""
    runs: dict[str, Run] = {}
    for event, about in events:
        if told := after(runs.get(about.run), event, about):
            runs[about.run] = told
    return list(runs.values())


def after(run: Run | None, event: Event, about: Envelope) -> Run | None:
    """The run after `event`; None when the event belongs to no run. What was seen before changes nothing."""
    if run is None:
        run = _begin(event, about)
    key = (about.subject, about.source, about.id)
    if run is None or key in run.seen:
        return run
    moment = Moment(
        about.time, about.subject, wording.says(event), about.id, about.source, about.sequence, wording.detail(event)
    )
    run = replace(run, seen=run.seen | {key}, moments=(*run.moments, moment))
    return _next(run, event, about.time)


def verdict(run: Run) -> str:
    """How a run ended that did not deploy, in one line; why a failure failed is told where it is shown."""
    version = f"{run.model} {run.version}"
    return {
        "review": f"{version} waits for a person: {run.why}",
        "rejected": f"{version} was rejected: {run.why}",
        "superseded": f"{version} is not needed: {run.why}",
        "failed": f"{run.model} is not deployed: the {run.broken} did not get through",
    }.get(run.outcome, f"{run.model} is {run.outcome}")


def command_after(run: Run) -> str | None:
    """What a person can run next."""
    version = f"{run.model} {run.version}"
    return {
        "running": f"belt watch {run.id}",
        "deployed": f"belt predict {run.model} ROWS",
        "review": f'belt review approve {version} --reason "…"   (or reject; `belt review list` shows the verdict)',
        "rejected": f"belt trace {run.model}:{run.version}",
        "failed": f"belt logs {run.id}",
        "superseded": "belt deployments",
    }[run.outcome]


def _begin(event: Event, about: Envelope) -> Run | None:
    retrains = isinstance(event, DriftDetected) and event.action == "retrain"
    # The stream forgets after 30 days: a run may begin for us with what the trainer said.
    trainer_said = isinstance(event, DataRejected | ModelTrained | TrainingFailed)
    if not (retrains or trainer_said or about.subject == "data.pushed"):
        return None
    begun = Run(about.run, about.model, about.generation, about.subject, about.id, about.time)
    return _works(begun, "trainer", about.time)


def _next(run: Run, event: Event, now: datetime) -> Run:
    says = wording.says(event)
    match event:
        case DataRejected():
            return _ends(run, "trainer", "failed", now, "failed", f"data rejected: {says}")
        case ModelTrained():
            done = _stage(run, "trainer", "done", now, says)
            return _works(replace(done, version=event.version), "evaluator", now)
        case ModelApproved():
            return _works(_stage(run, "evaluator", "done", now, says), "builder", now)
        case ModelRejected():
            outcome: Outcome = "review" if event.by == "gate" else "rejected"
            return _ends(run, "evaluator", "stopped", now, outcome, says)
        case ReviewDecided(decision="approve"):
            return _works(run, "evaluator", now)
        case ImagePushed():
            return _works(_stage(run, "builder", "done", now, says), "deployer", now)
        case StageFailed():
            return _fails(run, event, now, says)
        case _:
            return _goes_live(run, event, now, says)


def _goes_live(run: Run, event: Event, now: datetime, says: str) -> Run:
    match event:
        case ModelDeployed(reason="release"):
            live = _ends(run, "deployer", "done", now, "deployed", says)
            return replace(live, url=event.url, version=event.version)
        case ModelSuperseded() if run.outcome != "deployed":
            return _ends(run, "deployer", "stopped", now, "superseded", says)
        case _:
            return run


def _fails(run: Run, event: StageFailed, now: datetime, says: str) -> Run:
    # Live somewhere stays deployed: what fails later is another target or a rollback.
    if run.outcome == "deployed":
        return run
    run = replace(run, version=run.version or event.version)
    return _ends(run, ROOM_OF[event.stage], "failed", now, "failed", f"{event.stage} failed: {says}")


def _works(run: Run, room: str, now: datetime) -> Run:
    begun = _change(run, Stage(room, "working", started=now))
    return replace(begun, outcome="running", why="", ended=None)


def _ends(run: Run, room: str, state: State, now: datetime, outcome: Outcome, why: str) -> Run:
    return replace(_stage(run, room, state, now, why), outcome=outcome, why=why, ended=now)


def _stage(run: Run, room: str, state: State, now: datetime, says: str) -> Run:
    before = next(stage for stage in run.stages if stage.room == room)
    return _change(run, replace(before, state=state, ended=now, says=says))


def _change(run: Run, changed: Stage) -> Run:
    return replace(run, stages=tuple(changed if stage.room == changed.room else stage for stage in run.stages))
