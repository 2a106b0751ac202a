"""The prediction log: answered requests, published to `predictions.<model>`.

A request only appends to a list. Every 100 ms the list becomes columnar events, which are encoded at once. While the
bus is unavailable an encoded row takes a few hundred bytes, and the memory for all rows has an exact limit. Beyond the
limit the oldest events are dropped.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from contracts.events import Predictions, subject_of
from contracts.packaged_model import Manifest
from serving.bus import BusUnavailable, ServingBus, event_headers
from serving.metrics import Metrics
from serving.model import ModelOutput
from serving.prediction_request import Row

MAX_EVENT_CELLS = 16_384
"""Most values of features in one event: encoding them keeps the event loop busy for about a millisecond."""
MAX_EVENT_BYTES = 768 * 1024
"""With its headers an event is smaller than 1 MiB, the largest message of a NATS server by default. Ours takes 8 MB."""
MAX_UNENCODED_ROWS = 100_000
"""Most rows that wait to be encoded; only a burst within 100 ms comes near it."""
RETRY_SECONDS = 0.5
"""Time before the next attempt when the bus did not confirm."""


@dataclass(frozen=True)
class LoggedRequest:
    """One answered request."""

    ids: Sequence[str]
    rows: Sequence[Row]
    output: ModelOutput
    latency_ms: float


@dataclass(frozen=True)
class EncodedEvent:
    """An event as it is published. `headers` contain its id, so that the bus stores a repeated attempt once."""

    rows: int
    body: bytes
    headers: dict[str, str]


class PredictionLog:
    """Publishes answered requests in the background. A request neither waits for the log nor fails because of it.

    Args:
        max_bytes: most bytes of events that wait for the bus.
        early_rows: number of rows that are encoded at once, without waiting for the interval.
    """

    def __init__(self, manifest: Manifest, metrics: Metrics, *, max_bytes: int, early_rows: int) -> None:
        self._manifest, self._metrics = manifest, metrics
        self._max_bytes, self._early_rows = max_bytes, early_rows
        self._names = tuple(feature.name for feature in manifest.features)
        self._rows_per_event = max(1, MAX_EVENT_CELLS // max(1, len(self._names)))
        self._event = Predictions.model_construct(model=manifest.model)
        """An event without rows, for the subject and the headers."""
        self._unencoded: list[LoggedRequest] = []
        self._unencoded_rows = 0
        self._events: deque[EncodedEvent] = deque()
        self._event_bytes = 0
        self._has_early_rows, self._has_events = asyncio.Event(), asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of rows that the bus has not confirmed yet."""
        return self._unencoded_rows + sum(event.rows for event in self._events)

    def add(self, request: LoggedRequest) -> None:
        """Add an answered request to the log."""
        if self._unencoded_rows + len(request.ids) > MAX_UNENCODED_ROWS:
            self._metrics.log_dropped.inc(len(request.ids))
            return
        self._unencoded.append(request)
        self._unencoded_rows += len(request.ids)
        if self._unencoded_rows >= self._early_rows:
            self._has_early_rows.set()

    async def encode_forever(self, interval: float) -> None:
        """Encode rows every `interval` seconds, or sooner when there are many."""
        while True:
            waiter = asyncio.ensure_future(self._has_early_rows.wait())
            await asyncio.wait([waiter], timeout=interval)
            waiter.cancel()
            self._has_early_rows.clear()
            await self.encode_waiting()

    async def encode_waiting(self) -> None:
        """Encode all rows that wait for it."""
        requests, self._unencoded, self._unencoded_rows = self._unencoded, [], 0
        for part in _parts(requests, self._rows_per_event):
            for event in self._encode(part):
                self._store(event)
            await asyncio.sleep(0)

    async def send_forever(self, bus: ServingBus) -> None:
        """Publish events in order until cancelled; each is tried again until the bus confirms it or it is dropped."""
        while True:
            await self._has_events.wait()
            try:
                await self.send(bus)
            except BusUnavailable:
                await asyncio.sleep(RETRY_SECONDS)

    async def send(self, bus: ServingBus) -> None:
        """Publish all events.

        Raises:
            BusUnavailable: the events that were not confirmed are kept.
        """
        while self._events:
            event = self._events[0]
            await bus.publish(subject_of(self._event), event.body, dict(event.headers))
            self._metrics.log_published.inc(event.rows)
            if self._events and self._events[0] is event:
                self._remove_oldest()
        self._has_events.clear()

    def _store(self, event: EncodedEvent) -> None:
        self._events.append(event)
        self._event_bytes += len(event.body)
        while self._event_bytes > self._max_bytes:
            self._metrics.log_dropped.inc(self._events[0].rows)
            self._remove_oldest()
        if self._events:
            self._has_events.set()

    def _remove_oldest(self) -> None:
        self._event_bytes -= len(self._events.popleft().body)

    def _encode(self, part: Sequence[LoggedRequest]) -> Iterator[EncodedEvent]:
        rows = sum(len(request.ids) for request in part)
        body = self._body(part)
        if body is not None and len(body) <= MAX_EVENT_BYTES:
            yield EncodedEvent(rows, body, event_headers(self._event, self._manifest))
        elif rows == 1:
            self._metrics.log_dropped.inc()
        else:
            for half in _parts(part, (rows + 1) // 2):
                yield from self._encode(half)

    def _body(self, part: Sequence[LoggedRequest]) -> bytes | None:
        """Return the event of these rows, or None when JSON cannot represent one of their predictions."""
        try:
            return encode(self._manifest, self._names, part, time.time())
        except (ValueError, TypeError, OverflowError):
            return None


def encode(manifest: Manifest, names: Sequence[str], part: Sequence[LoggedRequest], now: float) -> bytes:
    """Return the JSON of a `contracts.events.Predictions`, four times as fast as `model_dump_json`.

    A prediction that is not finite becomes null; probabilities that are not finite are left out.
    """
    rows = [row for request in part for row in request.rows]
    event: dict[str, object] = {
        "model": manifest.model,
        "version": manifest.version,
        "time": now,
        "id": [id for request in part for id in request.ids],
        "columns": {name: [row[name] for row in rows] for name in names},
        "prediction": [value for request in part for value in request.output.prediction],
        "latency_ms": [request.latency_ms for request in part for _ in request.ids],
    }
    probabilities = [row for request in part for row in request.output.probabilities or ()]
    if probabilities and all(math.isfinite(sum(row)) for row in probabilities):
        event["probabilities"] = probabilities
    return to_json(event, inf_nan_mode="null")


def _parts(requests: Sequence[LoggedRequest], size: int) -> Iterator[list[LoggedRequest]]:
    """Yield `requests` in parts of at most `size` rows."""
    part: list[LoggedRequest] = []
    left = size
    for request in requests:
        start = 0
        while start < len(request.ids):
            stop = min(start + left, len(request.ids))
            ids, rows, output = request.ids[start:stop], request.rows[start:stop], request.output.part(start, stop)
            part.append(LoggedRequest(ids, rows, output, request.latency_ms))
            left -= stop - start
            start = stop
            if not left:
                yield part
                part, left = [], size
    if part:
        yield part
