"""`belt logs`: shows the log lines of the workers and the serving processes."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, output
from belt.commands import runs
from belt.live_view import log_line
from belt.output import HOME, Home, Json
from services.timeline import history
from services.timeline import runs as timeline


def logs(
    run: Annotated[
        str | None, typer.Argument(help="Only lines of this run; the first characters of its id are enough.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new lines until Ctrl-C.")] = False,
    service: Annotated[str | None, typer.Option(help="Only this service, e.g. trainer or serving.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Number of lines, newest last.")] = 200,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Show log lines of the last 24 hours, filtered by run, service or model.

    Example:  belt logs 3f2a90c1d4e5b6a7 -f
    """
    wanted = {"run": run, "service": service, "model": model}
    with suppress(KeyboardInterrupt):
        asyncio.run(_logs(home, wanted, limit, follow, json))


async def _logs(home: Path, wanted: Mapping[str, str | None], limit: int, follow: bool, as_json: bool) -> None:
    async with connection.bus(home, reconnect=follow) as bus:
        kept, start = await history.logs(bus)
        lines = [line for line in kept if matches(line, wanted)]
        for line in lines[len(lines) - min(limit, len(lines)) :]:
            _print(line, as_json)
        if not lines and wanted["run"] and not follow:
            runs.find(timeline.build_runs(await history.events(bus)), wanted["run"])  # fails when there is no such run
        if not lines and not follow:
            output.info("no log lines match; they are kept for 24 hours")
        if follow:
            async for line in history.follow_logs(bus, start):
                if matches(line, wanted):
                    _print(line, as_json)


def matches(line: Mapping[str, Any], wanted: Mapping[str, str | None]) -> bool:
    """Return whether a line has the wanted values; of a run the first characters of its id are enough."""
    if (run := wanted.get("run")) and not str(line.get("run") or "").startswith(run):
        return False
    return all(value in (None, line.get(name)) for name, value in wanted.items() if name != "run")


def _print(line: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        output.json_line(dict(line))
    else:
        output.stdout().print(log_line(line), soft_wrap=True)
