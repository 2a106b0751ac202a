import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from serving.batching import Batcher
from serving.errors import PredictionFailed, Refused
from serving.model import ModelOutput
from serving.prediction_request import Row


class Echo:
    """Answers each row with its own number; fails on negative ones; waits until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, rows: Sequence[Row]) -> ModelOutput:
        self.threads.add(threading.get_ident())
        self.batches.append(len(rows))
        assert self.go.wait(20)
        if any(row["n"] == -1 for row in rows):
            raise ValueError("negative")
        if any(row["n"] == -2 for row in rows):
            raise SystemExit("the project wants to end the process")
        return ModelOutput([row["n"] for row in rows], [[0.5] for _ in rows])


@asynccontextmanager
async def batching(answer: Callable[[Sequence[Row]], ModelOutput], waiting_rows: int = 1000) -> AsyncIterator[Batcher]:
    batcher = Batcher(answer, waiting_rows)
    task = asyncio.create_task(batcher.run())
    yield batcher
    task.cancel()
    await asyncio.wait([task])
    batcher.close()


def numbers(*n: int) -> list[Row]:
    return [{"n": one} for one in n]


async def gathered(batcher: Batcher, echo: Echo, *requests: list[Row]) -> list[ModelOutput | BaseException]:
    """Ask for all while the model is busy with another row, so that they wait together."""
    echo.go.clear()
    first = asyncio.create_task(batcher.predict(numbers(0)))
    while not echo.batches:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(batcher.predict(rows)) for rows in requests]
    await asyncio.sleep(0)
    echo.go.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_waits_together_is_predicted_together_and_handed_back_apart() -> None:
    echo = Echo()
    async with batching(echo) as batcher:
        answers = await gathered(batcher, echo, numbers(1, 2), numbers(3), numbers(4, 5))
    assert [one.prediction for one in answers if isinstance(one, ModelOutput)] == [[1, 2], [3], [4, 5]]
    assert echo.batches == [1, 5]
    assert echo.threads.isdisjoint({threading.get_ident()})
    assert len(echo.threads) == 1


@pytest.mark.parametrize("poison", [-1, -2])
async def test_a_bad_request_fails_alone(poison: int) -> None:
    echo = Echo()
    async with batching(echo) as batcher:
        good, bad, other = await gathered(batcher, echo, numbers(1), numbers(poison), numbers(3))
        assert (await batcher.predict(numbers(9))).prediction == [9]
    assert isinstance(good, ModelOutput)
    assert isinstance(other, ModelOutput)
    assert (good.prediction, other.prediction) == ([1], [3])
    assert isinstance(bad, PredictionFailed)
    assert "the model failed on this input" in str(bad)


async def test_too_much_waiting_is_refused_and_says_so() -> None:
    echo = Echo()
    async with batching(echo, waiting_rows=3) as batcher:
        answers = await gathered(batcher, echo, numbers(1, 2), numbers(3, 4))
    assert isinstance(answers[0], ModelOutput)
    assert isinstance(answers[1], Refused)
    assert answers[1].status == 503


async def test_a_caller_that_left_does_not_stop_the_others() -> None:
    echo = Echo()
    async with batching(echo) as batcher:
        echo.go.clear()
        gone = asyncio.create_task(batcher.predict(numbers(1)))
        while not echo.batches:
            await asyncio.sleep(0)
        gone.cancel()
        echo.go.set()
        assert (await batcher.predict(numbers(2))).prediction == [2]
