"""Job in a child process: an Evidently report on the rows of an incident. It is for people; no decision uses it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

SAMPLE = 2000
COLUMNS = 40
"""Largest number of columns: with more, a report has many megabytes."""


def render(argument: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Write the report to `out`, an HTML file.

    Args:
        argument: `base` and `recent` as for `retraining_dataset`; the features by kind as `numeric` and `categorical`;
            `order` has all features in the order in which they are shown.
        progress: not used.

    Returns:
        `columns`: the number of columns in the report.
    """
    kinds = dict.fromkeys(argument["numeric"], "n") | dict.fromkeys(argument["categorical"], "c")
    base = pd.read_parquet(argument["base"])
    rows = json.loads(Path(argument["recent"]).read_text())
    recent = pd.DataFrame({name: rows[f"column:{name}"] for name in kinds if f"column:{name}" in rows})
    chosen = [name for name in argument["order"] if _usable(name, base, recent)][:COLUMNS]
    reference, current = (_typed(frame, chosen, kinds) for frame in (base, recent))
    definition = DataDefinition(
        numerical_columns=[name for name in chosen if kinds[name] == "n"],
        categorical_columns=[name for name in chosen if kinds[name] == "c"],
    )
    snapshot = Report([DataDriftPreset()]).run(
        Dataset.from_pandas(current, data_definition=definition),
        Dataset.from_pandas(reference, data_definition=definition),
    )
    snapshot.save_html(str(argument["out"]))
    return {"columns": len(chosen)}


def _usable(name: str, *frames: pd.DataFrame) -> bool:
    # Evidently fails on a column without any value.
    return all(name in frame and bool(frame[name].notna().any()) for frame in frames)


def _typed(frame: pd.DataFrame, chosen: list[str], kinds: dict[str, str]) -> pd.DataFrame:
    sample = frame.sample(SAMPLE, random_state=0) if len(frame) > SAMPLE else frame
    typed = {
        name: pd.to_numeric(sample[name], errors="coerce").astype("float64")
        if kinds[name] == "n"
        else sample[name].map(str).astype(object)
        for name in chosen
    }
    return pd.DataFrame(typed)
