"""A container's one process: it serves the Bento of its image on HOST and PORT.

BentoML's own HTTP worker, as in `serving/standby.py`, which is for servers on the host. Run as a script: nothing
of ours is imported before BentoML does it.
"""

import os
import runpy
import socket
import sys
from pathlib import Path

WORKER = "_bentoml_impl.worker.service"
BENTO = Path(__file__).resolve().parents[2]
GRACE = "10"
"""Seconds that requests under way have when the container is told to stop; default of SERVING_GRACE_SECONDS."""


def main() -> None:
    """Listen, then become BentoML's worker."""
    # The root is read-only; what BentoML writes goes under /tmp.
    for folder in ("BENTOML_HOME", "PROMETHEUS_MULTIPROC_DIR"):
        Path(os.environ[folder]).mkdir(parents=True, exist_ok=True)
    address = (os.environ["HOST"], int(os.environ["PORT"]))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family, backlog=2048) as listener:
        os.chdir(BENTO)
        grace = os.environ.get("SERVING_GRACE_SECONDS", GRACE)
        # --worker-id as `bentoml serve` gives it: a failing import ends the process instead of being skipped.
        options = ["--fd", str(listener.fileno()), "--worker-id", "1", "--timeout-graceful-shutdown", grace]
        sys.argv = [WORKER, str(BENTO), *options]
        runpy.run_module(WORKER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
