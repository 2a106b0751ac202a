"""Reads rows that a person hands over: a CSV, Parquet, JSON or JSON-lines file, `-` for stdin, or JSON itself."""

import json
import sys
from pathlib import Path
from typing import Any

from belt.say import Failed

Row = dict[str, Any]


def read(given: str, key: str) -> list[Row]:
    """The rows in `given`.

    Args:
        given: a file name, `-`, or JSON text: a list of objects, one object, or `{key: [...]}`.
        key: under which a request to the gateway has them (`rows`, `labels`).

    Raises:
        Failed: no such file, not what its name says, or no rows.
    """
    if given == "-":
        return _from_json(sys.stdin.read(), key, "stdin")
    if given.lstrip().startswith(("[", "{")):
        return _from_json(given, key, "the argument")
    file = Path(given)
    try:
        return _from_file(file, key)
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None


def _from_file(file: Path, key: str) -> list[Row]:
    if file.suffix.lower() in (".csv", ".parquet", ".pq"):
        return _from_table(file)
    return _from_json(file.read_text(), key, str(file))


def _from_json(text: str, key: str, where: str) -> list[Row]:
    try:
        found = json.loads(text)
    except ValueError as error:
        found = _lines(text)
        if found is None:
            raise Failed(f"{where} is not JSON: {error}") from None
    if isinstance(found, dict):
        found = found.get(key, [found])
    if not isinstance(found, list) or not found or not all(isinstance(row, dict) for row in found):
        raise Failed(f"{where} has no rows; wanted a list of objects, JSON lines, or {{{key!r}: [...]}}")
    return found


def _lines(text: str) -> list[Any] | None:
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        return None


def _from_table(file: Path) -> list[Row]:
    import pandas as pd  # only here: half a second that the other commands need not wait

    if not file.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(file))
    try:
        frame = pd.read_csv(file) if file.suffix.lower() == ".csv" else pd.read_parquet(file)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's complaints about content are both
        raise Failed(f"cannot read {file}: {error}") from None
    rows: list[Row] = json.loads(frame.to_json(orient="records", date_format="iso", double_precision=15))
    if not rows:
        raise Failed(f"{file} has no rows")
    return rows
