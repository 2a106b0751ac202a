"""A container's one process: it serves the Bento of its image on HOST and PORT.

BentoML's own HTTP worker, as in `serving/entrypoints/standby.py`, which is for servers on the host. Run as a script.
"""

import gc
import importlib
import os
import runpy
import socket
import sys
from pathlib import Path

WORKER = "_bentoml_impl.worker.service"
BENTO = Path(__file__).resolve().parents[3]
GRACE = "60"
"""Seconds that requests under way have at most; whoever stops the container allows fewer."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Listen, then become BentoML's worker."""
    for name in THREADS:
        os.environ.setdefault(name, str(cpus()))
    # The root is read-only; what BentoML writes goes under /tmp.
    for folder in ("BENTOML_HOME", "PROMETHEUS_MULTIPROC_DIR"):
        Path(os.environ[folder]).mkdir(parents=True, exist_ok=True)
    address = (os.environ["HOST"], int(os.environ["PORT"]))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # Detached: from here on it is the worker's, which closes it.
    listening = socket.create_server(address, family=family, backlog=2048).detach()
    os.chdir(BENTO)
    # --worker-id as `bentoml serve` gives it: a failing import ends the process instead of being skipped.
    options = ["--fd", str(listening), "--worker-id", "1", "--timeout-graceful-shutdown", GRACE]
    sys.argv = [WORKER, str(BENTO), *options]
    # Importing makes a million objects that stay: looking through them for garbage again and again took a sixth of
    # the start. `serving.service` switches it on when the model is there.
    gc.disable()
    sys.path.insert(0, str(BENTO / "src"))  # as BentoML does later
    importlib.import_module("serving.postponed").import_libraries()
    runpy.run_module(WORKER, run_name="__main__", alter_sys=True)


def cpus() -> int:
    """CPUs that this container may use. The libraries see all of the machine's, and would be throttled."""
    quota, _, period = QUOTA.read_text().partition(" ") if QUOTA.exists() else ("max", "", "")
    there = os.cpu_count() or 1
    return there if quota == "max" else max(1, min(there, -(-int(quota) // int(period))))


if __name__ == "__main__":
    main()
