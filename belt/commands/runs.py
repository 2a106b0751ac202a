"""`belt runs` and `belt run`: show runs, read from the event stream."""

import asyncio
from textwrap import indent, shorten
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from belt import connection, live_view, output
from belt.output import HOME, Failed, Home, Json
from services.timeline import Run, history, wording
from services.timeline import runs as timeline

REASON_LENGTH = 240
"""Characters of a run's reason in a list; `belt run` shows the whole reason."""


def runs(
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Number of runs, newest first.")] = 20,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """List the runs, newest first, with their outcome and their time.

    Example:  belt runs --model digits
    """
    found = [run for run in asyncio.run(_runs(home)) if model in (None, run.model)][::-1][:limit]
    output.result(json, [summary(run) for run in found], _table(found))


def run(
    run: Annotated[str, typer.Argument(help="Id of a run; its first characters are enough.")],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Show one run: its outcome, its stages with their times, and every event.

    Example:  belt run 3f2a90c1d4e5b6a7
    """
    found = find(asyncio.run(_runs(home)), run)
    output.result(json, document(found), view(found))


def summary(run: Run) -> dict[str, Any]:
    """Return a run as JSON, without its stages and events."""
    return {
        "run": run.id,
        "model": run.model,
        "version": run.version,
        "outcome": run.outcome,
        "under_way": run.active_service,
        "why": run.reason,
        "url": run.url,
        "started_by": run.started_by,
        "event": run.cause,
        "generation": run.generation,
        "started": run.started,
        "seconds": run.seconds,
        "next": timeline.next_command(run),
    }


def document(run: Run) -> dict[str, Any]:
    """Return a run as JSON, with its stages and events."""
    stages = [
        {"stage": stage.service, "state": stage.state, "seconds": stage.seconds, "says": stage.summary}
        for stage in run.stages
    ]
    events = [
        {"says" if name == "summary" else name: value for name, value in vars(event).items()} for event in run.events
    ]
    return summary(run) | {"stages": stages, "events": events}


def view(run: Run) -> Group:
    """Return a run as a person reads it."""
    head = {
        "run": run.id,
        "model": f"{run.model} {run.version or ''}",
        "outcome": f"{run.outcome}, {run.active_service} works on it" if run.active_service else run.outcome,
        "why": run.reason if run.outcome != "deployed" else "",
        "url": run.url,
        "started": f"{output.local_time(run.started)} by {run.started_by} {run.cause}",
        "took": wording.duration(run.seconds),
        "next": timeline.next_command(run),
    }
    detail = next((event.detail for event in reversed(run.events) if event.detail), "")
    shows_detail = detail and run.outcome == "failed"
    error: list[str | Text] = ["", Text(indent(detail, "  "), "dim")] if shows_detail else []
    return Group(output.key_values(head), *error, "", _stages(run), "", _events(run))


def find(runs: list[Run], id: str) -> Run:
    """Return the run whose id is, or begins with, `id`.

    Raises:
        Failed: no run matches, or several do.
    """
    found = [run for run in runs if run.id == id] or [run for run in runs if run.id.startswith(id)]
    if not found:
        raise Failed(
            f"there is no run {id!r} in the last 30 days; `belt runs` lists the runs, `belt trace` knows older versions"
        )
    if len(found) > 1:
        raise Failed(f"{len(found)} runs begin with {id!r}: {', '.join(run.id for run in found)}")
    return found[0]


async def _runs(home: Home) -> list[Run]:
    async with connection.bus(home) as bus:
        return timeline.build_runs(await history.events(bus))


def _table(runs: list[Run]) -> Any:
    rows = []
    for run in runs:
        reason = shorten(run.reason, REASON_LENGTH, placeholder=" …")
        what = f"{run.active_service} works on it" if run.active_service else reason
        started, took = output.local_time(run.started), wording.duration(run.seconds)
        rows.append([run.id, run.model, run.version, run.outcome, started, took, what])
    columns = ("RUN", "MODEL", "VERSION", "OUTCOME", "STARTED", "TOOK", "WHAT")
    return output.table(columns, rows, "No runs yet: `belt push PROJECT` starts one.")


def _stages(run: Run) -> Table:
    grid = Table.grid(padding=(0, 2))
    for stage in run.stages:
        mark, _, service, took, summary, _ = live_view.stage_row(run, stage)
        grid.add_row(mark if stage.state != "working" else "…", service, took, summary)
    return grid


def _events(run: Run) -> Any:
    start = run.started
    rows = (
        [f"+{(e.time - start).total_seconds():.2f} s", f"EVENTS:{e.sequence}", e.subject, e.summary] for e in run.events
    )
    return output.table(("TIME", "EVENT", "SUBJECT", "WHAT"), rows, "")
