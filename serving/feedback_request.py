"""`/feedback`: requests with the true labels of earlier predictions."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from contracts.events import Feedback, Label
from contracts.features import Feature
from contracts.packaged_model import Manifest
from serving.errors import Refused
from serving.prediction_request import body_type, description_of, parse_items, python_type

LABELS_PER_EVENT = 1000
"""Most labels in one event, so that it stays below the largest message of the bus."""


class FeedbackRequests:
    """`{"labels": [{"id", "label"}, …]}` for one model: any version's ids, labels of the target's type."""

    def __init__(self, manifest: Manifest) -> None:
        # A regression on whole numbers may have true labels between them.
        is_real = manifest.task == "regression" and manifest.target.type == "integer"
        target = Feature(name="label", type="number" if is_real else manifest.target.type)
        self._body = body_type("labels", {"id": Annotated[str, Field(strict=True)], "label": python_type(target)})
        self._descriptions = {
            "id": "the id of a prediction, a string",
            "label": f"{description_of(target)} ({manifest.target.name})",
        }
        self._model = manifest.model
        self._id = re.compile(rf"{manifest.model}\.\d+-[0-9a-f]{{8}}\.[0-9a-z]{{1,64}}")

    def parse(self, body: bytes, now: float) -> tuple[Label, ...]:
        """Return the labels in a request's JSON body; `now` is the time of arrival in unix seconds.

        Raises:
            Refused: 400 not JSON; 422 with the index of a label that is invalid, or whose id is malformed or another
                model's.
        """
        labels = parse_items(self._body, body, "labels", self._descriptions)
        for index, label in enumerate(labels):
            self._check(index, label["id"])
        return tuple(Label(id=label["id"], label=label["label"], time=now) for label in labels)

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the body."""
        return self._body.json_schema()

    def _check(self, index: int, id: str) -> None:
        if self._id.fullmatch(id):
            return
        other = id.split(".", 1)[0]
        problem = f"is of model {other!r}" if id.count(".") == 2 and other != self._model else "is not a prediction id"
        message = f"label {index}: 'id' {id[:80]!r} {problem}; ids here are {self._model}.<version>.<unique>"
        raise Refused(422, message, [{"label": index, "field": "id", "message": message}])


def events(model: str, labels: tuple[Label, ...]) -> Iterator[Feedback]:
    """Yield the labels as events, each small enough for the bus."""
    for start in range(0, len(labels), LABELS_PER_EVENT):
        yield Feedback(model=model, labels=labels[start : start + LABELS_PER_EVENT])
