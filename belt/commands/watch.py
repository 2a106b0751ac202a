"""`belt watch`: what happens, while it happens."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, output
from belt.commands import runs
from belt.live_view import Screen
from belt.output import HOME, Home, Json
from contracts.cloudevents import Envelope
from contracts.events import Event
from services.messaging import Bus
from services.timeline import Run, history, wording
from services.timeline import runs as timeline


def watch(
    run: Annotated[
        str | None, typer.Argument(help="Only this run, until it is over. Default: all, until Ctrl-C.")
    ] = None,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Follow one run or all of them live, with progress. Outlives a restart of the bus.

    Example:  belt watch 3f2a90c1d4e5b6a7
    """
    with suppress(KeyboardInterrupt):
        connection.run(_watch(home, run, json))


async def _watch(home: Path, id: str | None, as_json: bool) -> None:
    async with connection.bus(home, patient=True) as bus:
        told = timeline.stories(past := await history.events(bus))
        start = past[-1][1].sequence + 1 if past else 1
        if id is None:
            output.info("watching all runs until Ctrl-C; `belt push PROJECT` begins one")
            await follow(bus, {run.id: run for run in told}, start, as_json)
            return
        run = runs.find(told, id)
        for event, about in past:
            if about.run == run.id and as_json:
                output.line(as_document(event, about))
        if not as_json:
            output.stdout().print(runs.picture(run))
        if not run.over:
            await follow(bus, {run.id: run}, start, as_json, only=run.id)


async def follow(bus: Bus, told: dict[str, Run], start: int, as_json: bool, *, only: str | None = None) -> None:
    """Show events from sequence `start` on, and log lines; with `only` one run, until it is over."""
    with Screen(output.stderr() if as_json else output.stdout()) as screen:
        async with history.happenings(bus, start) as upcoming:
            while not (only and only in told and told[only].over):
                happened = await upcoming()
                if happened.event and only in (None, happened.event[1].run):
                    _show(screen, told, happened.event, as_json)
                elif happened.log and only in (None, happened.log.get("run")):
                    _log(screen, happened.log, as_json)


def as_document(event: Event, about: Envelope) -> dict[str, Any]:
    """An event as one line of JSON."""
    return {
        "kind": "event",
        "time": about.time,
        "run": about.run,
        "subject": about.subject,
        "id": about.id,
        "sequence": about.sequence,
        "says": wording.says(event),
        "event": event,
    }


async def until_over(upcoming: history.Next, id: str, screen: Screen) -> Run:
    """The run `id` once it is over; shows it meanwhile."""
    told: dict[str, Run] = {}
    while not (id in told and told[id].over):
        happened = await upcoming()
        if happened.event and happened.event[1].run == id:
            _show(screen, told, happened.event, as_json=False)
        elif happened.log and happened.log.get("run") == id:
            screen.logged(happened.log)
    return told[id]


def _show(screen: Screen, told: dict[str, Run], found: tuple[Event, Envelope], as_json: bool) -> None:
    event, about = found
    if run := timeline.after(told.get(about.run), event, about):
        told[about.run] = run
    if as_json:
        output.line(as_document(event, about))
    else:
        screen.happened(event, about, run)


def _log(screen: Screen, line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.line({"kind": "log", **line})
    else:
        screen.logged(line)
