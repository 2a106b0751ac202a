"""The folder with the state of a `belt up`, and the lock that lets one `belt up` use it at a time.

```
nats.url     URL of the bus, credentials included (mode 0600)
gateway.url  URL of the gateway
bus/         files of JetStream          gateway/   routes of Traefik          logs/   one file per process
<service>/   working files of a worker   envs/      Python environments of projects with extra requirements
run/         up.lock; up.json: the running processes (pids, ports); bus.url: the address of the bus, kept over restarts;
             containers: exists as long as Docker may run serving containers of this home
```
"""

import contextlib
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel

from belt.output import Failed
from services.host import try_lock, write_atomically


class RunningProcess(BaseModel):
    """A process of a running `belt up`."""

    pid: int
    port: int
    """Port for /health of a worker, clients of the bus, /ping of the gateway."""


class RunningBelt(BaseModel):
    """Content of `run/up.json`: the `belt up` on this home and the processes it has started."""

    pid: int
    since: datetime
    gateway: str
    ready: bool = False
    processes: dict[str, RunningProcess] = {}


class Home:
    """Paths under one folder, which only its owner can read."""

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
        """Create the folders and lock the home until this process ends.

        Raises:
            Failed: another `belt up` has locked it.
        """
        for folder in (self.root, self.bus, self.gateway, self.logs, self.run):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = try_lock(self.run / "up.lock")  # the lock lasts as long as this file is open
        if self._lock is None:
            up = self.running()
            user = f" (pid {up.pid}, since {up.since:%Y-%m-%d %H:%M}, gateway {up.gateway})" if up else ""
            in_use = f"{self.root} is in use by another `belt up`{user}"
            raise Failed(f"{in_use}: stop that one, or choose another folder with --home")

    def is_claimed(self) -> bool:
        """Return whether a `belt up` runs on this home now."""
        try:
            lock = try_lock(self.run / "up.lock")
        except OSError:
            return False  # there is no such home, or this user may not read it
        if lock is not None:
            lock.close()
        return lock is None

    def running(self) -> RunningBelt | None:
        """Return the processes on this home, as their `belt up` last wrote them; None without a file."""
        with contextlib.suppress(OSError, ValueError):
            return RunningBelt.model_validate_json((self.run / "up.json").read_bytes())
        return None

    def write_running(self, running: RunningBelt) -> None:
        write_private(self.run / "up.json", running.model_dump_json(indent=2))

    def forget(self) -> None:
        """Remove the files with addresses and pids of processes that have ended."""
        for file in (self.nats_url, self.gateway_url, self.run / "up.json"):
            file.unlink(missing_ok=True)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically: a reader sees the old content or the new one."""
    write_atomically(file, text, mode=0o600)
