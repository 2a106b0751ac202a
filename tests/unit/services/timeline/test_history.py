import asyncio
import contextlib

from services.timeline.history import _ended


async def test_a_reader_that_takes_its_cancellation_for_a_timeout_is_ended_all_the_same() -> None:
    """What nats-py's wait made of one in eleven cancellations that met its end: `belt push --wait` never returned."""
    begun = asyncio.Event()

    async def read() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            begun.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    reader = asyncio.create_task(read())
    await begun.wait()
    await asyncio.wait_for(_ended([reader]), 20)
    assert reader.cancelled()
