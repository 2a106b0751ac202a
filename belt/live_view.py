"""Shows what happens while it happens: on a terminal a line per event above the stages of what is under way,
elsewhere plain lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from textwrap import indent
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from contracts.cloudevents import Envelope
from contracts.events import Event
from services.timeline import Run, Stage, wording

COLOURS = {
    "deployed": "green", "running": "cyan", "review": "yellow", "rejected": "yellow", "superseded": "yellow",
    "failed": "red", "done": "green", "working": "cyan", "waiting": "dim", "stopped": "yellow",
}  # fmt: skip
MARKS = {"done": "✓", "failed": "✗", "stopped": "■", "waiting": "·"}
LOUD = ("warning", "error", "critical")
TRACES = ("exception", "traceback")
"""Where a line has a traceback: a worker's, or a serving process's."""
_SPINNER = Spinner("dots", style="cyan")


@dataclass(frozen=True)
class Progress:
    """How far a room says it is: `done` of `total` of a step; both may be unknown."""

    room: str
    step: str
    done: float | None
    total: float | None

    def __str__(self) -> str:
        count = f" {self.done:g}/{self.total:g}" if self.done is not None and self.total else ""
        return f"{self.step}{count}"


def progress(line: Mapping[str, Any]) -> Progress | None:
    """The progress in a log line, if it is one."""
    if line.get("event") != "progress":
        return None
    done, total = line.get("done"), line.get("total")
    return Progress(
        room=str(line.get("service", "")),
        step=str(line.get("step", "")),
        done=done if isinstance(done, int | float) else None,
        total=total if isinstance(total, int | float) else None,
    )


def furthest(before: Progress | None, now: Progress) -> Progress:
    """The step of `now` with a count that never falls: steps of a room run side by side and each has its own."""
    if before is None or before.room != now.room or before.total != now.total or before.done is None:
        return now
    return replace(now, done=max(before.done, now.done or 0))


class Screen:
    """A console that is told events and log lines. On a terminal it keeps the runs under way at the bottom."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runs: dict[str, Run] = {}
        self._over: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._live.stop()

    def happened(self, event: Event, about: Envelope, run: Run | None) -> None:
        """Show an event, and the run it belongs to as it stands after it."""
        self._progress.pop(about.run, None)
        self._runs.pop(about.run, None)
        self._over.discard(about.run)
        if run and run.over:
            self._over.add(run.id)
        elif run:
            self._runs[run.id] = run
        self._print(event_line(event, about))
        if detail := wording.detail(event):
            self._print(Text(indent(detail, "          "), "dim"))

    def logged(self, line: Mapping[str, Any]) -> None:
        """Show a log line: progress moves the bar, warnings and errors are printed, without their tracebacks."""
        run = str(line.get("run", ""))
        if made := progress(line):
            if self._works(run, made.room):
                self._made(run, made)
        elif line.get("level") in LOUD:
            self._print(log_line({name: value for name, value in line.items() if name not in TRACES}))

    def _works(self, run: str, room: str) -> bool:
        """Whether a room may still be at it: lines come on a stream of their own, also after the event that ends it."""
        if known := self._runs.get(run):
            return any(stage.room == room and stage.state == "working" for stage in known.stages)
        return run not in self._over

    def _made(self, run: str, made: Progress) -> None:
        before = self._progress.get(run)
        self._progress[run] = furthest(before, made)
        told = (run, made.room, made.step)
        if not self._console.is_terminal and told not in self._told:
            self._told.add(told)
            self._print(Text(f"          {made.room}: {made.step}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _view(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        for run in self._runs.values():
            for stage in run.stages:
                working = stage.state == "working"
                made = self._progress.get(run.id) if working else None
                grid.add_row(*stage_row(run, stage, made if made and made.room == stage.room else None))
        return grid


def stage_row(run: Run, stage: Stage, made: Progress | None = None) -> list[RenderableType]:
    """Mark, model, room, time and what it says, or how far it is."""
    colour = COLOURS[stage.state]
    mark: RenderableType = _SPINNER if stage.state == "working" else Text(MARKS[stage.state], colour)
    bar: RenderableType = ""
    if made and made.done is not None and made.total:
        bar = ProgressBar(total=made.total, completed=made.done, width=20)
    says = str(made) if made else stage.says
    return [mark, run.model, Text(stage.room, colour), wording.duration(stage.seconds), Text(says), bar]


def event_line(event: Event, about: Envelope) -> Text:
    """`12:00:01  digits d04e8771  model.trained  accuracy 0.972`."""
    colour = "red" if about.subject.endswith((".failed", "data.rejected")) else "bold"
    text = Text(f"{about.time.astimezone():%H:%M:%S}  ", "dim")
    text.append(f"{about.model} ", "cyan").append(f"{about.run}  ", "dim")
    return text.append(f"{about.subject:<17} ", colour).append(wording.says(event), "not dim")


def log_line(line: Mapping[str, Any]) -> Text:
    """One log line for a person: time, level, service, run, message, and what else it says."""
    known = ("timestamp", "level", "service", "run", "model", "event", "subject", "event_id", *TRACES)
    level = str(line.get("level", "info"))
    colour = {"error": "red", "critical": "red", "warning": "yellow"}.get(level, "dim")
    text = Text(f"{_clock(line.get('timestamp'))}  ", "dim").append(f"{level:<8}", colour)
    text.append(f"{line.get('service', '')} ", "cyan")
    text.append(" ".join(str(line[name]) for name in ("model", "run") if line.get(name)) + "  ", "dim")
    text.append(str(line.get("event", "")))
    for name, value in line.items():
        if name not in known and value is not None:
            text.append(f" {name}={round(value, 3) if isinstance(value, float) else value}", "dim")
    for trace in filter(None, map(line.get, TRACES)):
        text.append(f"\n{trace}", "dim")
    return text


def _clock(timestamp: object) -> str:
    """The local time of day of an ISO timestamp; what is none stays as it is."""
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S}"
    except ValueError:
        return str(timestamp or "")
