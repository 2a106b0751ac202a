"""Processes by their id: whether one still is the one it was, and ending them."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")
POLL = 0.05


def started(pid: int) -> str | None:
    """What tells this process from another with its pid: the boot and the tick it started at. None when it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{BOOT.read_text().strip()}:{fields[19]}"


def end(processes: Sequence[tuple[int, str | None]], grace: float) -> None:
    """End processes, given as pid and `started`: SIGTERM, and SIGKILL for what is still there after `grace` seconds."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + seconds
        for pid, birth in processes:
            _send(pid, birth, number)
        while any(birth and started(pid) == birth for pid, birth in processes):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        else:
            return


def _send(pid: int, birth: str | None, number: signal.Signals) -> None:
    if birth and started(pid) == birth:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
