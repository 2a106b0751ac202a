"""Server processes, with a script in the place of BentoML's worker: which start takes the one on standby."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.artifact_ref import TAR_GZ, ArtifactRef
from contracts.runtime import Environment
from services.deployer.backends.process_ids import start_mark
from services.deployer.backends.processes import RECORD, TAIL, ProcessBackend, Record, stop_all
from services.deployer.backends.protocol import Server
from services.deployer.backends.standby import LOG
from services.storage.archives import pack_folder
from services.storage.registry import Deployed
from tests.component.services.deployer.test_app import V1, V2, image
from tests.fakes import MemoryArtifacts
from tests.waiting import until

SCRIPT = """
import os, pathlib, sys, time
pathlib.Path("pid.partial").write_text(str(os.getpid()))
pathlib.Path("pid.partial").rename("pid")
sys.stdin.readline() and time.sleep(60)
"""


class ThisPython:
    """Every environment is this one."""

    async def python(self, environment: Environment) -> Path:
        return Path(sys.executable)


@pytest.fixture
async def artifacts(tmp_path: Path) -> MemoryArtifacts:
    return MemoryArtifacts()


@pytest.fixture
async def servers(home: Path, tmp_path: Path, artifacts: MemoryArtifacts) -> AsyncIterator[ProcessBackend]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    processes = ProcessBackend(home, "nats://nowhere", artifacts, ThisPython(), 1.0, script)
    yield processes
    await processes.end_standby()
    stop_all(home)


async def deployed(artifacts: MemoryArtifacts, folder: Path, version: str) -> Deployed:
    (folder / version).mkdir()
    (folder / version / "bento.yaml").write_text(version)
    ref = await artifacts.put(pack_folder(folder / version), TAR_GZ)
    return Deployed(image=image(version).model_copy(update={"artifact": ref}), run="r", generation=1)


def waiting(home: Path) -> list[int]:
    """Pids of the processes on standby that wait for their Bento."""
    return [int(file.read_text()) for file in home.glob("servers/*/pid")]


def recorded(home: Path, server: Server) -> Record:
    return Record.model_validate_json((home / "servers" / server.id / RECORD).read_bytes())


async def test_of_two_starts_at_once_one_takes_the_server_on_standby(
    servers: ProcessBackend, artifacts: MemoryArtifacts, home: Path, tmp_path: Path
) -> None:
    both = [await deployed(artifacts, tmp_path, version) for version in (V1, V2)]
    await servers.start_standby()
    until(lambda: waiting(home))
    (ready,) = waiting(home)
    started = await asyncio.gather(*(servers.start(one) for one in both))
    records = [recorded(home, server) for server in started]
    assert len({record.pid for record in records}) == len({server.url for server in started}) == 2
    assert ready in {record.pid for record in records}
    assert [(record.folder / "bento" / "bento.yaml").read_text() for record in records] == [V1, V2]


async def test_a_standby_that_died_while_it_waited_is_replaced(
    servers: ProcessBackend, artifacts: MemoryArtifacts, home: Path, tmp_path: Path
) -> None:
    one = await deployed(artifacts, tmp_path, V1)
    await servers.start_standby()
    until(lambda: waiting(home))
    (dead,) = waiting(home)
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    server = await servers.start(one)
    assert recorded(home, server).pid != dead
    assert servers.is_alive(server)
    assert [folder.name for folder in home.glob("servers/*")] == [server.id]


async def test_starting_a_standby_again_replaces_a_dead_one(servers: ProcessBackend, home: Path) -> None:
    await servers.start_standby()
    until(lambda: waiting(home))
    (dead,) = waiting(home)
    os.kill(dead, signal.SIGKILL)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    await servers.start_standby()
    until(lambda: len(waiting(home)) == 1 and waiting(home) != [dead])


async def test_folders_of_a_dead_deployer_are_removed_and_those_of_a_living_one_stay(
    servers: ProcessBackend, home: Path
) -> None:
    for owner in ("4194303", str(os.getppid())):
        (home / "servers" / f"{owner}.abc").mkdir(parents=True)
    servers.remove_abandoned()
    assert [folder.name for folder in home.glob("servers/*")] == [f"{os.getppid()}.abc"]


class LostFolder(MemoryArtifacts):
    """Artifacts whose folders are removed before they can be copied."""

    async def fetch_folder(self, ref: ArtifactRef) -> Path:
        return Path("/nowhere")


async def test_a_process_whose_bento_cannot_be_copied_is_ended(
    home: Path, tmp_path: Path, artifacts: MemoryArtifacts
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    one = await deployed(artifacts, tmp_path, V1)
    processes = ProcessBackend(home, "nats://nowhere", LostFolder(), ThisPython(), 1.0, tmp_path / "script.py")
    await processes.start_standby()
    until(lambda: waiting(home))
    (pid,) = waiting(home)
    with pytest.raises(FileNotFoundError):
        await processes.start(one)
    assert start_mark(pid) is None
    assert list(home.glob("servers/*")) == []


async def test_a_process_that_cannot_be_recorded_is_ended(
    servers: ProcessBackend, artifacts: MemoryArtifacts, home: Path, tmp_path: Path
) -> None:
    one = await deployed(artifacts, tmp_path, V1)
    await servers.start_standby()
    until(lambda: waiting(home))
    (pid,) = waiting(home)
    next(home.glob("servers/*")).joinpath(RECORD).mkdir()  # where the record would be written
    with pytest.raises(OSError, match=RECORD):
        await servers.start(one)
    assert start_mark(pid) is None
    assert list(home.glob("servers/*")) == []


async def test_the_end_of_a_large_log_is_reported(
    servers: ProcessBackend, artifacts: MemoryArtifacts, home: Path, tmp_path: Path
) -> None:
    server = await servers.start(await deployed(artifacts, tmp_path, V1))
    (home / "servers" / server.id / LOG).write_text("é" * 100_000 + "\nthe end\n")
    report = (await servers.exit_report(server)).log_tail
    assert report.endswith("é\nthe end")
    assert len(report) <= TAIL
