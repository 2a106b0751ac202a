"""A request from body to answer, without a server or a bus."""

import asyncio
from collections.abc import Sequence
from html import unescape
from typing import Any

import pytest
from pydantic_core import to_json

from contracts.features import Feature
from serving.app import Serving, render
from serving.asgi import HttpRequest
from serving.errors import PredictionFailed
from serving.model import Model, ModelOutput
from serving.prediction_request import Row
from serving.settings import Settings
from tests.unit.serving.serving_model import ROW, manifest


class FixedModel(Model):
    """A model that returns the given predictions."""

    def __init__(self, *predictions: Any, **about: Any) -> None:
        self.manifest, self._predictions = manifest(**about), list(predictions)

    def predict(self, rows: Sequence[Row]) -> ModelOutput:
        return ModelOutput(self._predictions[: len(rows)])


async def ask(serving: Serving, *rows: Row) -> bytes:
    batching = asyncio.create_task(serving.batcher.run())
    try:
        return (await serving.predict(HttpRequest(to_json({"rows": rows})))).body
    finally:
        batching.cancel()
        serving.batcher.close()


async def test_what_is_answered_is_logged() -> None:
    serving = Serving(FixedModel(1, 2), Settings())
    assert b'"prediction":2' in await ask(serving, dict(ROW), dict(ROW))
    assert serving.prediction_log.waiting == 2


async def test_what_cannot_be_answered_is_the_models_failure_and_not_logged() -> None:
    serving = Serving(FixedModel(object()), Settings())
    with pytest.raises(PredictionFailed, match="the model failed on this input"):
        await ask(serving, dict(ROW))
    assert serving.prediction_log.waiting == 0


@pytest.mark.parametrize("value", [object(), "\ud800", {"a": object()}])
def test_a_value_that_json_cannot_represent_is_the_models_failure(value: Any) -> None:
    with pytest.raises(PredictionFailed):
        render("m", "1-0a1b2c3d", ["a"], ModelOutput([value]))


async def test_the_page_shows_names_as_they_are_and_examples_that_are_json() -> None:
    price = Feature(name="price in \u20ac", type="number")
    serving = Serving(FixedModel(features=(price,), classes=("left", "right")), Settings())
    page = unescape((await serving.docs(HttpRequest(b""))).body.decode())
    assert '{"rows": [{"price in \u20ac": 0.0}]}' in page
    assert '<pre>{"labels": [{"id": "id of a prediction", "label": "left"}]}</pre>' in page
