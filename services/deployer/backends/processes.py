"""Servers as processes of this machine: started from a Bento, recorded on disk, found again, ended.

Each server has a folder `servers/<unique>` with the Bento, its own BENTOML_HOME (each server empties its metrics folder
at its start), its log and `server.json`. A server is a session of its own and outlives the deployer.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from contracts.runtime import Environment
from contracts.values import Frozen
from services.deployer.backends import process_ids, standby
from services.deployer.backends.protocol import ExitReport, Server
from services.deployer.backends.standby import LOG, Standby
from services.host import write_atomically
from services.messaging import Permanent
from services.storage import ArtifactStore, Deployed

RECORD, CHECKED, BENTO = "server.json", "checked", "bento"
TAIL = 3000
"""Characters of a dead server's log that are reported."""
CHARACTER_BYTES = 4
"""Largest size of a character in UTF-8."""


class NoBento(Permanent):
    """The image is not a packed Bento, so this backend cannot run it."""


class Record(Frozen):
    """The content of `server.json`. `started` is the process's `start_mark`, `since` is in unix seconds."""

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
        """The record in the terms of the backend protocol."""
        return Server(
            model=self.model,
            version=self.version,
            image=self.image,
            id=self.folder.name,
            url=f"http://127.0.0.1:{self.port}",
            since=self.since,
        )

    @property
    def is_alive(self) -> bool:
        """True if the recorded process still runs."""
        return process_ids.start_mark(self.pid) == self.started


class Interpreters(Protocol):
    """Finds the interpreter of an environment; `services.sandbox.Environments` is one."""

    async def python(self, environment: Environment) -> Path: ...


