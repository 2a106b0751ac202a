"""BentoML's HTTP worker: the process that `bentoml serve` starts behind its supervisor.

The worker is not public API of BentoML. This module alone knows where it is and which options it takes.

Run as a script, the module is a server on standby: it imports the libraries before it is known which Bento to serve.
It then reads one line of JSON from standard input: `bento` (folder), `socket_fd` (a listening socket), `grace_seconds`
and `environ` (variables to set). Without a line it ends, for the process that started it is gone. The script imports
nothing of ours: the serving code is the Bento's own.
"""

import gc
import importlib
import json
import os
import sys
from pathlib import Path

LIBRARIES = (
    *("uvicorn", "nats", "numpy", "pandas", "sklearn.ensemble", "sklearn.pipeline"),
    *("_bentoml_impl.server.app", "_bentoml_impl.worker.service"),
)
"""Modules that every server imports, whatever its model."""


def serve(bento: Path, socket_fd: int, grace_seconds: float) -> None:
    """Serve a Bento until SIGTERM, then end the process.

    Args:
        bento: folder of an exported Bento, with its model in it.
        socket_fd: file descriptor of a listening socket; the worker closes it.
        grace_seconds: longest time that requests in flight get after SIGTERM.
    """
    from _bentoml_impl.worker.service import main as worker

    os.chdir(bento)
    worker(arguments(bento, socket_fd, grace_seconds))


def arguments(bento: Path, socket_fd: int, grace_seconds: float) -> list[str]:
    """Command-line arguments of the worker."""
    # With --worker-id, as `bentoml serve` starts it, an import error of the Bento ends the process.
    options = {"--fd": socket_fd, "--worker-id": 1, "--timeout-graceful-shutdown": round(grace_seconds)}
    return [str(bento), *(str(part) for option in options.items() for part in option)]


def main() -> None:
    """Import the libraries, wait for the line, serve."""
    gc.disable()  # as in `container.py`; `serving.service` enables it when the model is loaded
    for library in LIBRARIES:
        importlib.import_module(library)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return
    order = json.loads(line)
    os.environ.update(order["environ"])
    serve(Path(order["bento"]), order["socket_fd"], order["grace_seconds"])


if __name__ == "__main__":
    main()
