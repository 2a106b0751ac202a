"""One version being served: what is wired together, and the endpoints."""

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from pydantic_core import to_json

from contracts.cloudevents import body as event_body
from contracts.cloudevents import headers
from contracts.events import Feedback, subject_of
from serving.api_docs import example, openapi, page
from serving.asgi import Endpoint, HttpRequest, HttpResponse, Routes
from serving.batching import Batcher
from serving.bus import BusAway, ServingBus
from serving.error_log import ErrorLog
from serving.errors import PredictionFailed, Refused
from serving.feedback_request import FeedbackRequests, events
from serving.metrics import Metrics
from serving.model import Model, ModelOutput
from serving.prediction_log import LoggedRequest, PredictionLog
from serving.prediction_request import PredictionRequests
from serving.settings import Settings

LARGE = 64 * 1024
"""Bytes of a body from which on it is parsed beside the event loop."""


class Serving:
    """Everything behind the endpoints of one version. Made inside a running event loop."""

    def __init__(self, model: Model, settings: Settings) -> None:
        manifest = model.manifest
        self.manifest, self.settings = manifest, settings
        self.metrics = Metrics(manifest.model, manifest.version)
        self.bus = ServingBus(settings.nats_url, f"serving-{manifest.model}-{manifest.version}", settings.ack_seconds)
        self.log = PredictionLog(manifest, self.metrics, limit=settings.log_bytes, rows=settings.log_rows)
        self.trouble = ErrorLog(manifest)
        self.batcher = Batcher(model.answer, settings.waiting_rows)
        self.rows = PredictionRequests(manifest.features, manifest.max_rows)
        self.labels = FeedbackRequests(manifest)
        self._ids = _Ids(f"{manifest.model}.{manifest.version}.{secrets.token_hex(6)}")
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to predict and to publish."""
        work_of = (
            self.batcher.run(),
            self.log.pack_forever(self.settings.log_seconds),
            self.bus.keep_connected(),
            self.log.send_forever(self.bus),
            self.trouble.send_forever(self.bus),
        )
        for work in work_of:
            self._tasks.append(asyncio.ensure_future(work))

    async def stop(self) -> None:
        """Stop predicting, and try for a moment to bring what is logged to the bus."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.batcher.close()
        await self.log.pack()
        with contextlib.suppress(BusAway, TimeoutError):
            async with asyncio.timeout(self.settings.stop_seconds):
                await self.log.send(self.bus)
                await self.trouble.send(self.bus)
        self.metrics.log_dropped.inc(self.log.waiting)
        await self.bus.close()

    def routes(self) -> Routes:
        """What is answered here; the rest is BentoML's."""
        endpoints: dict[str, dict[str, Endpoint]] = {
            "/predict": {"POST": self.predict},
            "/feedback": {"POST": self.feedback},
            "/info": {"GET": self.info},
            "/metrics": {"GET": self.prometheus},
            "/docs": {"GET": self.docs},
            "/openapi.json": {"GET": self.openapi},
        }
        return Routes(self.manifest.model, self.manifest.version, endpoints, self.settings.max_body, self.watch)

    def watch(self, endpoint: str, status: int, error: BaseException | None) -> None:
        """Count a request; what is not the caller's fault is told on the bus as well."""
        self.metrics.answered(endpoint, status)
        if status < 500:
            return
        self.metrics.errors.inc()
        failed = isinstance(error, PredictionFailed) or error is None
        what = error or RuntimeError("a bug of the service; the exception is in its log")
        self.trouble.note("error" if failed else "warning", f"{endpoint}.{'failed' if failed else 'refused'}", what)

    async def predict(self, asked: HttpRequest) -> HttpResponse:
        """POST /predict."""
        started = time.perf_counter()
        body = asked.body
        rows = await asyncio.to_thread(self.rows.parse, body) if len(body) > LARGE else self.rows.parse(body)
        answers = await self.batcher.predict(rows)
        seconds = time.perf_counter() - started
        ids = self._ids.take(len(rows))
        answer = HttpResponse(render(self.manifest.model, self.manifest.version, ids, answers))
        # Only now: a prediction that nobody can be given is not logged either.
        if not asked.probe:
            self.log.add(LoggedRequest(ids, rows, answers, round(seconds * 1000, 3)))
        self.metrics.rows.inc(len(rows))
        self.metrics.latency.observe(seconds)
        return answer

    async def feedback(self, asked: HttpRequest) -> HttpResponse:
        """POST /feedback: accepted means that the bus has it."""
        now = time.time()
        body = asked.body
        labels = (
            await asyncio.to_thread(self.labels.parse, body, now) if len(body) > LARGE else self.labels.parse(body, now)
        )
        try:
            for event in events(self.manifest.model, labels):
                await self.bus.publish(subject_of(event), event_body(event), self._headers(event))
        except BusAway as error:
            raise Refused(503, f"not all labels were taken: {error}; send them again, each counts once") from error
        self.metrics.labels.inc(len(labels))
        return HttpResponse(to_json({"accepted": len(labels)}))

    async def info(self, _asked: HttpRequest) -> HttpResponse:
        """GET /info."""
        trained = datetime.fromtimestamp(self.manifest.trained, UTC).isoformat(timespec="seconds")
        about = {**self.manifest.model_dump(), "image": self.settings.image or None, "trained_at": trained}
        return HttpResponse(to_json(about, inf_nan_mode="null"))

    async def prometheus(self, _asked: HttpRequest) -> HttpResponse:
        """GET /metrics."""
        self.metrics.log_waiting.set(self.log.waiting)
        return HttpResponse(self.metrics.text(), media=b"text/plain; version=0.0.4; charset=utf-8")

    async def docs(self, _asked: HttpRequest) -> HttpResponse:
        """GET /docs."""
        text = page(self.manifest, json.dumps(example(self.manifest), ensure_ascii=False))
        return HttpResponse(text.encode(), media=b"text/html; charset=utf-8")

    async def openapi(self, _asked: HttpRequest) -> HttpResponse:
        """GET /openapi.json."""
        return HttpResponse(to_json(openapi(self.manifest, self.rows, self.labels)))

    def _headers(self, event: Feedback) -> dict[str, str]:
        generation = int(self.manifest.version.split("-")[0])
        now = datetime.now(UTC)
        return headers(event, id=uuid4().hex, source="serving", run=self.manifest.run, generation=generation, time=now)


@dataclass
class _Ids:
    """`<model>.<version>.<12 random hex of this process><count>`."""

    prefix: str
    _count: "itertools.count[int]" = field(default_factory=itertools.count)

    def take(self, how_many: int) -> list[str]:
        return [f"{self.prefix}{number:x}" for number in itertools.islice(self._count, how_many)]


def render(model: str, version: str, ids: Sequence[str], answers: ModelOutput) -> bytes:
    """The answer's JSON; what is not finite becomes null.

    Raises:
        ModelFailed: the model gave something that JSON has no word for.
    """
    predictions: list[dict[str, object]] = [
        {"id": id, "prediction": value} for id, value in zip(ids, answers.prediction, strict=True)
    ]
    if answers.probabilities is not None:
        for prediction, shares in zip(predictions, answers.probabilities, strict=True):
            prediction["probabilities"] = shares
    try:
        return to_json({"model": model, "version": version, "predictions": predictions}, inf_nan_mode="null")
    except ValueError as error:
        raise PredictionFailed(error) from error
