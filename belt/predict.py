"""`belt predict` and `belt feedback`: talk to a live model through the gateway."""

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from belt import reach, rows, say
from belt.say import HOME, Failed, Home, Json

SECONDS = 60.0
Model = Annotated[str, typer.Argument(help="Name of the model.")]


def predict(
    model: Model,
    given: Annotated[str, typer.Argument(metavar="ROWS", help="CSV, Parquet, JSON(L) file, - for stdin, or JSON.")],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Ask the live version for predictions. Columns of a file that are no features are left out.

    Example:  belt predict diabetes '[{"age": 0.03, "bmi": 0.06}]'
    """
    try:
        asked = rows.read(given, "rows")
        gateway = reach.gateway(home)
        if Path(given).suffix.lower() in (".csv", ".parquet", ".pq"):
            asked = _features_only(gateway, model, asked)
        answer = _call("POST", f"{gateway}/{model}/predict", {"rows": asked})
    except Failed as error:
        say.fail(str(error))
    say.answer(json, answer, _predictions(answer))
    say.note(f"{answer['model']} {answer['version']}; `belt trace ID` leads an id back to its data and commit")


def feedback(
    model: Model,
    given: Annotated[
        str,
        typer.Argument(metavar="LABELS", help="CSV, Parquet, JSON(L) file with id and label; -, JSON, or ID=LABEL."),
    ],
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Send labels that became known, by prediction id.

    Example:  belt feedback digits labels.csv
    """
    try:
        labels = _labels(given)
        answer = _call("POST", f"{reach.gateway(home)}/{model}/feedback", {"labels": labels})
    except Failed as error:
        say.fail(str(error))
    say.answer(json, answer, f"{answer['accepted']} labels accepted")


def _labels(given: str) -> list[rows.Row]:
    id, equals, label = given.partition("=")
    if equals and not given.lstrip().startswith(("[", "{")) and not Path(given).exists():
        return [{"id": id, "label": _value(label)}]
    found = rows.read(given, "labels")
    for number, row in enumerate(found, 1):
        if missing := {"id", "label"} - row.keys():
            raise Failed(f"row {number} of the labels has no {' and no '.join(sorted(missing))}")
    return [{"id": row["id"], "label": row["label"]} for row in found]


def _value(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def _features_only(gateway: str, model: str, asked: list[rows.Row]) -> list[rows.Row]:
    names = [feature["name"] for feature in _call("GET", f"{gateway}/{model}/info")["features"]]
    extra = [name for name in asked[0] if name not in names]
    if extra:
        say.note(f"not features, left out: {', '.join(extra)}")
    return [{name: value for name, value in row.items() if name in names} for row in asked]


def _call(method: str, url: str, body: Any = None) -> Any:
    """The JSON that the gateway answers.

    Raises:
        Failed: nobody answers there, or it answered an error, which is shown as it is.
    """
    try:
        answer = httpx.request(method, url, json=body, timeout=SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Failed(
            f"no answer from {url}: {error}. Is `belt up` running? BELT_GATEWAY names another gateway"
        ) from None
    if answer.is_success:
        return answer.json()
    hint = "; `belt deployments` lists what is live" if answer.status_code == 404 else ""
    raise Failed(f"{url} answered {answer.status_code}: {answer.text.strip()}{hint}")


def _predictions(answer: Any) -> Any:
    cells = ([one["id"], one["prediction"], _probabilities(one.get("probabilities"))] for one in answer["predictions"])
    return say.table(("ID", "PREDICTION", "PROBABILITIES"), cells, "no predictions")


def _probabilities(given: Any) -> str:
    if isinstance(given, dict):
        likely = sorted(given.items(), key=lambda item: -item[1])[:3]
        return ", ".join(f"{label} {share:.3f}" for label, share in likely)
    return ", ".join(f"{share:.3f}" for share in given) if isinstance(given, list) else ""
