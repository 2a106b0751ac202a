"""`belt up` as a process of a benchmark. If it does not become ready, its output is shown."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from belt.local import orphans
from services.host import free_port

REPO = Path(__file__).resolve().parents[1]
STOP_SECONDS = 60.0


def start(home: Path, environ: Mapping[str, str] | None = None) -> tuple[subprocess.Popen[str], str]:
    """Start `belt up` on a free port and wait until it is ready; the process and the URL of its gateway.

    Raises:
        SystemExit: it did not become ready; the message ends with all it printed.
    """
    port = free_port()
    output = home.with_name(f"{home.name}.up.log")
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "belt.main", "up", "--home", str(home), "--port", str(port)],
            cwd=REPO,
            env=os.environ | dict(environ or {}),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        stop(process, home)
        sys.exit(f"`belt up` did not become ready (exit code {process.returncode}). It printed:\n{output.read_text()}")
    return process, f"http://127.0.0.1:{port}"


def stop(process: subprocess.Popen[str], home: Path) -> None:
    """Stop it, with whatever it may have left running."""
    process.send_signal(signal.SIGTERM)
    process.wait(STOP_SECONDS)
    orphans.kill(home.resolve())
