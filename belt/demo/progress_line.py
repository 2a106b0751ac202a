"""Progress of the demo's traffic: one changing line on a terminal, elsewhere a line every few seconds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console

from belt import output
from belt.demo.traffic import CameraTraffic

RECENT = 200
"""Number of answers that the accuracy is computed from."""
TERMINAL_SECONDS, PLAIN_SECONDS = 0.5, 5.0


def line(traffic: CameraTraffic) -> str:
    """Return `1 240 answers · 0 failed · accuracy 0.44 (last 200) · 480 labels`."""
    recent = [answer.right for answer in traffic.answers[-RECENT:]]
    accuracy = f"accuracy {sum(recent) / len(recent):.2f} (last {len(recent)})" if recent else "no accuracy yet"
    counts = f"{_count(len(traffic.answers))} answers · {_count(len(traffic.failures))} failed"
    return f"{counts} · {accuracy} · {_count(traffic.labels)} labels"


@asynccontextmanager
async def show(traffic: CameraTraffic, console: Console | None = None) -> AsyncIterator[None]:
    """Show the progress of the traffic, by default on stderr, while the block runs."""
    console = console or output.stderr()
    task = asyncio.create_task(_refresh(traffic, console))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _refresh(traffic: CameraTraffic, console: Console) -> None:
    if not console.is_terminal:
        while True:
            await asyncio.sleep(PLAIN_SECONDS)
            console.print(line(traffic), style="dim", highlight=False, soft_wrap=True)
    with console.status(line(traffic)) as status:
        while True:
            await asyncio.sleep(TERMINAL_SECONDS)
            status.update(line(traffic))


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")
