"""A real engine and real registries for the tests. What a test starts is labelled, and removed by its id.

Without an engine these tests fail when CI=true, and say that they did not run otherwise.
"""

import contextlib
import os
import secrets
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, NotFound

from tests.docker.registries import Registry, forget

ROOT = Path(__file__).resolve().parents[2]
NO_ENGINE = "no Docker engine answers: start one, or as root on Debian run .ci/engine"


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The engine, with the base images there."""
    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except DockerException as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{NO_ENGINE} ({error})")
        pytest.skip(NO_ENGINE)
    subprocess.run([ROOT / "tests/docker/images.sh", "python", "registry"], check=True)
    yield client
    client.close()


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the images that the session's registries share: a runtime image is pushed once, as it takes long."""
    return tmp_path_factory.mktemp("registries")


@pytest.fixture(scope="session")
def shared_registry(engine: docker.DockerClient, content: Path) -> Iterator[Registry]:
    """A registry for the whole session."""
    with Registry(content=content) as registry:
        yield registry
        forget(engine, registry)


@pytest.fixture
def registry(engine: docker.DockerClient, content: Path) -> Iterator[Registry]:
    """A registry of the test's own, that can be stopped and started."""
    with Registry(content=content) as registry:
        yield registry
        forget(engine, registry)


@pytest.fixture
def empty_registry(engine: docker.DockerClient) -> Iterator[Registry]:
    """One that has no images at all."""
    with Registry() as registry:
        yield registry
        forget(engine, registry)


@pytest.fixture
def private_registry(engine: docker.DockerClient, content: Path) -> Iterator[Registry]:
    """A registry that wants a password."""
    with Registry(private=True, content=content) as registry:
        yield registry
        forget(engine, registry)


@pytest.fixture
def removed(engine: docker.DockerClient) -> Iterator[Callable[[str], str]]:
    """Names of containers to remove in the end, whatever became of them."""
    names: list[str] = []

    def note(name: str) -> str:
        names.append(name)
        return name

    yield note
    for name in names:
        try:
            engine.containers.get(name).remove(force=True)
        except NotFound:
            continue


@pytest.fixture
def engine_of_its_own() -> Iterator[Callable[..., "Dockerd"]]:
    """Starts a second dockerd (root only) with a data folder of its own, which the test may kill or fill up."""
    started: list[Dockerd] = []

    def start(data: Path) -> Dockerd:
        started.append(Dockerd(data))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Dockerd:
    """A dockerd beside the machine's own, in the same network, so that it reaches the same registries.

    It has a bridge of its own: with `--bridge none` dockerd would take away the other's `docker0`, and with iptables it
    would rewrite the other's chains. What lets its containers reach a package index is set here.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        # A short path: a socket's has at most 107 characters.
        self._run = tempfile.TemporaryDirectory(prefix="dockerd-", dir="/tmp")
        self.url = f"unix://{self._run.name}/docker.sock"
        self._bridge = f"bt{uuid.uuid4().hex[:8]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._net = f"172.31.{secrets.randbelow(250)}"
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{self._net}.1/24", "dev", self._bridge)
        self._route("-I")

    def start(self) -> None:
        """Start it; returns when it answers."""
        run = Path(self._run.name)
        command = [
            "dockerd", "--data-root", str(self._data), "--exec-root", str(run / "exec"), "--host", self.url,
            "--pidfile", str(run / "pid"), "--bridge", self._bridge,
            "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false",
        ]  # fmt: skip
        with (run / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self.answers():
            said = (run / "log").read_text()[-3000:]
            assert self._process.poll() is None, f"dockerd ended: {said}"
            assert time.monotonic() < deadline, f"dockerd does not answer: {said}"
            time.sleep(0.1)

    def answers(self) -> bool:
        """Return whether the engine answers."""
        try:
            with contextlib.closing(docker.DockerClient(self.url, timeout=5)) as client:
                return bool(client.ping())
        except DockerException:
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it and whatever it started."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        # A dockerd that was killed takes the bridge away when it starts again.
        subprocess.run(["ip", "link", "delete", self._bridge], check=False, stderr=subprocess.DEVNULL)
        # Mounts that it leaves behind when it was killed: its data folder, and the network of containers on the host's.
        for mounted in (self._data, Path(self._run.name) / "exec" / "netns" / "default"):
            subprocess.run(["umount", "--recursive", str(mounted)], check=False, stderr=subprocess.DEVNULL)
        self._run.cleanup()

    def _route(self, insert_or_delete: str) -> None:
        nat = ["-s", f"{self._net}.0/24", "!", "-o", self._bridge, "-j", "MASQUERADE"]
        _run("iptables", "-t", "nat", insert_or_delete, "POSTROUTING", *nat)
        for way in ("-i", "-o"):
            _run("iptables", insert_or_delete, "FORWARD", way, self._bridge, "-j", "ACCEPT")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
