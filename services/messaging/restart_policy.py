"""Restart a background task that failed, with growing pauses."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from services.messaging.errors import RETRY_DELAYS, text

log = structlog.get_logger()


async def restart_on_error(
    task: Callable[[], Awaitable[None]],
    failing: dict[str, str],
    *,
    pauses: Sequence[float] = RETRY_DELAYS,
    **fields: str,
) -> None:
    """Run one of many background tasks until it returns; log each error and restart the task after a pause.

    Args:
        task: the task.
        failing: errors for `/health`, by the values of `fields`. The task is in it while it waits after at least
            `len(pauses)` failures in a row.
        pauses: seconds before the restart after the 1st, 2nd, … failure in a row; the last one applies to all
            further ones. A failure after a run longer than the last pause counts as the first.
        fields: fields of the log lines that name the task.
    """
    failures, name = 0, " ".join(fields.values())
    while True:
        started = time.monotonic()
        try:
            return await task()
        except Exception as error:
            failures = 1 if time.monotonic() - started > pauses[-1] else failures + 1
            pause = pauses[min(failures, len(pauses)) - 1]
            if failures >= len(pauses):
                failing[name] = text(error)
            log.error("task failed and will be restarted", error=text(error), seconds=pause, exc_info=True, **fields)
        try:
            await asyncio.sleep(pause)
        finally:
            failing.pop(name, None)
