"""`belt up` as a person runs it: real bus, real gateway, real workers, killed in every way."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nats.errors
import psutil
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from belt.local import orphans
from belt.local.home import Home
from belt.local.stack import BUS, GATEWAY
from contracts.subjects import WORKERS
from services.host import free_port, is_free
from services.messaging.connection import connect
from services.storage.registry import Live, Registry
from tests.waiting import eventually, until

ROOT = Path(__file__).parents[4]
DEADLINE = 60.0
PARTS = (BUS, GATEWAY, *WORKERS)

pytestmark = pytest.mark.timeout(240)


class Up:
    """One `belt up` under test."""

    def __init__(self, home: Path, port: int | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.home, self.port = Home(home), port or free_port()
        self.errors = home.with_suffix(".stderr")
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "belt.main", "up", "--home", str(home), "--port", str(self.port)],
                cwd=ROOT, env={**os.environ, **(environ or {})}, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

    def ready(self) -> "Up":
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", self.errors.read_text()
        return self

    def exit(self) -> int:
        return self.process.wait(timeout=DEADLINE)

    def pid(self, part: str) -> int:
        running = self.home.running()
        return running.processes[part].pid if running and part in running.processes else 0

    def healthy(self, part: str) -> bool:
        running = self.home.running()
        assert running is not None
        path = {BUS: None, GATEWAY: "ping"}.get(part, "health")
        port = running.processes[part].port
        return not is_free(port) if path is None else answers(f"http://127.0.0.1:{port}/{path}") == 200

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        orphans.kill(self.home.root)


def answers(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    started = Up(tmp_path_factory.mktemp("up") / "home")
    yield started.ready()
    started.end()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts a `belt up` on another home."""
    started: list[Up] = []

    def start(port: int | None = None, environ: Mapping[str, str] | None = None) -> Up:
        started.append(Up(tmp_path / "home", port, environ))
        return started[-1]

    yield start
    for one in started:
        one.end()


def doctor(up: Up) -> dict[str, dict[str, str]]:
    """Return the findings of `belt doctor` on that home, by the thing it checked."""
    command = [sys.executable, "-m", "belt.main", "doctor", "--json", "--home", str(up.home.root), "--port"]
    done = subprocess.run([*command, str(up.port)], cwd=ROOT, capture_output=True, text=True, check=False)
    return {finding["what"]: finding for finding in json.loads(done.stdout)}


async def outcome_of_a_push(url: str) -> str:
    """Subject of the event that answers a push of a model nobody knows."""
    bus = await connect(url, reconnect=False)
    try:
        ack = await bus.js.publish("data.pushed", json.dumps({"model": "nobody-knows-it"}).encode())
        following = await bus.js.pull_subscribe("", stream="EVENTS", config=_after(ack.seq))
        async with asyncio.timeout(DEADLINE):
            while True:
                for message in await following.fetch(1, timeout=DEADLINE):
                    if message.subject != "data.pushed":
                        return str(message.subject)
    finally:
        await bus.close()


def _after(sequence: int) -> ConsumerConfig:
    return ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=sequence + 1, ack_policy=AckPolicy.NONE
    )


def test_it_says_how_to_reach_it_to_its_owner_only(up: Up) -> None:
    assert stat.S_IMODE(up.home.nats_url.stat().st_mode) == 0o600
    assert stat.S_IMODE(up.home.root.stat().st_mode) == 0o700
    assert up.home.nats_url.read_text().startswith("nats://belt:")
    assert up.home.gateway_url.read_text() == f"http://127.0.0.1:{up.port}\n"


def test_ready_means_every_part_answers(up: Up) -> None:
    assert {part for part in PARTS if not up.healthy(part)} == set()
    assert answers(f"http://127.0.0.1:{up.port}/") == 404


def test_workers_are_named_by_their_command_line(up: Up) -> None:
    assert {w for w in WORKERS if f"services.{w}.app" not in psutil.Process(up.pid(w)).cmdline()} == set()


def test_secrets_are_on_no_command_line(up: Up) -> None:
    password = up.home.nats_url.read_text().strip().split(":")[2].split("@")[0]
    lines = [" ".join(process.cmdline()) for process in orphans.find(up.home.root)]
    assert [line for line in lines if password in line] == []


@pytest.mark.parametrize("part", PARTS)
def test_a_killed_part_comes_back(up: Up, part: str) -> None:
    killed = up.pid(part)
    os.kill(killed, signal.SIGKILL)
    until(lambda: up.pid(part) not in (0, killed), DEADLINE)
    until(lambda: up.healthy(part), DEADLINE)


