"""The prediction log: what was answered, on its way to `predictions.<model>`.

A request only appends to a list. Every 100 ms the list becomes columnar events, encoded at once so that what
waits for a bus that is away costs a few hundred bytes a row and has an exact bound; the oldest go first.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from pydantic_core import to_json

from contracts.cloudevents import headers
from contracts.events import Predictions, subject_of
from contracts.packaged_model import Manifest
from serving.bus import BusAway, ServingBus
from serving.metrics import Metrics
from serving.model import ModelOutput
from serving.prediction_request import Row

CELLS = 16_384
"""Cells in one event: encoding it holds the event loop for about a millisecond."""
LARGEST = 768 * 1024
"""Bytes in one event: with its headers less than the 1 MiB that a NATS server takes by default. Ours takes 8 MB."""
UNPACKED = 100_000
"""Rows not yet encoded; only a burst within 100 ms comes near it."""
PAUSE = 0.5
"""Seconds before the next attempt when the bus did not confirm."""


@dataclass(frozen=True)
class LoggedRequest:
    """One request's rows and answers."""

    ids: Sequence[str]
    rows: Sequence[Row]
    answers: ModelOutput
    latency_ms: float


@dataclass(frozen=True)
class EncodedEvent:
    """An event as it goes on the wire; `headers` carry its id, so that a second attempt is no second event."""

    rows: int
    body: bytes
    headers: dict[str, str]


class PredictionLog:
    """Bounded; never blocks, never raises into a request.

    Args:
        limit: bytes that may wait for the bus.
        rows: rows after which packing does not wait for its interval.
    """

    def __init__(self, manifest: Manifest, metrics: Metrics, *, limit: int, rows: int) -> None:
        self._manifest, self._metrics = manifest, metrics
        self._limit, self._soon = limit, rows
        self._names = tuple(feature.name for feature in manifest.features)
        self._per_event = max(1, CELLS // max(1, len(self._names)))
        self._subject = subject_of(Predictions.model_construct(model=manifest.model))
        self._fresh: list[LoggedRequest] = []
        self._fresh_rows = 0
        self._packed: deque[EncodedEvent] = deque()
        self._bytes = 0
        self._full, self._ready = asyncio.Event(), asyncio.Event()

    @property
    def waiting(self) -> int:
        """Rows that are not on the bus yet."""
        return self._fresh_rows + sum(event.rows for event in self._packed)

    def add(self, answered: LoggedRequest) -> None:
        """Remember what was answered."""
        if self._fresh_rows + len(answered.ids) > UNPACKED:
            self._metrics.log_dropped.inc(len(answered.ids))
            return
        self._fresh.append(answered)
        self._fresh_rows += len(answered.ids)
        if self._fresh_rows >= self._soon:
            self._full.set()

    async def pack_forever(self, interval: float) -> None:
        """Turn rows into events every `interval` seconds, sooner when there are many."""
        while True:
            waiter = asyncio.ensure_future(self._full.wait())
            await asyncio.wait([waiter], timeout=interval)
            waiter.cancel()
            self._full.clear()
            await self.pack()

    async def pack(self) -> None:
        """Turn all fresh rows into events."""
        fresh, self._fresh, self._fresh_rows = self._fresh, [], 0
        for part in _parts(fresh, self._per_event):
            for event in self._events(part):
                self._keep(event)
            await asyncio.sleep(0)

    async def send_forever(self, bus: ServingBus) -> None:
        """Publish events in their order, each until the bus has it or room was needed."""
        while True:
            await self._ready.wait()
            try:
                await self.send(bus)
            except BusAway:
                await asyncio.sleep(PAUSE)

    async def send(self, bus: ServingBus) -> None:
        """Publish all events.

        Raises:
            BusAway: those that are left stay.
        """
        while self._packed:
            event = self._packed[0]
            await bus.publish(self._subject, event.body, dict(event.headers))
            self._metrics.log_published.inc(event.rows)
            if self._packed and self._packed[0] is event:
                self._forget_oldest()
        self._ready.clear()

    def _keep(self, event: EncodedEvent) -> None:
        self._packed.append(event)
        self._bytes += len(event.body)
        while self._bytes > self._limit:
            self._metrics.log_dropped.inc(self._packed[0].rows)
            self._forget_oldest()
        if self._packed:
            self._ready.set()

    def _forget_oldest(self) -> None:
        self._bytes -= len(self._packed.popleft().body)

    def _events(self, part: Sequence[LoggedRequest]) -> Iterator[EncodedEvent]:
        rows = sum(len(answered.ids) for answered in part)
        body = self._encoded(part)
        if body is not None and len(body) <= LARGEST:
            yield EncodedEvent(rows, body, self._headers())
        elif rows == 1:
            self._metrics.log_dropped.inc()
        else:
            for half in _parts(part, (rows + 1) // 2):
                yield from self._events(half)

    def _encoded(self, part: Sequence[LoggedRequest]) -> bytes | None:
        """The event of these rows; None when one of them has an answer that JSON has no word for."""
        try:
            return encode(self._manifest, self._names, part, time.time())
        except (ValueError, TypeError, OverflowError):
            return None

    def _headers(self) -> dict[str, str]:
        manifest = self._manifest
        return headers(
            Predictions.model_construct(model=manifest.model),
            id=uuid4().hex,
            source="serving",
            run=manifest.run,
            generation=int(manifest.version.split("-")[0]),
            time=datetime.now(UTC),
        )


def encode(manifest: Manifest, names: Sequence[str], part: Sequence[LoggedRequest], now: float) -> bytes:
    """The JSON of a `contracts.events.Predictions`, four times faster than the model's own; a test holds them equal.

    A prediction that is not finite becomes null; probabilities that are not finite are left out.
    """
    rows = [row for answered in part for row in answered.rows]
    event: dict[str, object] = {
        "model": manifest.model,
        "version": manifest.version,
        "time": now,
        "id": [id for answered in part for id in answered.ids],
        "columns": {name: [row[name] for row in rows] for name in names},
        "prediction": [value for answered in part for value in answered.answers.prediction],
        "latency_ms": [answered.latency_ms for answered in part for _ in answered.ids],
    }
    shares = [share for answered in part for share in answered.answers.probabilities or ()]
    if shares and all(math.isfinite(sum(share)) for share in shares):
        event["probabilities"] = shares
    return to_json(event, inf_nan_mode="null")


def _parts(fresh: Sequence[LoggedRequest], size: int) -> Iterator[list[LoggedRequest]]:
    """`fresh` in parts of at most `size` rows."""
    part: list[LoggedRequest] = []
    room = size
    for answered in fresh:
        start = 0
        while start < len(answered.ids):
            stop = min(start + room, len(answered.ids))
            part.append(_slice(answered, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


def _slice(answered: LoggedRequest, start: int, stop: int) -> LoggedRequest:
    if (start, stop) == (0, len(answered.ids)):
        return answered
    part = answered.answers.part(start, stop)
    return LoggedRequest(answered.ids[start:stop], answered.rows[start:stop], part, answered.latency_ms)
