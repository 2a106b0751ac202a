"""A live view of runs: on a terminal one line per event above the stages of the active runs, elsewhere plain lines."""

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
SHOWN_LEVELS = ("warning", "error", "critical")
TRACES = ("exception", "traceback")
"""Fields of a log line with a traceback: the first one of workers, the second one of serving processes."""
_SPINNER = Spinner("dots", style="cyan")


@dataclass(frozen=True)
class Progress:
    """Progress of a service within a run: `done` of `total` of a step; both may be unknown."""

    service: str
    step: str
    done: float | None
    total: float | None

    def __str__(self) -> str:
        count = f" {self.done:g}/{self.total:g}" if self.done is not None and self.total else ""
        return f"{self.step}{count}"


def progress(line: Mapping[str, Any]) -> Progress | None:
    """Return the progress in a log line; None when the line is something else."""
    if line.get("event") != "progress":
        return None
    done, total = line.get("done"), line.get("total")
    return Progress(
        service=str(line.get("service", "")),
        step=str(line.get("step", "")),
        done=done if isinstance(done, int | float) else None,
        total=total if isinstance(total, int | float) else None,
    )


def latest_progress(before: Progress | None, now: Progress) -> Progress:
    """Return `now` with a count that never falls: parallel steps of a service report counts of their own."""
    if before is None or before.service != now.service or before.total != now.total or before.done is None:
        return now
    return replace(now, done=max(before.done, now.done or 0))


class LiveView:
    """Shows events and log lines on a console. On a terminal the stages of the active runs stay at the bottom."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runs: dict[str, Run] = {}
        self._over: set[str] = set()
        self._progress: dict[str, Progress] = {}
        self._printed_steps: set[tuple[str, str, str]] = set()
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._live.stop()

    def show_event(self, event: Event, about: Envelope, run: Run | None) -> None:
        """Show an event, and the state of its run after it."""
        self._progress.pop(about.run, None)
        self._runs.pop(about.run, None)
        self._over.discard(about.run)
        if run and run.is_over:
            self._over.add(run.id)
        elif run:
            self._runs[run.id] = run
        self._print(event_line(event, about))
        if detail := wording.detail(event):
            self._print(Text(indent(detail, "          "), "dim"))

    def show_log(self, line: Mapping[str, Any]) -> None:
        """Show a log line: progress moves the bar; warnings and errors are printed without their tracebacks."""
        run = str(line.get("run", ""))
        if reported := progress(line):
            if self._may_be_working(run, reported.service):
                self._show_progress(run, reported)
        elif line.get("level") in SHOWN_LEVELS:
            self._print(log_line({name: value for name, value in line.items() if name not in TRACES}))

    def _may_be_working(self, run: str, service: str) -> bool:
        # Log lines have a stream of their own: a line may arrive after the event that ended its stage.
        if known := self._runs.get(run):
            return any(stage.service == service and stage.state == "working" for stage in known.stages)
        return run not in self._over

    def _show_progress(self, run: str, reported: Progress) -> None:
        self._progress[run] = latest_progress(self._progress.get(run), reported)
        step = (run, reported.service, reported.step)
        if not self._console.is_terminal and step not in self._printed_steps:
            self._printed_steps.add(step)
            self._print(Text(f"          {reported.service}: {reported.step}"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def _view(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        for run in self._runs.values():
            reported = self._progress.get(run.id)
            for stage in run.stages:
                is_its_own = reported and stage.state == "working" and reported.service == stage.service
                grid.add_row(*stage_row(run, stage, reported if is_its_own else None))
        return grid


def stage_row(run: Run, stage: Stage, reported: Progress | None = None) -> list[RenderableType]:
    """Return the cells of a stage: mark, model, service, time, summary (or the current step) and a progress bar."""
    colour = COLOURS[stage.state]
    mark: RenderableType = _SPINNER if stage.state == "working" else Text(MARKS[stage.state], colour)
    bar: RenderableType = ""
    if reported and reported.done is not None and reported.total:
        bar = ProgressBar(total=reported.total, completed=reported.done, width=20)
    summary = str(reported) if reported else stage.summary
    return [mark, run.model, Text(stage.service, colour), wording.duration(stage.seconds), Text(summary), bar]


def event_line(event: Event, about: Envelope) -> Text:
    """Return `12:00:01  digits d04e8771  model.trained  trained in 1.5 s: accuracy 0.972`."""
    colour = "red" if about.subject.endswith((".failed", "data.rejected")) else "bold"
    text = Text(f"{about.time.astimezone():%H:%M:%S}  ", "dim")
    text.append(f"{about.model} ", "cyan").append(f"{about.run}  ", "dim")
    return text.append(f"{about.subject:<17} ", colour).append(wording.describe(event), "not dim")


def log_line(line: Mapping[str, Any]) -> Text:
    """Return a log line for a person: time, level, service, model, run, message, and its other fields."""
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
    """Return the local time of day of an ISO timestamp; any other text stays as it is."""
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S}"
    except ValueError:
        return str(timestamp or "")
