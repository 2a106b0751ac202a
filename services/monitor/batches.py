"""Traffic as it comes off the bus: JSON checked once and put into columns, without a model object per row."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

_VERSION = re.compile(r"^\d+-[0-9a-f]{8}$")


class Malformed(Exception):
    """Not what `predictions.*` or `feedback.*` promise; the text says why."""


@dataclass(frozen=True)
class Answered:
    """One message of predictions: every list has one entry per row."""

    version: str
    time: float
    ids: list[str]
    columns: dict[str, list[Any]]
    predictions: list[Any]


@dataclass(frozen=True)
class Truth:
    """One label of a feedback message, and where it stands there."""

    id: str
    label: Any
    time: float
    index: int


def answered(body: bytes) -> Answered:
    """Read a message of `predictions.<model>`.

    Raises:
        Malformed: its shape is wrong.
    """
    event = _object(body)
    version, time, ids = event.get("version"), event.get("time"), event.get("id")
    columns, predictions = event.get("columns"), event.get("prediction")
    _check(isinstance(version, str) and bool(_VERSION.match(version)), "version is missing or no version")
    _check(_is_number(time), "time is not a number")
    _check(isinstance(ids, list) and all(type(id) is str for id in ids), "id is not a list of strings")
    _check(isinstance(columns, dict), "columns is not an object")
    lists = [predictions, *columns.values()]
    _check(all(isinstance(values, list) for values in lists), "a column is not a list")
    _check(all(len(values) == len(ids) for values in lists), "the columns are not all as long as id")
    return Answered(version, float(time), ids, columns, predictions)


def truths(body: bytes) -> list[Truth]:
    """Read a message of `feedback.<model>`.

    Raises:
        Malformed: its shape is wrong.
    """
    labels = _object(body).get("labels")
    _check(isinstance(labels, list), "labels is not a list")
    return [_truth(label, index) for index, label in enumerate(labels)]


def _truth(label: Any, index: int) -> Truth:
    _check(isinstance(label, dict), "a label is not an object")
    id, value, time = label.get("id"), label.get("label"), label.get("time", 0.0)
    _check(isinstance(id, str) and bool(id), "a label has no id")
    _check(value is None or isinstance(value, bool | int | float | str), "a label is neither text nor number")
    _check(_is_number(time), "the time of a label is not a number")
    return Truth(id, value, float(time), index)


def _object(body: bytes) -> Any:
    try:
        event = from_json(body)
    except ValueError as error:
        raise Malformed(f"not JSON: {error}") from None
    _check(isinstance(event, dict), "not a JSON object")
    return event


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(fine: bool, otherwise: str) -> None:
    if not fine:
        raise Malformed(otherwise)
