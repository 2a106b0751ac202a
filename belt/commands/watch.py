"""`belt watch`: follows runs live."""

from collections.abc import Mapping
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
from services.messaging import Bus
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
        connection.run(_watch(home, run, json))


async def _watch(home: Path, id: str | None, as_json: bool) -> None:
    async with connection.bus(home, reconnect=True) as bus:
        known = timeline.build_runs(past := await history.events(bus))
        start = past[-1][1].sequence + 1 if past else 1
        if id is None:
            output.info("watching all runs until Ctrl-C; `belt push PROJECT` starts one")
            await follow(bus, {run.id: run for run in known}, start, as_json)
            return
        run = runs.find(known, id)
        for event, about in past:
            if about.run == run.id and as_json:
                output.json_line(as_document(event, about))
        if not as_json:
            output.stdout().print(runs.view(run))
        if not run.is_over:
            await follow(bus, {run.id: run}, start, as_json, only=run.id)


async def follow(bus: Bus, known: dict[str, Run], start: int, as_json: bool, *, only: str | None = None) -> None:
    """Show events from sequence `start` on, and log lines; with `only` one run, until it is over."""
    with LiveView(output.stderr() if as_json else output.stdout()) as view:
        async with history.follow_all(bus, start) as upcoming:
            while not (only and only in known and known[only].is_over):
                item = await upcoming()
                if item.event and only in (None, item.event[1].run):
                    _show_event(view, known, item.event, as_json)
                elif item.log and only in (None, item.log.get("run")):
                    _show_log(view, item.log, as_json)


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


async def until_over(upcoming: history.NextItem, id: str, view: LiveView) -> Run:
    """Show the run `id` until it is over, and return it."""
    known: dict[str, Run] = {}
    while not (id in known and known[id].is_over):
        item = await upcoming()
        if item.event and item.event[1].run == id:
            _show_event(view, known, item.event, as_json=False)
        elif item.log and item.log.get("run") == id:
            view.show_log(item.log)
    return known[id]


def _show_event(view: LiveView, known: dict[str, Run], found: tuple[Event, Envelope], as_json: bool) -> None:
    event, about = found
    if run := timeline.apply_event(known.get(about.run), event, about):
        known[about.run] = run
    if as_json:
        output.json_line(as_document(event, about))
    else:
        view.show_event(event, about, run)


def _show_log(view: LiveView, line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.json_line({"kind": "log", **line})
    else:
        view.show_log(line)
