"""Models that were live when `belt up` ended last: the deployer starts them again, and a person wants to know when."""

import asyncio
import time
from collections.abc import Callable, Collection

from belt.local.stack import status

PATIENCE_SECONDS = 60.0
POLL = 0.2


async def report(models: Collection[str], port: int, say: Callable[[str], None]) -> None:
    """Say which models are on their way, and of each when it answers.

    Args:
        models: that were live.
        port: of the gateway.
        say: told in sentences for a person.
    """
    if models:
        say(f"live before, being started again (503 until then): {', '.join(models)}")
    await asyncio.gather(*(_tell_of(model, port, say) for model in models))


async def _tell_of(model: str, port: int, say: Callable[[str], None]) -> None:
    since = time.monotonic()
    while await status(port, f"/{model}/readyz") != 200:
        if time.monotonic() - since > PATIENCE_SECONDS:
            say(f"{model} does not answer yet: `belt logs` may say why")
            return
        await asyncio.sleep(POLL)
    say(f"{model} answers again after {time.monotonic() - since:.1f} s")
