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

LONGEST = 20_000
"""Characters of one value of a line on the bus."""
WAITING = 1000
"""Lines kept for the bus while it is away; older ones are dropped, they are on stderr anyway."""


class LogShipper:
    """Puts every line on the bus without ever making the caller wait."""

    def __init__(self, service: str, bus: Bus) -> None:
        self._service, self._bus = service, bus
        self._lines: deque[tuple[str, bytes]] = deque(maxlen=WAITING)

    def __call__(self, _: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A structlog processor: keeps a copy of the line."""
        model = line.get("model") or "_"
        short = {name: _cut(value) for name, value in line.items()}
        self._lines.append((f"logs.{self._service}.{model}", json.dumps(short, default=str).encode()))
        return line

    async def flush(self) -> None:
        """Publish what waits; what cannot be sent now waits on."""
        while self._lines and self._bus.is_connected:
            subject, line = self._lines.popleft()
            try:
                await self._bus.nc.publish(subject, line)
            except NatsError:
                self._lines.appendleft((subject, line))
                return


def _cut(value: Any) -> Any:
    """The end of a long text is where a traceback says what it is."""
    return "…" + value[-LONGEST:] if isinstance(value, str) and len(value) > LONGEST else value


def configure(service: str, level: str, shipper: LogShipper) -> None:
    """Set up structlog for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _named(service),
            shipper,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _named(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["service"] = service
        return line

    return add
