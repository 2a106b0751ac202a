"""`belt runs` and `belt run`: what happened, read from the event stream."""

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

WHY = 240
"""Characters of a run's reason in a list; `belt run` shows all of it."""


def runs(
    model: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """List the runs, newest first: outcome, what is under way, how long it took.

    Example:  belt runs --model digits
    """
    told = [run for run in connection.run(_stories(home)) if model in (None, run.model)][::-1][:limit]
    output.result(json, [summary(run) for run in told], _table(told))


def run(
    run: Annotated[str, typer.Argument(help="Id of a run, or the beginning of one.")],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Show one run: its stages with their times, the outcome, and every event.

    Example:  belt run 3f2a90c1d4e5b6a7
    """
    found = connection.run(_find(home, run))
    output.result(json, document(found), picture(found))


def summary(run: Run) -> dict[str, Any]:
    """A run as JSON, without its events."""
    return {
        "run": run.id,
        "model": run.model,
        "version": run.version,
        "outcome": run.outcome,
        "under_way": run.under_way,
        "why": run.why,
        "url": run.url,
        "started_by": run.started_by,
        "event": run.cause,
        "generation": run.generation,
        "started": run.started,
        "seconds": run.seconds,
        "next": timeline.command_after(run),
    }


def document(run: Run) -> dict[str, Any]:
    """A run as JSON, with stages and events."""
    stages = [
        {"stage": stage.room, "state": stage.state, "seconds": stage.seconds, "says": stage.says}
        for stage in run.stages
    ]
    return summary(run) | {"stages": stages, "events": [vars(moment) for moment in run.moments]}


def picture(run: Run) -> Group:
    """A run for a person."""
    head = {
        "run": run.id,
        "model": f"{run.model} {run.version or ''}",
        "outcome": f"{run.outcome}, {run.under_way} works on it" if run.under_way else run.outcome,
        "why": run.why if run.outcome != "deployed" else "",
        "url": run.url,
        "started": f"{output.moment(run.started)} by {run.started_by} {run.cause}",
        "took": wording.duration(run.seconds),
        "next": timeline.command_after(run),
    }
    detail = next((moment.detail for moment in reversed(run.moments) if moment.detail), "")
    told: tuple[str | Text, ...] = ("", Text(indent(detail, "  "), "dim"))
    why = told if detail and run.outcome == "failed" else ()
    return Group(output.facts(head), *why, "", _stages(run), "", _moments(run))


def find(told: list[Run], id: str) -> Run:
    """The run with this id, or with an id that begins so.

    Raises:
        Failed: none, or several.
    """
    found = [run for run in told if run.id == id] or [run for run in told if run.id.startswith(id)]
    if not found:
        raise Failed(f"no run {id!r} in the last 30 days; `belt runs` lists them, `belt trace` knows older versions")
    if len(found) > 1:
        raise Failed(f"{len(found)} runs begin with {id!r}: {', '.join(run.id for run in found)}")
    return found[0]


async def _stories(home: Home) -> list[Run]:
    async with connection.bus(home) as bus:
        return timeline.stories(await history.events(bus))


async def _find(home: Home, id: str) -> Run:
    return find(await _stories(home), id)


def _table(told: list[Run]) -> Any:
    rows = (
        [
            run.id,
            run.model,
            run.version,
            run.outcome,
            output.moment(run.started),
            wording.duration(run.seconds),
            f"{run.under_way} works on it" if run.under_way else shorten(run.why, WHY, placeholder=" …"),
        ]
        for run in told
    )
    columns = ("RUN", "MODEL", "VERSION", "OUTCOME", "STARTED", "TOOK", "WHAT")
    return output.table(columns, rows, "No runs yet: `belt push PROJECT` starts one.")


def _stages(run: Run) -> Table:
    grid = Table.grid(padding=(0, 2))
    for stage in run.stages:
        mark, _, room, took, says, _ = live_view.stage_row(run, stage)
        grid.add_row(mark if stage.state != "working" else "…", room, took, says)
    return grid


def _moments(run: Run) -> Any:
    rows = (
        [
            f"+{(moment.time - run.started).total_seconds():.2f} s",
            f"EVENTS:{moment.sequence}",
            moment.subject,
            moment.says,
        ]
        for moment in run.moments
    )
    return output.table(("TIME", "EVENT", "SUBJECT", "WHAT"), rows, "")
