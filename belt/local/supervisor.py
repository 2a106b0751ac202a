"""Keeps processes running: started again as soon as they end, ended together, their logs bounded.

Small on purpose. circus, the supervisor that comes with BentoML, looks at its children a few times a second instead of
being told, starts a crashing one again without pause, and reads their output through pipes: when the supervisor is
killed, the next line that a worker logs raises BrokenPipeError in the middle of its work. See docs/decisions.
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
"""A process that lived this long has not crashed at start: it is started again at once."""
PAUSES = (0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds before the start after the 1st, 2nd, … death in a row that came too soon."""
LOG_BYTES = 10 * 1024**2
"""Size at which a log is moved to `<name>.log.1`, which is overwritten."""


@dataclass(frozen=True)
class ProgramSpec:
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path


@dataclass(frozen=True)
class ProcessExit:
    """A part ended by itself. `code` is an exit code, or minus a signal; `in_a_row` counts those right after starts."""

    part: ProgramSpec
    code: int
    in_a_row: int

    def __str__(self) -> str:
        end = f"signal {signal.Signals(-self.code).name}" if self.code < 0 else f"exit code {self.code}"
        return f"{self.part.name} ended ({end})"


class ProcessSupervisor:
    """Keeps one part running from `start()` to `stop()`.

    Args:
        part: what to run.
        started: called with every new process.
        died: called when it ended by itself, before it is started again.
    """

    def __init__(
        self, part: ProgramSpec, started: Callable[["ProcessSupervisor"], None], died: Callable[[ProcessExit], None]
    ) -> None:
        self.part = part
        self._started, self._died = started, died
        self._process: asyncio.subprocess.Process | None = None
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends after `stop()`; before that only by an error of ours."""
        assert self._task is not None, "not started"
        return self._task

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def start(self) -> None:
        """Start the process and keep it."""
        self._task = asyncio.create_task(self._keep(), name=self.part.name)

    async def stop(self, grace: float) -> None:
        """End the process: SIGTERM, after `grace` seconds SIGKILL, and with it what it has started."""
        self._stop.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        await asyncio.wait({self._task}, timeout=grace)
        self._signal(signal.SIGKILL)
        await self._task

    async def _keep(self) -> None:
        soon = 0
        while not self._stop.is_set():
            since = time.monotonic()
            self._process = await _spawn(self.part)
            if self._stop.is_set():
                self._signal(signal.SIGTERM)
            self._started(self)
            code = await self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # what it left behind in its session
            if self._stop.is_set():
                return
            soon = 0 if time.monotonic() - since > STEADY_SECONDS else soon + 1
            self._died(ProcessExit(self.part, code, soon))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PAUSES[min(soon, len(PAUSES) - 1)])

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)


async def _spawn(part: ProgramSpec) -> asyncio.subprocess.Process:
    # A session of its own: the Ctrl-C of a terminal reaches only the supervisor, which ends the parts in order.
    # The log is a file, not a pipe: a part never notices that the supervisor was killed.
    with part.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *part.argv,
            env=part.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def bound(log: Path) -> None:
    """Keep a log below LOG_BYTES and its predecessor. Its writer appends, so that it writes on at the new end."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
