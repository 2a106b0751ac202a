"""Serving processes on this machine: started from a Bento, recorded on disk, found again, ended.

A server is BentoML's own HTTP worker, what `bentoml serve` starts behind its supervisor, on a socket that is bound
here, so that no port is ever guessed. The supervisor is left out: the deployer is one. Most of a start is imports, so a
server can be made ready before there is anything to serve (`serving/entrypoints/bentoml_worker.py`).

Each server has a folder `servers/<unique>` with the Bento, its own BENTOML_HOME (each server wipes its metrics folder
at start), the log and `server.json`. Servers are sessions of their own and outlive the deployer.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from contracts.runtime import Environment
from contracts.values import Frozen
from services.deployer.backends import process_ids
from services.deployer.backends.protocol import ExitReport, Server
from services.host import write_atomically
from services.messaging import Permanent
from services.storage import ArtifactStore, Deployed

RECORD, CHECKED, LOG, BENTO = "server.json", "checked", "server.log", "bento"
STANDBY = Path(__file__).resolve().parents[3] / "serving" / "entrypoints" / "bentoml_worker.py"
TAIL = 3000
"""Characters of a dead server's log that are worth showing."""


class NoBento(Permanent):
    """The image is not a packed Bento, so this kind of deployer cannot run it."""


class Record(Frozen):
    """A server as its folder has it on record. `started` tells a process from a later one with its pid, `since` is unix
    seconds.
    """

    model: str
    version: str
    image: str
    port: int
    pid: int
    started: str
    since: float
    folder: Path

    @property
    def server(self) -> Server:
        """What the rest of the deployer knows of it."""
        return Server(
            model=self.model,
            version=self.version,
            image=self.image,
            id=self.folder.name,
            url=f"http://127.0.0.1:{self.port}",
            since=self.since,
        )

    @property
    def lives(self) -> bool:
        """Whether the process that was recorded still is there."""
        return process_ids.started(self.pid) == self.started


class Pythons(Protocol):
    """Where the interpreter of an environment is; `services.sandbox.environments.Environments` is one."""

    async def python(self, environment: Environment) -> Path: ...