class ProcessBackend:
    """Servers as local processes under `home/servers`."""

    def __init__(
        self,
        home: Path,
        nats_url: str,
        artifacts: ArtifactStore,
        interpreters: Interpreters,
        grace: float,
        script: Path = standby.SCRIPT,
    ) -> None:
        self._root, self._script = home.resolve() / "servers", script
        self._nats_url, self._artifacts, self._interpreters = nats_url, artifacts, interpreters
        self._grace = grace
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._standby: Standby | None = None

    async def refresh(self) -> None:
        """Do nothing: the records on disk and the processes are read each time."""

    def all(self) -> list[Server]:
        return [record.server for record in _records(self._root)]

    def is_alive(self, server: Server) -> bool:
        child, record = self._children.get(server.id), self._record(server)
        return record is not None and record.is_alive and (child is None or child.poll() is None)

    async def start(self, deployed: Deployed) -> Server:
        image = deployed.image
        if image.artifact is None:
            raise NoBento(f"{image.image} is not a packed Bento; this deployer runs no containers")
        bento = await self._artifacts.fetch_folder(image.artifact)
        python = await self._interpreters.python(image.environment)
        # Taken here, not in the thread: only one of two concurrent starts gets the standby.
        ready, self._standby = self._standby, None
        return await asyncio.to_thread(self._start, deployed, bento, python, ready)

    async def stop(self, server: Server) -> None:
        await asyncio.to_thread(self._stop, server)

    async def mark_checked(self, server: Server) -> None:
        (self._folder(server) / CHECKED).touch()

    def is_checked(self, server: Server) -> bool:
        return (self._folder(server) / CHECKED).exists()

    def owned_by_other_replica(self, server: Server) -> bool:
        return False  # a home folder has one deployer

    async def exit_report(self, server: Server) -> ExitReport:
        child = self._children.get(server.id)
        code = child.poll() if child else None
        how = "" if code is None else f"signal {-code}\n" if code < 0 else f"exit code {code}\n"
        tail = await asyncio.to_thread(_log_tail, self._folder(server) / LOG)
        return ExitReport(how + tail, retryable=code is not None and code < 0)

    async def start_standby(self) -> None:
        """Start a process for the next server now, unless there is one."""
        if self._standby is not None and self._standby.has_ended:
            await self.end_standby()
        if self._standby is None:
            self._standby = await asyncio.to_thread(self._new_standby, Path(sys.executable))

    async def end_standby(self) -> None:
        """End the process on standby, if there is one."""
        unused, self._standby = self._standby, None
        if unused is not None:
            await asyncio.to_thread(unused.end)

    def start_first_standby(self) -> None:
        """Start a process on standby unless a server runs. For the start of the deployer, before its event loop."""
        if not any(record.is_alive for record in _records(self._root)):
            self._standby = self._new_standby(Path(sys.executable))

    def remove_abandoned(self) -> None:
        """Remove the folders of processes on standby that got no Bento: they ended with their deployer."""
        for folder in self._root.glob("*"):
            if not (folder / RECORD).exists() and not _has_other_owner(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _start(self, deployed: Deployed, bento: Path, python: Path, ready: Standby | None) -> Server:
        # Variables of the project have to be there before anything is imported.
        if ready is not None and (ready.python != python or deployed.image.env or ready.has_ended):
            ready.end()
            ready = None
        process = ready or self._new_standby(python, deployed.image.env)
        try:
            # Hard links instead of the cache's own folder: the cache may remove it while the server runs.
            shutil.copytree(bento, process.folder / BENTO, copy_function=os.link)
            # Recorded before it gets the Bento: a process without a record never serves, and ends with this deployer.
            record = _write_record(deployed, process)
        except OSError:  # a full disk, say: without a record nobody would end the process
            process.end()
            raise
        self._children[process.folder.name] = process.child
        process.serve(process.folder / BENTO, deployed.image.image, self._grace)
        return record.server

    def _stop(self, server: Server) -> None:
        # The server itself cancels open requests after the grace; it has one more second for its own end.
        if (record := self._record(server)) is not None:
            process_ids.terminate([(record.pid, record.started)], self._grace + 1)
        if (child := self._children.pop(server.id, None)) is not None:
            child.wait(timeout=5)
        shutil.rmtree(self._folder(server), ignore_errors=True)

    def _new_standby(self, python: Path, variables: Mapping[str, str] | None = None) -> Standby:
        return standby.start(self._root, python, self._script, self._nats_url, variables or {})

    def _folder(self, server: Server) -> Path:
        return self._root / server.id

    def _record(self, server: Server) -> Record | None:
        return _read_record(self._folder(server) / RECORD)


def stop_all(home: Path, grace: float = 5.0) -> None:
    """End every server of `home` and remove its record. `belt up` leaves nothing behind."""
    root = home.resolve() / "servers"
    process_ids.terminate([(record.pid, record.started) for record in _records(root)], grace)
    shutil.rmtree(root, ignore_errors=True)


def _log_tail(file: Path) -> str:
    """Return the last characters of a log, which may be large; empty if there is none."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - CHARACTER_BYTES * TAIL))
            return log.read().decode(errors="replace")[-TAIL:].strip()
    except FileNotFoundError:
        return ""


def _has_other_owner(folder: Path) -> bool:
    """Return whether the deployer that made the folder, as its name says, is another one and still alive."""
    owner = folder.name.partition(".")[0]
    return owner.isdecimal() and int(owner) != os.getpid() and process_ids.start_mark(int(owner)) is not None


def _write_record(deployed: Deployed, process: Standby) -> Record:
    pid, folder = process.child.pid, process.folder
    record = Record(
        model=deployed.image.model,
        version=deployed.image.version,
        image=deployed.image.image,
        port=process.port,
        pid=pid,
        started=process_ids.start_mark(pid) or "",
        since=time.time(),
        folder=folder,
    )
    write_atomically(folder / RECORD, record.model_dump_json())
    return record


def _records(root: Path) -> Iterator[Record]:
    for file in sorted(root.glob(f"*/{RECORD}")):
        if (record := _read_record(file)) is not None:
            yield record


def _read_record(file: Path) -> Record | None:
    try:
        return Record.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):  # the server was ended meanwhile, or this is no record of ours
        return None
