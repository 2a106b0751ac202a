"""Output of the commands: the result on stdout (a table, or JSON with --json), everything else on stderr.

Exit codes: 0 success, 1 failure, 2 wrong usage.
"""

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="BENTOBELT_HOME", help="Home of the `belt up` to use, unless NATS_URL is set."),
]
HOME = Path(".belt")
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Project = Annotated[Path, typer.Argument(metavar="PROJECT", exists=True, file_okay=False, help="The model project.")]
By = Annotated[str | None, typer.Option(help="Name of the person. Default: git's user.name, else the login name.")]
PIPED_WIDTH = 240
"""Columns when stdout is not a terminal, so that lines stay whole for grep."""


class Failed(Exception):
    """A command cannot go on; the text says why and what to do next. Exit code 1."""


def stdout() -> Console:
    """Return the console for results."""
    return _wide(Console())


def stderr() -> Console:
    """Return the console for notes, progress and errors."""
    return _wide(_StderrConsole(stderr=True))


def info(text: str) -> None:
    """Print a note for a person on stderr."""
    stderr().print(text, markup=False, highlight=False, style="dim", soft_wrap=True)


def fail(text: str) -> NoReturn:
    """Print why the command failed and exit with 1."""
    stderr().print(f"[bold red]failed:[/] {escape(text)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def result(as_json: bool, document: object, view: RenderableType) -> None:
    """Print `document` as one JSON document, or `view` for a person."""
    if as_json:
        print(json.dumps(document, default=to_json, indent=2, ensure_ascii=False))
    else:
        stdout().print(view, soft_wrap=isinstance(view, str), markup=False, highlight=False)


def json_line(document: object) -> None:
    """Print `document` as one line of JSON."""
    print(json.dumps(document, default=to_json, ensure_ascii=False), flush=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> RenderableType:
    """Return a table, or the sentence `empty` when there are no rows."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*("–" if cell is None or cell == "" else escape(str(cell)) for cell in row))
    return drawn if drawn.row_count else empty


def key_values(pairs: Mapping[str, object]) -> RenderableType:
    """Return a table of names and values; missing values are left out."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None and value != "":
            drawn.add_row(name, value if isinstance(value, Table) else escape(str(value)))
    return drawn


def local_time(time: datetime | float | None) -> str:
    """Return a time in the local time zone, to the second; empty for None."""
    if time is None:
        return ""
    when = datetime.fromtimestamp(time) if isinstance(time, int | float) else time
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def to_json(value: object) -> object:
    """Convert a value that `json.dumps` cannot.

    Raises:
        TypeError: the value has no JSON form.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not printed as JSON")


class _StderrConsole(Console):
    """A console that ignores a closed pipe: with `belt up 2>&1 | head` the work goes on."""

    def on_broken_pipe(self) -> None:
        return


def _wide(console: Console) -> Console:
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console
