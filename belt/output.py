"""How belt speaks: the answer on stdout (a table, or JSON with --json), everything else on stderr.

Exit codes: 0 done, 1 failed, 2 misuse.
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
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]
Home = Annotated[
    Path,
    typer.Option("--home", envvar="BENTOBELT_HOME", help="Folder of the `belt up` to talk to, unless NATS_URL is set."),
]
HOME = Path(".belt")
PIPED_WIDTH = 240
"""Columns when stdout is no terminal: nothing is cut off for grep."""


class Failed(Exception):
    """The command cannot do it; the text says why and what to do. Exit code 1."""


def stdout() -> Console:
    """Where answers go."""
    return _console(stderr=False)


def stderr() -> Console:
    """Where notes, progress and errors go."""
    return _console(stderr=True)


def info(text: str) -> None:
    """Something a person may want to know; never part of the answer."""
    stderr().print(text, markup=False, highlight=False, style="dim", soft_wrap=True)


def fail(text: str) -> NoReturn:
    """Say why it failed and leave with 1."""
    stderr().print(f"[bold red]failed:[/] {_escape(text)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def result(as_json: bool, document: object, view: RenderableType) -> None:
    """Print `document` as one JSON document, or `view` for a person."""
    if as_json:
        print(json.dumps(document, default=plain, indent=2, ensure_ascii=False))
    else:
        stdout().print(view, soft_wrap=isinstance(view, str), markup=False, highlight=False)


def line(document: object) -> None:
    """Print one line of a stream of JSON."""
    print(json.dumps(document, default=plain, ensure_ascii=False), flush=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> RenderableType:
    """Rows under headings, or the sentence `empty` when there is none."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*("–" if cell is None or cell == "" else _escape(str(cell)) for cell in row))
    return drawn if drawn.row_count else empty


def facts(pairs: Mapping[str, object]) -> RenderableType:
    """Name and value under each other; values that are missing are left out."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None and value != "":
            drawn.add_row(name, value if isinstance(value, Table) else _escape(str(value)))
    return drawn


def moment(time: datetime | float | None) -> str:
    """A time as a person here reads it."""
    if time is None:
        return ""
    when = datetime.fromtimestamp(time) if isinstance(time, int | float) else time
    return when.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plain(value: object) -> object:
    """What `json.dumps` does not know by itself.

    Raises:
        TypeError: not something belt prints.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not printed as JSON")


class _Notes(Console):
    """What is said by the way: when nobody reads it any more, as with `belt up 2>&1 | head`, the work goes on."""

    def on_broken_pipe(self) -> None:
        return


def _console(*, stderr: bool) -> Console:
    console = _Notes(stderr=True) if stderr else Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
