"""The dataset to retrain on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.features import RECENT
from services.monitor.jobs.retraining_dataset import NoRecentRows, dataset

BASE = pa.table(
    {
        "size": pa.array([1, 2], type=pa.int16()),
        "kind": pa.array(["a", "b"]).dictionary_encode(),
        "fresh": [True, False],
        "since": pa.array(["2026-01-01", "2026-01-02"]).cast(pa.timestamp("ms")),
        "label": pa.array([1.5, 2.5]),
        RECENT: [True, False],
    }
)


def build(folder: Path, recent: Mapping[str, list[Any]]) -> pa.Table:
    base, rows, out = folder / "base.parquet", folder / "recent.json", folder / "out.parquet"
    pq.write_table(BASE, base)
    rows.write_text(json.dumps(recent))
    argument = {"base": str(base), "recent": str(rows), "target": "label", "out": str(out)}
    dataset(argument, lambda _: None)
    return pq.read_table(out)


def test_recent_rows_take_the_types_of_the_base_and_are_marked(tmp_path: Path) -> None:
    table = build(
        tmp_path,
        {
            "column:size": [3.0, None],
            "column:kind": ["c", None],
            "column:fresh": [True, "false"],
            "label": [3, "4.5"],
        },
    )
    assert {f.name: f.type for f in table.schema} == {f.name: f.type for f in BASE.schema}
    assert table[RECENT].to_pylist() == [False, False, True, True]
    assert table["size"].to_pylist() == [1, 2, 3, None]
    assert table["kind"].to_pylist() == ["a", "b", "c", None]
    assert table["since"].to_pylist()[2:] == [None, None]
    assert table["label"].to_pylist() == [1.5, 2.5, 3.0, 4.5]


def test_rows_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    table = build(tmp_path, {"column:size": [3.5, 4, 5], "label": [1, "no number", 2]})
    assert table["size"].to_pylist() == [1, 2, 5]


def test_without_a_fitting_row_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoRecentRows):
        build(tmp_path, {"column:size": [3.5], "label": [1]})
