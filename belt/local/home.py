"""The folder a `belt up` keeps its state in, and the claim to it.

```
nats.url     how to reach the bus, credentials included (mode 0600)      gateway.url   where models answer
bus/         JetStream's files          gateway/   Traefik's routes      logs/         one file per process
<room>/      that worker's scratch      envs/      Python environments of projects with extra requirements
run/         up.lock, up.json: what runs (pids, ports), and bus.url: the address that the bus keeps from start to start;
             containers: there while an engine may serve for this home
```
"""

import contextlib
import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel


class Occupied(Exception):
    """Another `belt up` runs on this home."""


class RunningProcess(BaseModel):
    """A process of a running `belt up`."""

    pid: int
    port: int
    """Where a worker answers /health, the bus its clients, the gateway /ping."""


class RunningBelt(BaseModel):
    """What `run/up.json` says: the `belt up` on this home, and what it has started."""

    pid: int
    since: datetime
    gateway: str
    ready: bool = False
    processes: dict[str, RunningProcess] = {}


class Home:
    """Paths under one folder, which is created readable for its owner only."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.bus, self.gateway = self.root / "bus", self.root / "gateway"
        self.logs, self.run = self.root / "logs", self.root / "run"
        self.nats_url, self.gateway_url = self.root / "nats.url", self.root / "gateway.url"
        self.routes = self.gateway / "routes"
        self.bus_url = self.run / "bus.url"
        self.scratch = self.run / "tmp"
        self._lock: IO[str] | None = None

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def claim(self) -> None:
        """Make the folders and hold the home until this process ends, however it ends.

        Raises:
            Occupied: another one holds it.
        """
        for folder in (self.root, self.bus, self.gateway, self.logs, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.run / "up.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Occupied(self._occupied()) from None
        self._lock = lock  # the claim lasts as long as this file is open

    def is_claimed(self) -> bool:
        """Whether a `belt up` runs on this home now."""
        try:
            with (self.run / "up.lock").open("a+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def running(self) -> RunningBelt | None:
        """What runs on this home, as its `belt up` last wrote it."""
        with contextlib.suppress(OSError, ValueError):
            return RunningBelt.model_validate_json((self.run / "up.json").read_bytes())
        return None

    def write_running(self, running: RunningBelt) -> None:
        replace(self.run / "up.json", running.model_dump_json(indent=2))

    def forget(self) -> None:
        """Remove what says how to reach something that runs no more."""
        for file in (self.nats_url, self.gateway_url, self.run / "up.json"):
            file.unlink(missing_ok=True)

    def _occupied(self) -> str:
        running = self.running()
        who = (
            f" (pid {running.pid}, since {running.since:%Y-%m-%d %H:%M}, gateway {running.gateway})" if running else ""
        )
        return f"{self.root} is in use by another `belt up`{who}: stop that one, or give this one another --home"


def replace(file: Path, text: str) -> None:
    """Write a file for its owner only; readers see the old one or the new one."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as writing:
        writing.write(text)
    partial.replace(file)
