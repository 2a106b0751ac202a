import asyncio
import contextlib

from services.timeline.history import _cancel_all


async def test_a_reader_that_takes_its_cancellation_for_a_timeout_is_ended_all_the_same() -> None:
    """nats-py took about one in eleven cancellations for its own timeout: `belt push --wait` never returned."""
    started = asyncio.Event()

    async def read() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            started.set()
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    reader = asyncio.create_task(read())
    await started.wait()
    await asyncio.wait_for(_cancel_all([reader]), 20)
    assert reader.cancelled()
