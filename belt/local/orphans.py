"""Processes that belong to a home, found by a variable in their environment.

Child processes inherit the variable, so it finds workers, their jobs and serving processes. Unlike a list of pids it is
complete even if `belt up` is killed right after a start. psutil checks the start time before it signals a pid.
"""

import contextlib
import os
import time
from pathlib import Path

import psutil

MARK = "BENTOBELT_UP"
"""Environment variable of every process that a `belt up` has started; its value is the home."""
POLL = 0.02


def find(home: Path) -> list[psutil.Process]:
    """Return the running processes of a home (an absolute path), without this one."""
    return [process for process in psutil.process_iter() if _belongs(process, str(home))]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        belongs = bool(process.environ().get(MARK) == home)
    except (psutil.Error, OSError):  # it has ended, or belongs to another user
        return False
    return belongs and process.pid != os.getpid() and _alive(process)


def end(home: Path, grace: float, *, last: str) -> int:
    """End all processes of a home: SIGTERM, after `grace` seconds SIGKILL. Return their number.

    The program named `last` is ended last, because the others need it to end cleanly.
    """
    found = find(home)
    first = [process for process in found if process.name() != last]
    for process in first:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _wait(first, grace)
    kill(home)
    return len(found)


def kill(home: Path) -> None:
    """Kill all processes of a home, in rounds until none is left, because one may fork meanwhile."""
    while found := find(home):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait(found, 5)


def _wait(processes: list[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL)


def _alive(process: psutil.Process) -> bool:
    # psutil counts a zombie as running, and in a container there may be no parent that reaps it.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
