"""Errors of serving, on their way to `logs.serving.<model>`; the monitor counts them.

The same error a thousand times within a moment is one line with `count` 1000.
"""

import asyncio
import logging
import time
import traceback
from typing import Literal

from pydantic import BaseModel, Field

from contracts.packaged_model import Manifest
from serving.bus import BusAway, ServingBus

log = logging.getLogger("bentobelt.serving")

KINDS = 100
"""Different lines kept while the bus is away."""
INTERVAL = 0.2
"""Seconds in which equal errors become one line."""
Level = Literal["warning", "error"]
Key = tuple[Level, str, str]


class ErrorLogLine(BaseModel):
    """One line of the log, as JSON on the bus and on stderr."""

    time: float = Field(description="unix seconds of the first")
    level: Level
    event: str = Field(description="what happened: predict.failed, predict.refused, …")
    error: str = Field(description="kind and text of the error")
    service: str = "serving"
    run: str
    model: str
    version: str
    count: int = Field(default=1, description="how often within a moment")
    traceback: str | None = None


class ErrorLog:
    """Collects what went wrong and publishes it. Bounded; never raises into a request."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._subject = f"logs.serving.{manifest.model}"
        self._lines: dict[Key, ErrorLogLine] = {}
        self._some = asyncio.Event()

    def note(self, level: Level, event: str, error: BaseException) -> None:
        """Remember one error or warning; an error's cause is told rather than its wrapper."""
        cause = error.__cause__ or error
        text = f"{type(cause).__name__}: {cause}"[:2000]
        self._remember((level, event, text), self._line(level, event, text, cause))
        self._some.set()

    async def send_forever(self, bus: ServingBus) -> None:
        """Publish what came up, again and again until the bus has it."""
        while True:
            await self._some.wait()
            await asyncio.sleep(INTERVAL)
            try:
                await self.send(bus)
            except BusAway:
                continue

    async def send(self, bus: ServingBus) -> None:
        """Publish all lines.

        Raises:
            BusAway: those that are left stay.
        """
        while self._lines:
            key = next(iter(self._lines))
            line = self._lines.pop(key)
            try:
                await bus.publish(self._subject, line.model_dump_json(exclude_none=True).encode(), _JSON.copy())
            except BusAway:
                self._remember(key, line)
                raise
        self._some.clear()

    def _remember(self, key: Key, line: ErrorLogLine) -> None:
        if known := self._lines.get(key):
            known.count += line.count
        elif len(self._lines) < KINDS:
            self._lines[key] = line
            log.log(logging.ERROR if line.level == "error" else logging.WARNING, line.model_dump_json())

    def _line(self, level: Level, event: str, error: str, cause: BaseException) -> ErrorLogLine:
        about = self._manifest
        trace = "".join(traceback.format_exception(cause))[-4000:] if level == "error" else None
        return ErrorLogLine(
            time=time.time(), level=level, event=event, error=error, traceback=trace,
            run=about.run, model=about.model, version=about.version,
        )  # fmt: skip


_JSON = {"content-type": "application/json"}
