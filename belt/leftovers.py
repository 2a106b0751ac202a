"""Processes that belong to a home, found by a mark in their environment, whoever started them and whoever died.

The mark is inherited: it finds workers, their jobs and serving processes alike, with no moment between a start and a
record of it in which a kill -9 would lose one. psutil checks the start time before it signals a pid.
"""

import contextlib
import os
from pathlib import Path

import psutil

MARK = "BENTOBELT_UP"
"""Environment variable of everything a `belt up` has started: its home."""


def find(home: Path) -> list[psutil.Process]:
    """Living processes of that home (an absolute path), this one excepted."""
    return [process for process in psutil.process_iter() if _belongs(process, str(home))]


def _belongs(process: psutil.Process, home: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return bool(process.environ().get(MARK) == home)
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False


def end(home: Path, grace: float) -> int:
    """End all of them: SIGTERM, after `grace` seconds SIGKILL. Returns how many there were."""
    found = find(home)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    psutil.wait_procs(found, timeout=grace)
    kill(home)
    return len(found)


def kill(home: Path) -> None:
    """End all of them without asking. What one of them forks meanwhile is found in the next round."""
    while found := find(home):
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)
