"""Errors of serving, published to `logs.serving.<model>`, where the monitor counts them.

Equal errors within a moment are published as one line with their count.
"""

import asyncio
import logging
import time
import traceback
from typing import Literal

from pydantic import BaseModel, Field

from contracts.packaged_model import Manifest
from serving.bus import BusUnavailable, ServingBus

log = logging.getLogger("bentobelt.serving")

MAX_LINES = 100
"""Different lines kept while the bus is unavailable."""
INTERVAL = 0.2
"""Seconds within which equal errors become one line."""
Level = Literal["warning", "error"]
Key = tuple[Level, str, str]


class ErrorLogLine(BaseModel):
    """One line of the log, as JSON on the bus and on stderr."""

    time: float = Field(description="unix seconds of the first of these errors")
    level: Level
    event: str = Field(description="predict.failed, predict.refused, …")
    error: str = Field(description="class and text of the error")
    service: str = "serving"
    run: str
    model: str
    version: str
    count: int = Field(default=1, description="number of equal errors in this line")
    traceback: str | None = None


class ErrorLog:
    """Collects errors and publishes them. The number of its lines is limited; a request never fails because of it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._subject = f"logs.serving.{manifest.model}"
        self._lines: dict[Key, ErrorLogLine] = {}
        self._has_lines = asyncio.Event()

    def record(self, level: Level, event: str, error: BaseException) -> None:
        """Add an error to the log; of a chained one, its cause."""
        cause = error.__cause__ or error
        text = f"{type(cause).__name__}: {cause}"[:2000]
        self._add((level, event, text), self._line(level, event, text, cause))
        self._has_lines.set()

    async def send_forever(self, bus: ServingBus) -> None:
        """Publish recorded lines until cancelled; during an outage of the bus, try again."""
        while True:
            await self._has_lines.wait()
            await asyncio.sleep(INTERVAL)
            try:
                await self.send(bus)
            except BusUnavailable:
                continue

    async def send(self, bus: ServingBus) -> None:
        """Publish all recorded lines.

        Raises:
            BusUnavailable: the lines that were not confirmed are kept.
        """
        while self._lines:
            key = next(iter(self._lines))
            line = self._lines.pop(key)
            body = line.model_dump_json(exclude_none=True).encode()
            try:
                await bus.publish(self._subject, body, {"content-type": "application/json"})
            except BusUnavailable:
                self._add(key, line)
                raise
        self._has_lines.clear()

    def _add(self, key: Key, line: ErrorLogLine) -> None:
        if known := self._lines.get(key):
            known.count += line.count
        elif len(self._lines) < MAX_LINES:
            self._lines[key] = line
            log.log(logging.ERROR if line.level == "error" else logging.WARNING, line.model_dump_json())

    def _line(self, level: Level, event: str, error: str, cause: BaseException) -> ErrorLogLine:
        manifest = self._manifest
        trace = "".join(traceback.format_exception(cause))[-4000:] if level == "error" else None
        return ErrorLogLine(
            time=time.time(), level=level, event=event, error=error, traceback=trace,
            run=manifest.run, model=manifest.model, version=manifest.version,
        )  # fmt: skip
