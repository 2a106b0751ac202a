"""Keeps a process running: restarts it when it ends, ends it on request, and bounds the size of its log.

docs/decisions/0006-a-supervisor-of-our-own.md explains why circus, which comes with BentoML, is not used.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

STEADY_SECONDS = 10.0
"""A process that ran longer than this did not fail at its start, and is restarted at once."""
PAUSES = (0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the restart after 0, 1, 2, … failed starts in a row."""
LOG_BYTES = 10 * 1024**2
"""Size at which a log is moved to `<name>.log.1`, whose old content is lost."""


@dataclass(frozen=True)
class ProgramSpec:
    """A program that is kept running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path


@dataclass(frozen=True)
class ProcessExit:
    """End of a process that nobody asked for.

    `code` is the exit code, or the negative number of a signal. `failed_starts` counts failed starts in a row.
    """

    program: ProgramSpec
    code: int
    failed_starts: int

    def __str__(self) -> str:
        cause = f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"
        return f"{self.program.name} ended ({cause})"


class ProcessSupervisor:
    """Keeps one program running from `start()` to `stop()`.

    `on_start` is called after every start, `on_exit` when the process ended by itself, before it is restarted.
    """

    def __init__(
        self,
        program: ProgramSpec,
        on_start: Callable[["ProcessSupervisor"], None],
        on_exit: Callable[[ProcessExit], None],
    ) -> None:
        self.program = program
        self._on_start, self._on_exit = on_start, on_exit
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None]:
        """The task of this supervisor; it ends after `stop()`, earlier only with an error."""
        assert self._task is not None, "not started"
        return self._task

    @property
    def pid(self) -> int | None:
        """Pid of the running process; None when there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        """Start the process and keep it running."""
        self._task = asyncio.create_task(self._keep_running(), name=self.program.name)

    async def stop(self, grace: float) -> None:
        """End the process and its children: SIGTERM, after `grace` seconds SIGKILL."""
        self._stop.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        await asyncio.wait({self._task}, timeout=grace)
        self._signal(signal.SIGKILL)
        await self._task

    async def _keep_running(self) -> None:
        failed_starts = 0
        while not self._stop.is_set():
            started = time.monotonic()
            self._process = await _spawn(self.program)
            if self._stop.is_set():
                self._signal(signal.SIGTERM)
            self._on_start(self)
            code = await self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # children that it left in its session
            if self._stop.is_set():
                return
            failed_starts = 0 if time.monotonic() - started > STEADY_SECONDS else failed_starts + 1
            self._on_exit(ProcessExit(self.program, code, failed_starts))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PAUSES[min(failed_starts, len(PAUSES) - 1)])

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)


async def _spawn(program: ProgramSpec) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C in a terminal reaches only `belt up`, which ends the processes in order.
    # The log is a file, not a pipe: a process can still write when `belt up` was killed.
    with program.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *program.argv,
            env=program.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def bound(log: Path) -> None:
    """Move a log larger than LOG_BYTES to `<name>.log.1`. Its writer appends, so it goes on in the emptied file."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
