"""The server of one version: its parts, wired together, and its endpoints."""

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic_core import to_json

from contracts.cloudevents import body as event_body
from contracts.events import subject_of
from serving.api_docs import example, openapi, page
from serving.asgi import Endpoint, HttpRequest, HttpResponse, Routes
from serving.batching import Batcher
from serving.bus import BusUnavailable, ServingBus, event_headers
from serving.error_log import ErrorLog, Level
from serving.errors import PredictionFailed, Refused
from serving.feedback_request import FeedbackRequests, events
from serving.metrics import Metrics
from serving.model import Model, ModelOutput
from serving.prediction_log import LoggedRequest, PredictionLog
from serving.prediction_request import PredictionRequests
from serving.settings import Settings

LARGE_BODY = 64 * 1024
"""A body with more bytes is parsed in a thread, not on the event loop."""


class Serving:
    """The parts behind the endpoints of one version. Create it inside a running event loop."""

    def __init__(self, model: Model, settings: Settings) -> None:
        manifest = model.manifest
        self.manifest, self.settings = manifest, settings
        self.metrics = Metrics(manifest.model, manifest.version)
        self.bus = ServingBus(settings.nats_url, f"serving-{manifest.model}-{manifest.version}", settings.ack_seconds)
        self.prediction_log = PredictionLog(
            manifest, self.metrics, max_bytes=settings.log_bytes, early_rows=settings.log_rows
        )
        self.error_log = ErrorLog(manifest)
        self.batcher = Batcher(model.predict, settings.waiting_rows)
        self.prediction_requests = PredictionRequests(manifest.features, manifest.max_rows)
        self.feedback_requests = FeedbackRequests(manifest)
        # An id has 12 random hexadecimal digits of this process, then a count.
        self._id_prefix = f"{manifest.model}.{manifest.version}.{secrets.token_hex(6)}"
        self._id_numbers = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to predict and to publish."""
        loops = (
            self.batcher.run(),
            self.prediction_log.encode_forever(self.settings.log_seconds),
            self.bus.keep_connected(),
            self.prediction_log.send_forever(self.bus),
            self.error_log.send_forever(self.bus),
        )
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        """Stop predicting; publish what the logs still hold, within `stop_seconds`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.batcher.close()
        await self.prediction_log.encode_waiting()
        with contextlib.suppress(BusUnavailable, TimeoutError):
            async with asyncio.timeout(self.settings.stop_seconds):
                await self.prediction_log.send(self.bus)
                await self.error_log.send(self.bus)
        self.metrics.log_dropped.inc(self.prediction_log.waiting)
        await self.bus.close()

    def routes(self) -> Routes:
        """Return the endpoints; BentoML answers all other paths."""
        endpoints: dict[str, dict[str, Endpoint]] = {
            "/predict": {"POST": self.predict},
            "/feedback": {"POST": self.feedback},
            "/info": {"GET": self.info},
            "/metrics": {"GET": self.prometheus},
            "/docs": {"GET": self.docs},
            "/openapi.json": {"GET": self.openapi},
        }
        return Routes(self.manifest.model, self.manifest.version, endpoints, self.settings.max_body, self.observe)

    def observe(self, endpoint: str, status: int, error: BaseException | None) -> None:
        """Count an answered request; add an error that the caller did not cause to the error log."""
        self.metrics.count_request(endpoint, status)
        if status < 500:
            return
        self.metrics.errors.inc()
        level: Level = "error" if isinstance(error, PredictionFailed) or error is None else "warning"
        cause = error or RuntimeError("internal error of serving; the log of the server has the traceback")
        self.error_log.record(level, f"{endpoint}.{'failed' if level == 'error' else 'refused'}", cause)

    async def predict(self, request: HttpRequest) -> HttpResponse:
        """POST /predict."""
        started = time.perf_counter()
        parse, body = self.prediction_requests.parse, request.body
        rows = await asyncio.to_thread(parse, body) if len(body) > LARGE_BODY else parse(body)
        output = await self.batcher.predict(rows)
        seconds = time.perf_counter() - started
        ids = [f"{self._id_prefix}{number:x}" for number in itertools.islice(self._id_numbers, len(rows))]
        response = HttpResponse(render(self.manifest.model, self.manifest.version, ids, output))
        # After render, because a prediction that cannot be sent must not be logged.
        if not request.is_probe:
            self.prediction_log.add(LoggedRequest(ids, rows, output, round(seconds * 1000, 3)))
        self.metrics.rows.inc(len(rows))
        self.metrics.latency.observe(seconds)
        return response

    async def feedback(self, request: HttpRequest) -> HttpResponse:
        """POST /feedback: labels are accepted when the bus has confirmed them."""
        now = time.time()
        parse, body = self.feedback_requests.parse, request.body
        labels = await asyncio.to_thread(parse, body, now) if len(body) > LARGE_BODY else parse(body, now)
        try:
            for event in events(self.manifest.model, labels):
                await self.bus.publish(subject_of(event), event_body(event), event_headers(event, self.manifest))
        except BusUnavailable as error:
            raise Refused(503, f"not all labels were accepted: {error}; send them again, each counts once") from error
        self.metrics.labels.inc(len(labels))
        return HttpResponse(to_json({"accepted": len(labels)}))

    async def info(self, _request: HttpRequest) -> HttpResponse:
        """GET /info."""
        trained = datetime.fromtimestamp(self.manifest.trained, UTC).isoformat(timespec="seconds")
        about = {**self.manifest.model_dump(), "image": self.settings.image or None, "trained_at": trained}
        return HttpResponse(to_json(about, inf_nan_mode="null"))

    async def prometheus(self, _request: HttpRequest) -> HttpResponse:
        """GET /metrics."""
        self.metrics.log_waiting.set(self.prediction_log.waiting)
        return HttpResponse(self.metrics.text(), content_type=b"text/plain; version=0.0.4; charset=utf-8")

    async def docs(self, _request: HttpRequest) -> HttpResponse:
        """GET /docs."""
        text = page(self.manifest, json.dumps(example(self.manifest), ensure_ascii=False))
        return HttpResponse(text.encode(), content_type=b"text/html; charset=utf-8")

    async def openapi(self, _request: HttpRequest) -> HttpResponse:
        """GET /openapi.json."""
        return HttpResponse(to_json(openapi(self.manifest, self.prediction_requests, self.feedback_requests)))


def render(model: str, version: str, ids: Sequence[str], output: ModelOutput) -> bytes:
    """Return the body of a response as JSON; numbers that are not finite become null.

    Raises:
        PredictionFailed: the model returned a value that JSON cannot represent.
    """
    predictions: list[dict[str, object]] = [
        {"id": id, "prediction": value} for id, value in zip(ids, output.prediction, strict=True)
    ]
    if output.probabilities is not None:
        for prediction, probabilities in zip(predictions, output.probabilities, strict=True):
            prediction["probabilities"] = probabilities
    try:
        return to_json({"model": model, "version": version, "predictions": predictions}, inf_nan_mode="null")
    except ValueError as error:
        raise PredictionFailed(error) from error
