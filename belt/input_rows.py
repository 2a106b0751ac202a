"""Reads the rows of a command: from a CSV, Parquet, JSON or JSON-lines file, from stdin (`-`), or from JSON text."""

import json
import math
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from belt.output import Failed

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]
TABLES = (".csv", ".parquet", ".pq")
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read(given: str, key: str, text: Collection[str] = ()) -> list[Row]:
    """Read rows.

    Args:
        given: a file name, `-`, or JSON text: a list of objects, one object, or `{key: [...]}`.
        key: name of the list in a request to the gateway (`rows`, `labels`).
        text: columns of a CSV file whose cells stay text, even if they look like numbers.

    Raises:
        Failed: the file is missing, has another format than its name says, or has no rows.
    """
    if given == "-":
        return _from_json(sys.stdin.read(), key, "stdin")
    if given.lstrip().startswith(("[", "{")):
        return _from_json(given, key, "the argument")
    file = Path(given)
    try:
        if file.suffix.lower() in TABLES:
            return _from_table(file, text)
        return _from_json(file.read_text(), key, str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None


def _from_json(text: str, key: str, where: str) -> list[Row]:
    try:
        found = json.loads(text)
    except ValueError as error:
        try:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise Failed(f"{where} is not JSON: {error}") from None
    if isinstance(found, dict):
        found = found.get(key, [found])
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise Failed(f"{where} has no rows; give a list of objects, JSON lines, or {{{key!r}: [...]}}")
    return found


def _from_table(file: Path, text: Collection[str]) -> list[Row]:
    import pandas as pd  # imported here: it takes half a second, and other commands do not need it

    if not file.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(file))
    try:
        rows = _from_csv(file, text) if file.suffix.lower() == ".csv" else _records(pd.read_parquet(file))
    except (ValueError, OSError) as error:  # pandas and pyarrow raise either for bad content
        raise Failed(f"cannot read {file}: {error}") from None
    if not rows:
        raise Failed(f"{file} has no rows")
    return rows


def _from_csv(file: Path, text: Collection[str]) -> list[Row]:
    """Read a CSV file cell by cell, so that one text cell does not turn its whole column into text."""
    import pandas as pd

    return [
        {name: cell if name in text or cell is None else value(cell) for name, cell in row.items()}
        for row in _records(pd.read_csv(file, dtype=str))
    ]


def _records(frame: "DataFrame") -> list[Row]:
    found: list[Row] = json.loads(frame.to_json(orient="records", date_format="iso", double_precision=15))
    return found


def value(cell: str) -> int | float | bool | str:
    """Return the value of a CSV cell: a number, true or false, else the text itself."""
    word = cell.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if _INTEGER.fullmatch(word):
        return int(word)
    if _NUMBER.fullmatch(word) and math.isfinite(number := float(word)):
        return number
    return cell
