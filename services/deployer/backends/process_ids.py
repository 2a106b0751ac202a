"""Ends processes by id, and only those: a later process with the same id has another mark."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
POLL = 0.05


def start_mark(pid: int) -> str | None:
    """Return a mark that no later process with this pid has: boot id and start tick. None if the process is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{BOOT.read_text().strip()}:{fields[19]}"


def terminate(processes: Sequence[tuple[int, str | None]], grace: float) -> None:
    """End processes, given as pid and `start_mark`: SIGTERM, and after `grace` seconds SIGKILL for the rest."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        for pid, mark in processes:
            _send(pid, mark, number)
        while any(mark and start_mark(pid) == mark for pid, mark in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        else:
            return


def _send(pid: int, mark: str | None, number: signal.Signals) -> None:
    if mark and start_mark(pid) == mark:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
