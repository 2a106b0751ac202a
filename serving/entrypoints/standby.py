"""A serving process before it knows what to serve: it pays the imports, then waits to be told.

Run as a script by whoever starts servers. One line of JSON comes in on standard input: `bento` (folder), `environ`
(variables) and `options` of BentoML's HTTP worker, which this process then becomes: the same that `bentoml serve`
starts behind its supervisor. No line: whoever started it is gone, and so is it. Imports nothing of ours: the code that
serves comes from the Bento.
"""

import importlib
import json
import os
import runpy
import sys

WORKER = "_bentoml_impl.worker.service"
LIBRARIES = ("uvicorn", "nats", "numpy", "pandas", "sklearn.ensemble", "sklearn.pipeline", "_bentoml_impl.server.app")


def main() -> None:
    """Get warm, wait for the order, serve."""
    for library in (*LIBRARIES, WORKER):
        importlib.import_module(library)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return
    order = json.loads(line)
    os.environ.update(order["environ"])
    os.chdir(order["bento"])
    sys.argv = [WORKER, order["bento"], *order["options"]]
    # A second copy of the module, as __main__: what `python -m` does.
    del sys.modules[WORKER]
    runpy.run_module(WORKER, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
