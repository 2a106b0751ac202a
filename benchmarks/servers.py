"""Servers that benchmarks run against, started on a free port and ended with the block."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.host import free_port


@contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    """A nats-server with JetStream under `folder`, as careful with the disk as production; yields its URL."""
    binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not binary:
        raise SystemExit("nats-server is not installed: run `make setup`")
    port, config = free_port(), folder / "nats.conf"
    config.write_text(f'jetstream {{ store_dir: "{folder}", sync_interval: always }}\nmax_payload: 8MB\n')
    process = subprocess.Popen(
        [binary, "-a", "127.0.0.1", "-p", str(port), "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing listens on port {port} after {seconds:g} s")
        time.sleep(0.02)