@dataclass(frozen=True)
class Standby:
    """A process that has paid the imports, with its folder and port, and waits to be told what to serve."""

    child: subprocess.Popen[bytes]
    python: Path
    folder: Path
    port: int
    socket_fd: int

    def serve(self, bento: Path, image: str, grace: float) -> None:
        """Give it the order; from then on it lives without us."""
        assert self.child.stdin is not None
        order = {
            "bento": str(bento),
            "socket_fd": self.socket_fd,
            "grace_seconds": grace,
            "environ": {"BENTOBELT_IMAGE": image},
        }
        with contextlib.suppress(BrokenPipeError):  # it died already: its log tells why
            self.child.stdin.write(json.dumps(order).encode() + b"\n")
            self.child.stdin.close()

    def end(self) -> None:
        """Nothing came for it."""
        self.child.kill()
        self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class ProcessBackend:
    """Servers as local processes under `home/servers`."""

    def __init__(
        self,
        home: Path,
        nats_url: str,
        artifacts: ArtifactStore,
        pythons: Pythons,
        grace: float,
        script: Path = STANDBY,
    ) -> None:
        self._root, self._script = home.resolve() / "servers", script
        self._nats_url, self._artifacts, self._pythons, self._grace = nats_url, artifacts, pythons, grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._standby: Standby | None = None

    async def refresh(self) -> None:
        """Nothing to do: the records are on the disk, the processes one glance away."""

    def all(self) -> list[Server]:
        return [record.server for record in _recorded(self._root)]

    def is_alive(self, server: Server) -> bool:
        child, record = self._children.get(server.id), self._record(server)
        return record is not None and record.lives and (child is None or child.poll() is None)

    async def start(self, deployed: Deployed) -> Server:
        image = deployed.image
        if image.artifact is None:
            raise NoBento(f"{image.image} is not a packed Bento; this deployer runs no containers")
        bento = await self._artifacts.fetch_folder(image.artifact)
        python = await self._pythons.python(image.environment)
        # Taken here, not in the thread: of two starts at once only one gets it.
        standby, self._standby = self._standby, None
        return await asyncio.to_thread(self._spawn, deployed, bento, python, standby)

    async def stop(self, server: Server) -> None:
        await asyncio.to_thread(self._end, server)

    async def stand_by(self) -> None:
        """Pay the imports of the next server now."""
        if self._standby is not None and self._standby.child.poll() is not None:
            await self.stand_down()
        if self._standby is None:
            self._standby = await asyncio.to_thread(self._warm, Path(sys.executable))

    async def stand_down(self) -> None:
        """Nothing came for the server on standby."""
        standby, self._standby = self._standby, None
        if standby is not None:
            await asyncio.to_thread(standby.end)

    async def mark_checked(self, server: Server) -> None:
        (self._folder(server) / CHECKED).touch()

    def is_checked(self, server: Server) -> bool:
        return (self._folder(server) / CHECKED).exists()

    def owned_by_other_replica(self, server: Server) -> bool:
        return False  # a home has one deployer

    async def exit_report(self, server: Server) -> ExitReport:
        child = self._children.get(server.id)
        code = child.poll() if child else None
        how = "" if code is None else f"signal {-code}\n" if code < 0 else f"exit code {code}\n"
        try:
            text = (self._folder(server) / LOG).read_text(errors="replace")
        except FileNotFoundError:
            text = ""
        return ExitReport(how + text[-TAIL:].strip(), retryable=code is not None and code < 0)

    def sweep(self) -> None:
        """Remove folders of servers that were never told what to serve: they ended with their deployer."""
        for folder in self._root.glob("*"):
            if not (folder / RECORD).exists() and not _is_anothers(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def prepare(self) -> None:
        """`stand_by` before there is an event loop: when nothing runs that did, a server is needed at once."""
        if not any(record.lives for record in _recorded(self._root)):
            self._standby = self._warm(Path(sys.executable))

    def _spawn(self, deployed: Deployed, bento: Path, python: Path, standby: Standby | None) -> Server:
        if standby is not None and (standby.python != python or standby.child.poll() is not None):
            standby.end()
            standby = None
        standby = standby or self._warm(python)
        # Links, not the cache's own folder: the cache may forget it while the server runs.
        shutil.copytree(bento, standby.folder / BENTO, copy_function=os.link)
        self._children[standby.folder.name] = standby.child
        record = _write(deployed, standby)
        standby.serve(standby.folder / BENTO, deployed.image.image, self._grace)
        return record.server

    def _warm(self, python: Path) -> Standby:
        self._root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._root, prefix=f"{os.getpid()}."))
        (folder / "home" / "metrics").mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, (folder / LOG).open("wb") as log:
            child = subprocess.Popen(
                [str(python), "-P", str(self._script)],
                cwd=folder,
                env=self._environ(folder / "home"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
            return Standby(child, python, folder, listener.getsockname()[1], listener.fileno())

    def _environ(self, home: Path) -> dict[str, str]:
        # Without PYTHONPATH: the code that serves is the Bento's, not this checkout's.
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HTTP_PORT")}
        return inherited | {
            "BENTOML_HOME": str(home),
            "BENTOML_DO_NOT_TRACK": "True",
            "PROMETHEUS_MULTIPROC_DIR": str(home / "metrics"),
            "NATS_URL": self._nats_url,
        }

    def _folder(self, server: Server) -> Path:
        return self._root / server.id

    def _record(self, server: Server) -> Record | None:
        return _read(self._folder(server) / RECORD)

    def _end(self, server: Server) -> None:
        # The server gives up on requests under way after the grace itself; a second more for its own end.
        if (record := self._record(server)) is not None:
            process_ids.end([(record.pid, record.started)], self._grace + 1)
        if (child := self._children.pop(server.id, None)) is not None:
            child.wait(timeout=5)
        shutil.rmtree(self._folder(server), ignore_errors=True)


def stop_all(home: Path, grace: float = 5.0) -> None:
    """End every server of `home` and forget it. For `belt up`, which leaves nothing behind."""
    root = home.resolve() / "servers"
    process_ids.end([(record.pid, record.started) for record in _recorded(root)], grace)
    shutil.rmtree(root, ignore_errors=True)


def _is_anothers(folder: Path) -> bool:
    """Whether the deployer that made the folder, as its name says, is a living one beside this one."""
    owner = folder.name.partition(".")[0]
    return owner.isdecimal() and int(owner) != os.getpid() and process_ids.started(int(owner)) is not None


def _write(deployed: Deployed, standby: Standby) -> Record:
    # Before it is told to serve: a server without a record never serves, it ends with us.
    pid, folder = standby.child.pid, standby.folder
    record = Record(
        model=deployed.image.model,
        version=deployed.image.version,
        image=deployed.image.image,
        port=standby.port,
        pid=pid,
        started=process_ids.started(pid) or "",
        since=time.time(),
        folder=folder,
    )
    write_atomically(folder / RECORD, record.model_dump_json())
    return record


def _recorded(root: Path) -> Iterator[Record]:
    for file in sorted(root.glob(f"*/{RECORD}")):
        if (record := _read(file)) is not None:
            yield record


def _read(file: Path) -> Record | None:
    try:
        return Record.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):  # ended meanwhile, or no record of ours
        return None
