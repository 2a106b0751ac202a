"""`/feedback`: the truth about predictions, as the callers send it."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from contracts.events import Feedback, Label
from contracts.features import Feature
from contracts.packaged_model import Manifest
from serving.errors import Refused
from serving.prediction_request import body_of, read, type_of, words_of

PER_EVENT = 1000
"""Labels in one event, so that it stays below what the bus takes."""


class FeedbackRequests:
    """`{"labels": [{"id", "label"}, …]}` for one model: any version's ids, labels of the target's type."""

    def __init__(self, manifest: Manifest) -> None:
        # A regression's truth need not be whole, only because the training data's was.
        real = manifest.task == "regression" and manifest.target.type == "integer"
        target = Feature(name="label", type="number" if real else manifest.target.type)
        self._body = body_of("labels", {"id": Annotated[str, Field(strict=True)], "label": type_of(target)})
        self._words = {
            "id": "the id of a prediction, a string",
            "label": f"{words_of(target)} ({manifest.target.name})",
        }
        self._model = manifest.model
        self._id = re.compile(rf"{manifest.model}\.\d+-[0-9a-f]{{8}}\.[0-9a-z]{{1,64}}")

    def parse(self, body: bytes, now: float) -> tuple[Label, ...]:
        """The labels in a request's body.

        Args:
            body: JSON.
            now: unix seconds of their arrival.

        Raises:
            Refused: 400 not JSON; 422 naming the label's index, a malformed id or another model's.
        """
        labels = read(self._body, body, "labels", self._words)
        for index, label in enumerate(labels):
            self._check(index, label["id"])
        return tuple(Label(id=label["id"], label=label["label"], time=now) for label in labels)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of the body."""
        return self._body.json_schema()

    def _check(self, index: int, id: str) -> None:
        if self._id.fullmatch(id):
            return
        other = id.split(".", 1)[0]
        wrong = f"is of model {other!r}" if id.count(".") == 2 and other != self._model else "is not a prediction id"
        message = f"label {index}: 'id' {id[:80]!r} {wrong}; ids here are {self._model}.<version>.<unique>"
        raise Refused(422, message, [{"label": index, "field": "id", "message": message}])


def events(model: str, labels: tuple[Label, ...]) -> Iterator[Feedback]:
    """The labels as events, each small enough for the bus."""
    for start in range(0, len(labels), PER_EVENT):
        yield Feedback(model=model, labels=labels[start : start + PER_EVENT])
