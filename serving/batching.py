"""Requests that wait together are predicted together: a forest of 200 trees took 10 ms for one row, 12 ms for 16.

Nothing waits for company. While the model's thread is busy requests gather; when it is free it takes them all.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serving.errors import PredictionFailed, Refused
from serving.model import ModelOutput
from serving.prediction_request import Row

BATCH = 4096
"""Rows predicted at once, unless one request has more."""


@dataclass
class _Job:
    rows: Sequence[Row]
    answers: asyncio.Future[ModelOutput] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Asks a model from one thread of its own, never from the event loop.

    Args:
        answer: the model; called from one thread at a time.
        waiting_rows: most rows that may wait.
    """

    def __init__(self, answer: Callable[[Sequence[Row]], ModelOutput], waiting_rows: int) -> None:
        self._answer = answer
        self._limit = waiting_rows
        self._waiting: deque[_Job] = deque()
        self._rows = 0
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def predict(self, rows: Sequence[Row]) -> ModelOutput:
        """The model's answers to `rows`.

        Raises:
            ModelFailed: it raised on these rows; other requests are not affected.
            Refused: 503, too many rows are waiting.
        """
        if self._rows and self._rows + len(rows) > self._limit:
            raise Refused(503, f"{self._rows} rows are waiting already; try again")
        job = _Job(rows)
        self._waiting.append(job)
        self._rows += len(rows)
        self._wake.set()
        return await job.answers

    async def run(self) -> None:
        """Serve what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._together(self._take())

    def close(self) -> None:
        """Let go of the thread; what still waits is not predicted."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[_Job]:
        jobs = [self._waiting.popleft()]
        rows = len(jobs[0].rows)
        while self._waiting and rows + len(self._waiting[0].rows) <= BATCH:
            rows += len(self._waiting[0].rows)
            jobs.append(self._waiting.popleft())
        self._rows -= rows
        return jobs

    async def _together(self, jobs: list[_Job]) -> None:
        done = asyncio.wrap_future(self._thread.submit(self._answer, [row for job in jobs for row in job.rows]))
        await asyncio.wait([done])
        error = done.exception()
        if error is None:
            _hand_out(jobs, done.result())
        elif len(jobs) > 1:
            # Whose rows it were is unknown: each gets a try of its own, so that only the culprit fails.
            for job in jobs:
                await self._together([job])
        elif not jobs[0].answers.done():
            jobs[0].answers.set_exception(PredictionFailed(error))


def _hand_out(jobs: Sequence[_Job], answers: ModelOutput) -> None:
    start = 0
    for job in jobs:
        stop = start + len(job.rows)
        if not job.answers.done():
            job.answers.set_result(answers.part(start, stop))
        start = stop
