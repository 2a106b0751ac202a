"""Structured logs: JSON lines on stderr, and on `logs.<service>.<model>` for `belt watch` and `belt logs`."""

import json
import logging
import sys
from collections import deque
from collections.abc import MutableMapping
from typing import Any

import structlog
from nats.errors import Error as NatsError

from services.messaging.connection import Bus

VALUE_CHARACTERS = 20_000
"""Length of one value of a line on the bus."""
QUEUED_LINES = 1000
"""Lines that are kept while the bus is away; older ones are dropped. All lines are on stderr."""


class LogShipper:
    """Publishes every line later, so that logging never waits for the bus."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service, self._bus = service, bus
        self._lines: deque[tuple[str, bytes]] = deque(maxlen=QUEUED_LINES)

    def __call__(self, _: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep a copy of the line; a structlog processor."""
        model = line.get("model") or "_"
        cut = {name: _cut(value) for name, value in line.items()}
        self._lines.append((f"logs.{self._service}.{model}", json.dumps(cut, default=str).encode()))
        return line

    async def flush(self) -> None:
        """Publish the queued lines; those that cannot be sent now stay in the queue."""
        while self._lines and self._bus.is_connected:
            subject, line = self._lines.popleft()
            try:
                await self._bus.nc.publish(subject, line)
            except NatsError:
                self._lines.appendleft((subject, line))
                return


def _cut(value: Any) -> Any:
    """Return the end of a long text: the end of a traceback names the error."""
    if isinstance(value, str) and len(value) > VALUE_CHARACTERS:
        return "…" + value[-VALUE_CHARACTERS:]
    return value


def configure(service: str, level: str, shipper: LogShipper) -> None:
    """Set up structlog for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _add_service(service),
            shipper,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["service"] = service
        return line

    return add
