"""Processes that belong to a home, found by a mark in their environment, whoever started them and whoever died.

The mark is inherited: it finds workers, their jobs and serving processes alike, with no moment between a start and a
record of it in which a kill -9 would lose one. psutil checks the start time before it signals a pid.
"""

import contextlib
import os
import time
from pathlib import Path

import psutil

MARK = "BENTOBELT_UP"
"""Environment variable of everything a `belt up` has started: its home."""
POLL = 0.02


def find(home: Path) -> list[psutil.Process]:
    """Living processes of that home (an absolute path), this one excepted."""
    return [process for process in psutil.process_iter() if _belongs(process, str(home))]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        mine = bool(process.environ().get(MARK) == home)
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False
    return mine and process.pid != os.getpid() and _alive(process)


def end(home: Path, grace: float, *, last: str) -> int:
    """End all of them: SIGTERM, after `grace` seconds SIGKILL. Returns how many there were.

    Args:
        home: an absolute path.
        grace: seconds.
        last: name of the program to end after the others, which need it to end well.
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
    """End all of them without asking. What one of them forks meanwhile is found in the next round."""
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
    # psutil's own waiting counts a zombie as alive, and in a container nobody may be there to reap it.
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
