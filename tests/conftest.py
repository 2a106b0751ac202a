"""Real servers for the tests, each on a free port and with a temporary home, ended by their process id."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from services.host import free_port
from services.messaging.connection import Bus, connect
from services.messaging.streams import ensure_topology
from tests import fakes, leaks
from tests.waiting import until

# A shell that runs the tests in the background ignores Ctrl-C for them, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a machine that does other things too, how long an example takes says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def leak_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Fail the session when processes or temporary folders of its tests are left; a process names its test module."""
    session = uuid.uuid4().hex
    with leaks.nothing_left(session, tmp_path_factory.mktemp("tempfile")):
        yield session
        fakes.remove_folders()


@pytest.fixture(scope="module", autouse=True)
def leaks_are_marked(leak_session: str, request: pytest.FixtureRequest) -> None:
    leaks.mark(leak_session, request.module.__name__)


class NatsServer:
    """A nats-server process that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.url = f"nats://127.0.0.1:{self.port}"
        self.config = ""
        """Additional lines of the configuration, from the next start or reload on."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert binary, "nats-server is not installed: run `make setup`"
        config = self._configured()
        self._process = subprocess.Popen(
            [binary, "-a", "127.0.0.1", "-p", str(self.port), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, seconds=20)

    def reload(self) -> None:
        """Have the server, while it runs, take what `config` says now."""
        assert self._process
        self._configured()
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def _configured(self) -> Path:
        file = self._folder / "nats.conf"
        usual = f'jetstream {{ store_dir: "{self._folder}", sync_interval: always }}\nmax_payload: 8MB\n'
        file.write_text(usual + self.config)
        return file

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def bus(nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A connection to a real nats-server with the whole topology."""
    connected = await connect(nats_server.url, name="test")
    await ensure_topology(connected)
    yield connected
    if connected.is_connected:  # a test may have ended the server
        assert await leaks.left_on_the_bus(connected) == []
    await connected.close()


@pytest.fixture
def nats_url(nats_server: NatsServer, bus: Bus) -> str:
    """URL of a real nats-server with the whole topology."""
    return nats_server.url


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A temporary home."""
    return tmp_path
