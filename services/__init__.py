"""The belt. One event's way, folder by folder:

    data.pushed     → trainer    → model.trained
    model.trained   → evaluator  → model.approved   (or model.rejected: a person decides)
    model.approved  → builder    → image.pushed
    image.pushed    → deployer   → model.deployed
    predictions.*, feedback.*    → monitor  → drift.detected → trainer …
    what fails or is rejected    → notifier → alert.raised

Every room is an independent process: `app.py` wires events to `domain.py` (pure) through adapters named for what
they touch. What all rooms share stands here: `worker.py`, `bus.py`, `artifacts.py`, `registry.py`, and for work on
models, which only ever happens in child processes, `environments.py`, `forks.py` and `failures.py`.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class _NoWebSockets(MetaPathFinder):
    """Keeps nats-py from taking aiohttp along, for WebSockets, which no bus here speaks: a sixth of every start."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "aiohttp":
            asking = sys.modules.get("nats.aio.transport")
            if asking is not None and not hasattr(asking, "Transport"):  # while it is being imported itself
                raise ModuleNotFoundError(f"{name} is not for nats-py", name=name)


sys.meta_path.insert(0, _NoWebSockets())
