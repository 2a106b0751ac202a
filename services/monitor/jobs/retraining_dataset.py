"""Job in a child process: the dataset to retrain on, which is the base rows and the labelled recent rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.features import RECENT


class NoRecentRows(Exception):
    """No recent row has values of the types that the base has."""


def dataset(argument: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write base plus recent rows to `out`, parquet with the base's own column types and `RECENT` marking the latter.

    Args:
        argument: `base` and `recent` are files (parquet; JSON of lists by column), `target` the label's column.
        progress: is called with the number of rows.

    Returns:
        `base` and `recent`: the number of rows of each. Recent rows whose values do not fit the types are left out.
    """
    base = pq.read_table(argument["base"]).replace_schema_metadata(None)
    if RECENT in base.column_names:  # Rows that were recent at the last retraining are base rows now.
        base = base.drop_columns([RECENT])
    recent = _table(json.loads(Path(argument["recent"]).read_text()), base.schema, argument["target"])
    if not recent.num_rows:
        raise NoRecentRows("no labelled recent row has values of the types that the base has")
    pq.write_table(pa.concat_tables([_marked(base, False), _marked(recent, True)]), argument["out"])
    progress({"step": "dataset", "rows": base.num_rows + recent.num_rows})
    return {"base": base.num_rows, "recent": recent.num_rows}


def _marked(table: pa.Table, recent: bool) -> pa.Table:
    return table.append_column(RECENT, pa.array([recent] * table.num_rows, type=pa.bool_()))


def _table(rows: dict[str, list[Any]], schema: pa.Schema, target: str) -> pa.Table:
    count = len(rows["label"])
    given = {field.name: rows.get(f"column:{field.name}", [None] * count) for field in schema}
    given[target] = rows["label"]
    cast = {field.name: [_cast(value, field.type) for value in given[field.name]] for field in schema}
    fits = [all(cast[name][row] is not _UNFIT for name in cast) for row in range(count)]
    arrays = [
        pa.array([value for value, fit in zip(cast[field.name], fits, strict=True) if fit], type=_plain(field.type))
        for field in schema
    ]
    return pa.table(dict(zip(schema.names, arrays, strict=True))).cast(schema)


_UNFIT = object()


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _cast(value: Any, type: pa.DataType) -> Any:
    """Return the value in the column's type, or _UNFIT."""
    type = _plain(type)
    if value is None:
        return None
    try:
        if pa.types.is_boolean(type):
            return _boolean(value)
        if pa.types.is_integer(type):
            return int(value) if float(value).is_integer() else _UNFIT
        if pa.types.is_floating(type):
            return float(value)
    except (TypeError, ValueError):
        return _UNFIT
    if pa.types.is_string(type) or pa.types.is_large_string(type):
        return value if isinstance(value, str) else str(value)
    try:
        return pa.scalar(value).cast(type).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _UNFIT


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower(), _UNFIT)
