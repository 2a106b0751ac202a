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
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from services.host import try_lock, write_atomically


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
        self._lock = try_lock(self.run / "up.lock")  # the claim lasts as long as this file is open
        if self._lock is None:
            raise Occupied(self._occupied())

    def is_claimed(self) -> bool:
        """Whether a `belt up` runs on this home now."""
        try:
            lock = try_lock(self.run / "up.lock")
        except OSError:
            return False  # there is no such home, or it is not ours to read
        if lock is not None:
            lock.close()
        return lock is None

    def running(self) -> RunningBelt | None:
        """What runs on this home, as its `belt up` last wrote it."""
        with contextlib.suppress(OSError, ValueError):
            return RunningBelt.model_validate_json((self.run / "up.json").read_bytes())
        return None

    def write_running(self, running: RunningBelt) -> None:
        write_private(self.run / "up.json", running.model_dump_json(indent=2))

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


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read; readers see the old content or the new content."""
    write_atomically(file, text, mode=0o600)
