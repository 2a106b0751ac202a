"""`belt watch`: follows runs live."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, output
from belt.commands import runs
from belt.live_view import LiveView
from belt.output import HOME, Home, Json
from contracts.cloudevents import Envelope
from contracts.events import Event
from services.timeline import Run, history, wording
from services.timeline import runs as timeline


def watch(
    run: Annotated[
        str | None, typer.Argument(help="Follow only this run, until it is over. Default: all runs, until Ctrl-C.")
    ] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Follow one run or all of them live, with progress, also across a restart of the bus.

    Example:  belt watch 3f2a90c1d4e5b6a7
    """
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(home, run, json))


async def _watch(home: Path, id: str | None, as_json: bool) -> None:
    async with connection.bus(home, reconnect=True) as bus:
        known = timeline.build_runs(past := await history.events(bus))
        start = past[-1][1].sequence + 1 if past else 1
        if id is None:
            output.info("watching all runs until Ctrl-C; `belt push PROJECT` starts one")
        else:
            run = runs.find(known, id)
            known, id = [run], run.id
            for event, about in past:
                if about.run == id and as_json:
                    output.json_line(as_document(event, about))
            if not as_json:
                output.stdout().print(runs.view(run))
            if run.is_over:
                return
        with LiveView(output.stderr() if as_json else output.stdout()) as view:
            async with history.follow_all(bus, start) as upcoming:
                await follow(upcoming, {run.id: run for run in known}, view, only=id, as_json=as_json)


async def follow(
    upcoming: history.NextItem, known: dict[str, Run], view: LiveView, *, only: str | None = None, as_json: bool = False
) -> None:
    """Show events and log lines; with `only` those of one run, until it is over. `known` has the state of each run."""
    while not (only and only in known and known[only].is_over):
        item = await upcoming()
        if item.event and only in (None, item.event[1].run):
            event, about = item.event
            if run := timeline.apply_event(known.get(about.run), event, about):
                known[about.run] = run
            if as_json:
                output.json_line(as_document(event, about))
            else:
                view.show_event(event, about, run)
        elif item.log and only in (None, item.log.get("run")):
            if as_json:
                output.json_line({"kind": "log", **item.log})
            else:
                view.show_log(item.log)


def as_document(event: Event, about: Envelope) -> dict[str, Any]:
    """Return an event as a JSON object."""
    return {
        "kind": "event",
        "time": about.time,
        "run": about.run,
        "subject": about.subject,
        "id": about.id,
        "sequence": about.sequence,
        "says": wording.describe(event),
        "event": event,
    }
