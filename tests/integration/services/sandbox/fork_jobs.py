"""Jobs for the tests of forks.py."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

Progress = Callable[[dict[str, Any]], None]


def add(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    progress({"step": "adding"})
    print("said on stdout")
    return {"sum": argument["a"] + argument["b"], "pid": os.getpid()}


def fail(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    print("before the end")
    raise ValueError("no good")


def leave(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    sys.exit(0)


def vanish(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    os._exit(0)


def kill_itself(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def eat(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {"eaten": len(bytearray(10**9))}


def never_end(argument: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Hang, with a child of its own; both pids are reported."""
    child = subprocess.Popen(["sleep", "1000"])
    progress({"pids": [os.getpid(), child.pid]})
    while True:
        time.sleep(10)
