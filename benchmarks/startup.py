"""Start of `belt up`: time until a push will be served, memory of the workers, time until a killed worker is back.

    python -m benchmarks.startup [--json] [--rounds 3]

The home has been used before ("warm machine": files and bytecode are in the page cache), nothing else is running.
Keys: ready_s (median from the command to the line `ready`), pss_mb (workers with all their children, idle, their
templates warm; median), restart_s (longest time from kill -9 of a part to its new process), processes (MB of PSS each,
last round; bus, gateway and supervisor beside the workers), raw (per round).
PSS shares out pages that several processes map, so that the sum is what they take together.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from belt.local.home import Home
from belt.local.stack import BUS, GATEWAY
from benchmarks import belt_up
from contracts.subjects import WORKERS

MIB = 1024**2
SETTLED_SECONDS = 5.0
"""Memory that moves by less than MOVE for so long is that of idle workers with warm templates."""
MOVE = 0.01
PATIENCE_SECONDS = 90.0


def start(home: Path) -> tuple[subprocess.Popen[str], float]:
    """Start a `belt up`; the process and the seconds until it was ready."""
    since = time.monotonic()
    up, _ = belt_up.start(home)
    return up, time.monotonic() - since


def memory(home: Home) -> dict[str, float]:
    """MB of PSS per part; that of a worker includes its children."""
    running = home.running()
    assert running is not None
    parts = {name: _with_children(process.pid) for name, process in running.processes.items()}
    return parts | {"supervisor": _pss(psutil.Process(running.pid))}


def settled(home: Home) -> dict[str, float]:
    """`memory` once it does not move any more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before, since = memory(home), time.monotonic()
    while time.monotonic() < min(deadline, since + SETTLED_SECONDS):
        time.sleep(0.5)
        now = memory(home)
        if abs(_workers(now) - _workers(before)) > MOVE * _workers(before):
            before, since = now, time.monotonic()
    return memory(home)


def restart(home: Home, part: str) -> float:
    """Seconds from kill -9 of a part to its new process."""
    running = home.running()
    assert running is not None
    killed, since = running.processes[part].pid, time.monotonic()
    os.kill(killed, signal.SIGKILL)
    while (now := home.running()) is None or now.processes[part].pid == killed:
        if time.monotonic() - since > PATIENCE_SECONDS:
            sys.exit(f"{part} was not started again")
        time.sleep(0.002)
    return time.monotonic() - since


def measure(rounds: int) -> dict[str, Any]:
    """All rounds, after one that warms up."""
    raw: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="belt-startup-") as folder:
        home = Home(Path(folder) / "home")
        belt_up.stop(start(home.root)[0], home.root)
        for _ in range(rounds):
            up, seconds = start(home.root)
            try:
                parts = settled(home)
                restarts = {part: restart(home, part) for part in (BUS, GATEWAY, *WORKERS)}
            finally:
                belt_up.stop(up, home.root)
            raw.append({"ready_s": seconds, "pss_mb": _workers(parts), "parts_mb": parts, "restarts_s": restarts})
    return {
        "ready_s": statistics.median(one["ready_s"] for one in raw),
        "pss_mb": statistics.median(one["pss_mb"] for one in raw),
        "restart_s": max(seconds for one in raw for seconds in one["restarts_s"].values()),
        "processes": raw[-1]["parts_mb"],
        "raw": raw,
    }


def _workers(parts: dict[str, float]) -> float:
    return sum(parts[worker] for worker in WORKERS)


def _with_children(pid: int) -> float:
    try:
        process = psutil.Process(pid)
        return _pss(process) + sum(_pss(child) for child in process.children(recursive=True))
    except psutil.NoSuchProcess:
        return 0.0


def _pss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / MIB
    except psutil.NoSuchProcess:
        return 0.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"ready after {found['ready_s']:.2f} s (budget 6), a killed part is back after {found['restart_s']:.2f} s")
    print(f"workers idle together {found['pss_mb']:.0f} MB PSS (budget 800)")
    for name, megabytes in found["processes"].items():
        print(f"  {name:<11}{megabytes:>7.0f} MB")


if __name__ == "__main__":
    main()
