"""Payloads of `predictions.*` and `feedback.*`: JSON that is checked once, without a model object per row.

Anyone may publish anything on these subjects. The checks are complete, so that a payload that passes here can be
counted: an error later on would stop the reader each time that it reads the message.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

_VERSION = re.compile(r"[0-9]{1,18}-[0-9a-f]{8}")
_CELLS = {str, int, float, bool, type(None)}
_LATEST_TIME = 1e11
"""Unix seconds of the year 5138. A larger number has another unit, and no window would ever be old enough to close."""


class MalformedPayload(Exception):
    """A payload of `predictions.*` or `feedback.*` has the wrong shape; the text gives the reason."""


@dataclass(frozen=True)
class PredictionBatch:
    """One message of predictions. Every list has one entry per row."""

    version: str
    time: float
    ids: list[str]
    columns: dict[str, list[Any]]
    predictions: list[Any]


@dataclass(frozen=True)
class FeedbackLabel:
    """One label of a feedback message, and its index in the message."""

    id: str
    label: Any
    time: float
    index: int


def parse_predictions(body: bytes) -> PredictionBatch:
    """Read a message of `predictions.<model>`.

    Raises:
        MalformedPayload: its shape is wrong.
    """
    event = _object(body)
    version, time, ids = event.get("version"), event.get("time"), event.get("id")
    columns, predictions = event.get("columns"), event.get("prediction")
    _check(isinstance(version, str) and bool(_VERSION.fullmatch(version)), "version is missing or is not a version")
    _check(_is_time(time), "time is not in unix seconds")
    _check(isinstance(ids, list) and set(map(type, ids)) <= {str}, "id is not a list of strings")
    _check(isinstance(columns, dict), "columns is not an object")
    lists = [predictions, *columns.values()]
    _check(all(isinstance(values, list) for values in lists), "a column is not a list")
    _check(all(len(values) == len(ids) for values in lists), "the columns are not all as long as id")
    _check(all(map(_are_cells, lists)), "a value is not a text, finite number, boolean or null")
    return PredictionBatch(version, float(time), ids, columns, predictions)


def parse_feedback(body: bytes) -> list[FeedbackLabel]:
    """Read a message of `feedback.<model>`.

    Raises:
        MalformedPayload: its shape is wrong.
    """
    labels = _object(body).get("labels")
    _check(isinstance(labels, list), "labels is not a list")
    _check(set(map(type, labels)) <= {dict}, "a label is not an object")
    _check(_are_cells([label.get("label") for label in labels]), "a label is neither text nor a finite number")
    return [_label(label, index) for index, label in enumerate(labels)]


def _label(label: Any, index: int) -> FeedbackLabel:
    id, value, time = label.get("id"), label.get("label"), label.get("time", 0.0)
    _check(isinstance(id, str) and bool(id), "a label has no id")
    _check(_is_time(time), "the time of a label is not in unix seconds")
    return FeedbackLabel(id, value, float(time), index)


def _object(body: bytes) -> Any:
    try:
        event = from_json(body, cache_strings="keys")  # Ids do not repeat; caching them would only take memory.
    except ValueError as error:
        raise MalformedPayload(f"not JSON: {error}") from None
    _check(isinstance(event, dict), "not a JSON object")
    return event


def _are_cells(values: list[Any]) -> bool:
    """Return whether all values are JSON scalars, and all numbers finite as float64. It takes about 20 ns per value."""
    kinds = set(map(type, values))
    if not kinds <= _CELLS:
        return False
    if kinds.isdisjoint({int, float}) or (kinds == {float} and math.isfinite(sum(values))):
        return True  # A NaN or an infinity would make the sum not finite.
    try:
        return all(map(math.isfinite, [value for value in values if type(value) in (int, float)]))
    except OverflowError:  # An integer is larger than any float.
        return False


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LATEST_TIME


def _check(valid: bool, reason: str) -> None:
    if not valid:
        raise MalformedPayload(reason)
