"""Polling to a deadline, for what happens in its own time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s: {condition}"
        time.sleep(0.02)
    return found


async def eventually(condition: Callable[[], Awaitable[T]], seconds: float = 30.0) -> T:
    """The same for an async condition."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s: {condition}"
        await asyncio.sleep(0.02)
    return found
