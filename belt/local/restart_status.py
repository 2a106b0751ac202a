"""Reports when the models that were live before a restart of `belt up` answer again."""

import asyncio
import time
from collections.abc import Callable, Collection

from belt.local.stack import status

TIMEOUT_SECONDS = 60.0
POLL = 0.2


async def report(models: Collection[str], port: int, info: Callable[[str], None]) -> None:
    """Report the models that are being restarted, and each one when it answers through the gateway on `port`."""
    if models:
        info(f"restarting the models that were live (they answer 503 until then): {', '.join(models)}")
    await asyncio.gather(*(_report_when_ready(model, port, info) for model in models))


async def _report_when_ready(model: str, port: int, info: Callable[[str], None]) -> None:
    started = time.monotonic()
    while await status(port, f"/{model}/readyz") != 200:
        if time.monotonic() - started > TIMEOUT_SECONDS:
            info(f"{model} does not answer after {TIMEOUT_SECONDS:.0f} s; see `belt logs --model {model}`")
            return
        await asyncio.sleep(POLL)
    info(f"{model} answers after {time.monotonic() - started:.1f} s")
