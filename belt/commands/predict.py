"""`belt predict` and `belt feedback`: talk to a live model through the gateway."""

import json as json_text
from pathlib import Path
from typing import Annotated, Any

import typer

from belt import connection, input_rows, output
from belt.gateway_client import call, names
from belt.output import HOME, Failed, Home, Json

BATCH = 500
"""Rows in one request."""
LABELS = 1000
"""Labels in one request: far below what serving takes at once, and it makes one event of them."""
Model = Annotated[str, typer.Argument(help="Name of the model.")]


def predict(
    model: Model,
    given: Annotated[str, typer.Argument(metavar="ROWS", help="CSV, Parquet, JSON(L) file, - for stdin, or JSON.")],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Ask the live version for predictions. Columns of a file that are no features are left out.

    Example:  belt predict diabetes examples/diabetes/data/diabetes.csv
    """
    try:
        url = f"{connection.gateway(home)}/{connection.model(model)}"
        asked = _asked(given, url, json)
        answer = _ask(url, asked, json)
        classes = _classes(url, answer, json)
    except Failed as error:
        output.fail(str(error))
    output.result(json, answer, _predictions(answer, classes))
    output.info(f"{answer['model']} {answer['version']}; `belt trace ID` leads an id back to its data and commit")


def feedback(
    model: Model,
    given: Annotated[
        str,
        typer.Argument(metavar="LABELS", help="CSV, Parquet, JSON(L) file with id and label; -, JSON, or ID=LABEL."),
    ],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Send labels that became known, by prediction id. After a failure send all again: each counts once.

    Example:  belt feedback digits labels.csv
    """
    try:
        url = f"{connection.gateway(home)}/{connection.model(model)}"
        accepted = _send(url, _labels(given, url, json), json)
    except Failed as error:
        output.fail(str(error))
    output.result(json, {"accepted": accepted}, f"{accepted} labels accepted")


def _labels(given: str, url: str, as_json: bool) -> list[input_rows.Row]:
    id, equals, label = given.partition("=")
    if equals and not given.lstrip().startswith(("[", "{")) and not Path(given).exists():
        return [{"id": id, "label": _value(label)}]
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
    """How many were accepted, however many requests that takes.

    Raises:
        Failed: a request was refused; what was sent before is taken.
    """
    accepted = 0
    for start in range(0, len(labels), LABELS):
        try:
            answer = call("POST", f"{url}/feedback", {"labels": labels[start : start + LABELS]}, verbatim=as_json)
        except Failed as error:
            counted = f"(labels are counted from label {start} of yours)\n" if start else ""
            sure = f"{accepted} of {len(labels)} labels are known to be taken"
            raise Failed(f"{error}\n{counted}{sure}; once that is put right send all again, each counts once") from None
        accepted += answer["accepted"]
    return accepted


def _value(text: str) -> Any:
    try:
        return json_text.loads(text)
    except ValueError:
        return text


def _asked(given: str, url: str, as_json: bool) -> list[input_rows.Row]:
    """The rows to ask for; of a table only what the live version takes, text where it wants text."""
    if Path(given).suffix.lower() not in input_rows.TABLES or not Path(given).is_file():
        return input_rows.read(given, "rows")
    features = {one["name"]: one["type"] for one in call("GET", f"{url}/info", verbatim=as_json)["features"]}
    found = input_rows.read(given, "rows", {name for name, type in features.items() if type == "string"})
    if extra := [name for name in found[0] if name not in features]:
        output.info(f"not features, left out: {names(extra)}")
    return [{name: value for name, value in row.items() if name in features} for row in found]


def _ask(url: str, asked: list[input_rows.Row], as_json: bool) -> Any:
    """One answer for all rows, however many requests that takes.

    Raises:
        Failed: a request was refused.
    """
    joined: dict[str, Any] = {}
    for start in range(0, len(asked), BATCH):
        try:
            answer = call("POST", f"{url}/predict", {"rows": asked[start : start + BATCH]}, verbatim=as_json)
        except Failed as error:
            raise Failed(f"{error}\n(rows are counted from row {start} of yours)" if start else str(error)) from None
        if joined and joined["version"] != answer["version"]:
            output.info(
                f"{answer['version']} went live meanwhile: it answered from row {start} on (ids name the version)"
            )
        joined = {**answer, "predictions": joined.get("predictions", []) + answer["predictions"]}
    return joined


def _classes(url: str, answer: Any, as_json: bool) -> list[str]:
    """What the shares of a prediction are about, in their order; only a table needs to know."""
    first = answer["predictions"][0].get("probabilities") if answer["predictions"] else None
    if as_json or not isinstance(first, list):
        return []
    return [str(one) for one in call("GET", f"{url}/info").get("classes") or ()]


def _predictions(answer: Any, classes: list[str]) -> Any:
    told = answer["predictions"]
    shares = any(one.get("probabilities") for one in told)
    about = f" ({names(classes)})" if classes else ""
    columns = ("ID", "PREDICTION", *([f"PROBABILITIES{about}"] if shares else []))
    cells = (
        [one["id"], _number(one["prediction"]), *([_probabilities(one.get("probabilities"))] if shares else [])]
        for one in told
    )
    return output.table(columns, cells, "no predictions")


def _number(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _probabilities(given: Any) -> str:
    if isinstance(given, dict):
        likely = sorted(given.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{label} {share:.3f}" for label, share in likely)
    return ", ".join(f"{share:.3f}" for share in given) if isinstance(given, list) else ""
