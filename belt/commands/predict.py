"""`belt predict` and `belt feedback`: send rows and labels to a live model through the gateway."""

import json as json_text
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, input_rows, output
from belt.gateway_client import call, first_names
from belt.output import HOME, Failed, Home, Json, Model

BATCH = 500
"""Rows in one request."""
LABELS = 1000
"""Labels in one request; serving publishes them as one event and accepts many more."""


def predict(
    model: Model,
    given: Annotated[
        str, typer.Argument(metavar="ROWS", help="File (CSV, Parquet, JSON, JSON lines), - for stdin, or JSON.")
    ],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Get predictions from the live version. Columns of a table that are not features are left out.

    Example:  belt predict diabetes examples/diabetes/data/diabetes.csv
    """
    url = f"{connection.gateway(home)}/{connection.model_name(model)}"
    answer = _predict(url, _rows(given, url, json), json)
    output.result(json, answer, _predictions(answer, _classes(url, answer, json)))
    output.info(f"{answer['model']} {answer['version']}; `belt trace ID` traces an id back to its data and commit")


def feedback(
    model: Model,
    given: Annotated[
        str, typer.Argument(metavar="LABELS", help="File with id and label, - for stdin, JSON, or ID=LABEL.")
    ],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Send the true labels of predictions. After a failure send all of them again: each counts once.

    Example:  belt feedback digits labels.csv
    """
    url = f"{connection.gateway(home)}/{connection.model_name(model)}"
    accepted = _send(url, _labels(given, url, json), json)
    output.result(json, {"accepted": accepted}, f"{accepted} labels accepted")


def _labels(given: str, url: str, as_json: bool) -> list[input_rows.Row]:
    id, equals, label = given.partition("=")
    if equals and not given.lstrip().startswith(("[", "{")) and not Path(given).exists():
        with suppress(ValueError):
            label = json_text.loads(label)
        return [{"id": id, "label": label}]
    text = {"id"}
    if Path(given).is_file() and Path(given).suffix.lower() == ".csv":
        target = call("GET", f"{url}/info", verbatim=as_json).get("target") or {}
        text |= {"label"} if target.get("type") == "string" else set()
    found = input_rows.read(given, "labels", text)
    for number, row in enumerate(found, 1):
        if missing := {"id", "label"} - row.keys():
            raise Failed(f"row {number} of the labels has no {' and no '.join(sorted(missing))}")
    return [{"id": row["id"], "label": row["label"]} for row in found]


def _send(url: str, labels: list[input_rows.Row], as_json: bool) -> int:
    """Send all labels, in several requests if need be, and return the number of accepted ones."""
    accepted = 0
    for start in range(0, len(labels), LABELS):
        try:
            answer = call("POST", f"{url}/feedback", {"labels": labels[start : start + LABELS]}, verbatim=as_json)
        except Failed as error:
            offset = f"(label 0 in this error is your label {start})\n" if start else ""
            count = f"{accepted} of {len(labels)} labels are known to be accepted"
            raise Failed(
                f"{error}\n{offset}{count}; correct the error, then send all of them again: each counts once"
            ) from None
        accepted += answer["accepted"]
    return accepted


def _rows(given: str, url: str, as_json: bool) -> list[input_rows.Row]:
    """Read the rows of a request. Of a table, keep only the features of the live version, text columns as text."""
    if Path(given).suffix.lower() not in input_rows.TABLES or not Path(given).is_file():
        return input_rows.read(given, "rows")
    features = {one["name"]: one["type"] for one in call("GET", f"{url}/info", verbatim=as_json)["features"]}
    found = input_rows.read(given, "rows", {name for name, type in features.items() if type == "string"})
    if extra := [name for name in found[0] if name not in features]:
        output.info(f"left out, because they are not features: {first_names(extra)}")
    return [{name: value for name, value in row.items() if name in features} for row in found]


def _predict(url: str, rows: list[input_rows.Row], as_json: bool) -> Any:
    """Request predictions, in several requests if need be, and join them to one answer."""
    joined: dict[str, Any] = {}
    for start in range(0, len(rows), BATCH):
        try:
            answer = call("POST", f"{url}/predict", {"rows": rows[start : start + BATCH]}, verbatim=as_json)
        except Failed as error:
            raise Failed(f"{error}\n(row 0 in this error is your row {start})" if start else str(error)) from None
        if joined and joined["version"] != answer["version"]:
            output.info(
                f"{answer['version']} went live meanwhile and answered from row {start} on (each id names its version)"
            )
        joined = {**answer, "predictions": joined.get("predictions", []) + answer["predictions"]}
    return joined


def _classes(url: str, answer: Any, as_json: bool) -> list[str]:
    """Return the classes in the order of the probabilities; only the table needs them."""
    first = answer["predictions"][0].get("probabilities") if answer["predictions"] else None
    if as_json or not isinstance(first, list):
        return []
    return [str(one) for one in call("GET", f"{url}/info").get("classes") or ()]


def _predictions(answer: Any, classes: list[str]) -> Any:
    predictions = answer["predictions"]
    has_probabilities = any(one.get("probabilities") for one in predictions)
    order = f" ({first_names(classes)})" if classes else ""
    columns = ("ID", "PREDICTION", *([f"PROBABILITIES{order}"] if has_probabilities else []))
    rows = []
    for one in predictions:
        value = one["prediction"]
        row = [one["id"], f"{value:.6g}" if isinstance(value, float) else value]
        rows.append([*row, _probabilities(one.get("probabilities"))] if has_probabilities else row)
    return output.table(columns, rows, "no predictions")


def _probabilities(given: Any) -> str:
    if isinstance(given, dict):
        likely = sorted(given.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{label} {share:.3f}" for label, share in likely)
    return ", ".join(f"{share:.3f}" for share in given) if isinstance(given, list) else ""