async def test_a_push_works_after_all_those_kills(up: Up) -> None:
    until(lambda: all(up.healthy(part) for part in PARTS), DEADLINE)
    assert await outcome_of_a_push(up.home.nats_url.read_text().strip()) in ("data.rejected", "training.failed")


def test_a_second_one_on_the_same_home_is_refused(up: Up) -> None:
    second = Up(up.home.root)
    assert second.exit() == 1
    assert f"in use by another `belt up` (pid {up.process.pid}" in second.errors.read_text()
    assert up.healthy(GATEWAY)


def test_a_port_in_use_is_named_with_who_holds_it(other: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        refused = other(port)
        assert refused.exit() == 1
    said = refused.errors.read_text()
    assert f"port {port} is in use" in said
    assert f"pid {os.getpid()}" in said
    assert orphans.find(refused.home.root) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_with_everything_it_started(other: Callable[..., Up], number: signal.Signals) -> None:
    started = other().ready()
    serving = subprocess.Popen(
        ["sleep", "1000"], env={**os.environ, orphans.MARK: str(started.home.root)}, start_new_session=True
    )
    started.process.send_signal(number)
    assert started.exit() == 0, started.errors.read_text()
    assert serving.wait(timeout=DEADLINE) < 0
    assert orphans.find(started.home.root) == []
    assert not started.home.nats_url.exists()
    assert is_free(started.port)


def test_it_runs_and_stops_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    reads, unread = os.pipe()
    os.close(reads)
    home, port = Home(tmp_path / "home"), free_port()
    command = [sys.executable, "-m", "belt.main", "up", "--home", str(home.root), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=unread, stderr=unread)
    os.close(unread)
    try:
        until(lambda: (running := home.running()) is not None and running.ready, DEADLINE)
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE)
        assert orphans.find(home.root) == []
    finally:
        process.kill()
        orphans.kill(home.root)


def test_a_bus_that_fails_while_its_streams_are_made_does_not_end_the_start(other: Callable[..., Up]) -> None:
    started = other()
    until(lambda: next(started.home.bus.glob("jetstream/**/streams/*"), None) is not None, DEADLINE)
    os.kill(started.pid(BUS), signal.SIGKILL)
    started.ready()
    assert "bus ended (signal SIGKILL)" in started.errors.read_text()


def test_it_stops_while_it_is_starting(other: Callable[..., Up]) -> None:
    started = other()
    until(lambda: started.pid(BUS) != 0, DEADLINE)
    started.process.send_signal(signal.SIGINT)
    assert started.exit() == 0, started.errors.read_text()
    assert orphans.find(started.home.root) == []


def test_a_second_ctrl_c_kills(other: Callable[..., Up]) -> None:
    started = other().ready()
    os.kill(started.pid("trainer"), signal.SIGSTOP)  # it will not hear SIGTERM, so that stopping takes long
    started.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in started.errors.read_text(), DEADLINE)
    started.process.send_signal(signal.SIGINT)
    assert started.exit() == 130
    assert orphans.find(started.home.root) == []


async def test_what_a_killed_one_left_is_ended_by_the_next(other: Callable[..., Up]) -> None:
    killed = other().ready()
    bus = await connect(killed.home.nats_url.read_text().strip())
    live = Live(
        model="digits", version="7-aaaaaaaa", image="bento+none", url="", target="local", order=7, run="r", since=0
    )
    await Registry(bus).put_live(live, None)
    left = orphans.find(killed.home.root)
    killed.process.kill()
    killed.process.wait()
    assert len(left) >= len(PARTS)
    found = doctor(killed)
    assert (found["leftovers"]["state"], found["leftovers"]["todo"]) == ("note", "belt up ends them")
    assert found["port"]["state"] == "ok"
    following = other(killed.port).ready()
    assert {process.pid for process in left} & {process.pid for process in orphans.find(killed.home.root)} == set()

    # Whoever follows the bus finds it where it was, and need not be started again.
    async def known() -> Live | None:
        with contextlib.suppress(nats.errors.Error):
            return await Registry(bus).live("digits")
        return None

    assert await eventually(known) == live
    await bus.close()
    until(
        lambda: "restarting the models that were live (they answer 503 until then): digits" in killed.errors.read_text()
    )
    following.process.send_signal(signal.SIGINT)
    assert following.exit() == 0


def test_a_worker_that_cannot_start_is_named_with_the_end_of_its_log(other: Callable[..., Up]) -> None:
    refused = other(environ={"DEPLOYER_READY_SECONDS": "soon"})
    assert refused.exit() == 1
    said = refused.errors.read_text()
    assert "deployer ended (exit code 1) at every start" in said
    assert "unable to parse string as a number" in said
    assert orphans.find(refused.home.root) == []
