"""A container's only process: it serves the Bento of its image on HOST and PORT. Run as a script."""

import gc
import os
import socket
import sys
from pathlib import Path

BENTO = Path(__file__).resolve().parents[3]
GRACE_SECONDS = 60
"""Longest time that requests in flight get; the engine that stops the container allows less."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Listen on HOST and PORT, then run BentoML's worker."""
    for name in THREADS:
        os.environ.setdefault(name, str(cpus()))
    # The root file system is read-only; what BentoML writes goes under /tmp.
    for folder in ("BENTOML_HOME", "PROMETHEUS_MULTIPROC_DIR"):
        Path(os.environ[folder]).mkdir(parents=True, exist_ok=True)
    address = (os.environ["HOST"], int(os.environ["PORT"]))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    # Detached, because the worker closes it.
    socket_fd = socket.create_server(address, family=family, backlog=2048).detach()
    # The imports make a million objects that stay. Without this, garbage collections during the imports take a sixth
    # of the start. `serving.service` enables them when the model is loaded.
    gc.disable()
    sys.path.insert(0, str(BENTO / "src"))
    from serving.entrypoints.bentoml_worker import serve

    serve(BENTO, socket_fd, GRACE_SECONDS)


def cpus() -> int:
    """Return how many CPUs this container may use. Numeric libraries would start a thread for each of the machine's."""
    quota, _, period = QUOTA.read_text().partition(" ") if QUOTA.exists() else ("max", "", "")
    machine = os.cpu_count() or 1
    return machine if quota == "max" else max(1, min(machine, -(-int(quota) // int(period))))


if __name__ == "__main__":
    main()
