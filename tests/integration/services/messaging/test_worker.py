"""Guarantees of delivery, with a real nats-server and worker processes that are really killed."""

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from belt.main import app
from contracts import cloudevents
from services.host import free_port
from services.messaging.connection import Bus, connect
from services.messaging.errors import MAX_ERRORS, MAX_LOST, RETRY_DELAYS
from tests.conftest import NatsServer
from tests.integration.services.monitor.traffic import PUSH, idle, impatient, kept, lines, push, wait_for
from tests.waiting import eventually, until

Spawn = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    file = tmp_path / "calls"
    file.touch()
    return file


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def spawn(nats_url: str, calls: Path, tmp_path: Path, port: int) -> Iterator[Spawn]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environ = os.environ | {
            "NATS_URL": nats_url,
            "CALLS": str(calls),
            "BENTOBELT_HOME": str(tmp_path),
            "HTTP_PORT": str(0 if started else port),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.services.messaging.echo_worker"], env=environ
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=2) as response:
        body: bytes = response.read()
        return body


async def test_bare_json_is_a_complete_event(bus: Bus, spawn: Spawn) -> None:
    spawn()
    ack = await bus.js.publish("data.pushed", PUSH)
    [message] = await wait_for(bus, "data.rejected")
    assert json.loads(message.data) == {"model": "digits", "dataset": "/x", "violations": ["echo"]}
    headers = message.headers or {}
    run = cloudevents.run_of("nats", f"EVENTS:{ack.seq}", "digits")
    assert headers["ce-type"] == "dev.bentobelt.data.rejected.v1"
    assert headers["ce-correlationid"] == run
    assert headers["ce-generation"] == str(ack.seq)
    assert headers["ce-causationid"] == f"EVENTS:{ack.seq}"
    assert headers["ce-specversion"] == "1.0"
    assert headers["Nats-Msg-Id"] == f"data.rejected:{headers['ce-id']}"


async def test_trace_context_goes_on(bus: Bus, spawn: Spawn) -> None:
    spawn()
    trace = "0af7651916cd43dd8448eb211c80319c"
    await bus.js.publish("data.pushed", PUSH, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    [message] = await wait_for(bus, "data.rejected")
    assert (message.headers or {})["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{", {}, "not JSON"),
        (b"\xff\xfe", {}, "not UTF-8"),
        (b"", {}, "empty"),
        (b"[1]", {}, "an object is needed"),
        (b'{"dataset": 1}', {}, "model: Field required"),
        (b'{"model": "No Spaces"}', {}, "model: String should match"),
        (b'{"specversion": "1.0"}', {"content-type": "application/cloudevents+json"}, "under 'data'"),
    ],
)
async def test_unreadable_is_a_dead_letter_and_the_queue_goes_on(
    bus: Bus, spawn: Spawn, body: bytes, headers: dict[str, str], reason: str
) -> None:
    spawn()
    await bus.js.publish("data.pushed", body, headers={**headers, "custom": "kept"})
    await bus.js.publish("data.pushed", PUSH)
    [letter] = await wait_for(bus, "dlq.>")
    assert letter.subject == "dlq.trainer-data-pushed.data.pushed"
    assert letter.data == body
    assert reason in (letter.headers or {})["Dead-Reason"]
    assert (letter.headers or {})["custom"] == "kept"
    await wait_for(bus, "data.rejected")
    await eventually(lambda: idle(bus))


async def test_structured_mode_is_read(bus: Bus, spawn: Spawn) -> None:
    spawn()
    event = {"specversion": "1.0", "id": "a", "source": "ci", "type": "x", "data": {"model": "digits"}}
    await bus.js.publish(
        "data.pushed", json.dumps(event).encode(), headers={"Content-Type": "application/cloudevents+json"}
    )
    [message] = await wait_for(bus, "data.rejected")
    assert (message.headers or {})["ce-correlationid"] == cloudevents.run_of("ci", "a", "digits")


async def test_same_identity_is_the_same_run_with_its_first_generation(bus: Bus, spawn: Spawn, calls: Path) -> None:
    spawn()
    headers = {"ce-id": "a", "ce-source": "ci", "ce-generation": "999", "ce-correlationid": "forged"}
    first = await bus.js.publish("data.pushed", PUSH, headers=headers)
    await wait_for(bus, "data.rejected")
    await bus.js.publish("data.pushed", PUSH, headers=headers)
    await eventually(lambda: idle(bus))
    [message] = await wait_for(bus, "data.rejected")
    assert (message.headers or {})["ce-generation"] == str(first.seq)
    assert (message.headers or {})["ce-correlationid"] == cloudevents.run_of("ci", "a", "digits")
    assert len(lines(calls)) == 1


async def test_what_cannot_succeed_fails_at_once(bus: Bus, spawn: Spawn, calls: Path) -> None:
    spawn()
    await bus.js.publish("data.pushed", push("permanent"))
    [failed] = await wait_for(bus, "training.failed")
    assert json.loads(failed.data) | {"version": ""} == {
        "model": "digits", "version": "", "stage": "training", "error": "Permanent",
        "message": "this can never work", "attempts": 1,
    }  # fmt: skip
    await eventually(lambda: idle(bus))
    assert len(lines(calls)) == 1
    assert await kept(bus, "dlq.>") == []


async def test_an_endless_error_text_is_cut_and_logs_go_on(bus: Bus, spawn: Spawn, calls: Path) -> None:
    spawn()
    await bus.js.publish("data.pushed", push("verbose"))
    [failed] = await wait_for(bus, "training.failed")
    assert len(failed.data) < 100_000
    assert json.loads(failed.data)["message"].endswith("the end")
    await bus.js.publish("data.pushed", push("permanent"))
    await wait_for(bus, "training.failed", count=2)
    shipped = await wait_for(bus, "logs.trainer.digits", count=2)
    assert all(len(line.data) < 200_000 for line in shipped)
    assert len(lines(calls)) == 2


async def test_what_fits_but_cannot_be_recorded_is_not_said(bus: Bus, spawn: Spawn, calls: Path) -> None:
    spawn()
    await bus.js.publish("data.pushed", push("large:1000000"))  # 5 MB as a message, 9 MB as a record
    [failed] = await wait_for(bus, "training.failed")
    message = json.loads(failed.data)["message"]
    assert "data.rejected and its record take" in message
    assert "raise max_payload" in message
    assert await kept(bus, "data.rejected") == []
    await eventually(lambda: idle(bus))
    assert len(lines(calls)) == 1


@pytest.mark.timeout(180)
async def test_transient_errors_are_retried_with_growing_delay_then_given_up(
    bus: Bus, spawn: Spawn, calls: Path
) -> None:
    spawn()
    await bus.js.publish("data.pushed", push("boom"))
    [failed] = await wait_for(bus, "training.failed", seconds=90)
    assert json.loads(failed.data)["attempts"] == MAX_ERRORS
    [letter] = await wait_for(bus, "dlq.>")
    assert "the disk is on holiday" in (letter.headers or {})["Dead-Reason"]
    times = [float(line.split()[0]) for line in lines(calls)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(gap >= delay for gap, delay in zip(gaps, RETRY_DELAYS, strict=True))


async def test_killed_in_the_handler_is_taken_over_with_one_effect(
    bus: Bus, spawn: Spawn, calls: Path, tmp_path: Path
) -> None:
    await impatient(bus)
    first = spawn()
    await bus.js.publish("data.pushed", push(f"kill-once:{tmp_path / 'killed'}"))
    until(lambda: first.poll() is not None)
    assert first.returncode == -signal.SIGKILL
    spawn()
    await wait_for(bus, "data.rejected")
    await eventually(lambda: idle(bus))
    assert len(await kept(bus, "data.rejected")) == 1
    assert len(lines(calls)) == 2


@pytest.mark.timeout(180)
async def test_kills_are_bounded(bus: Bus, spawn: Spawn, calls: Path) -> None:
    await impatient(bus, 0.5)
    await bus.js.publish("data.pushed", push("kill"))
    for _ in range(MAX_LOST):
        process = spawn()
        until(lambda process=process: process.poll() is not None)  # type: ignore[misc]
    spawn()
    [failed] = await wait_for(bus, "training.failed")
    assert "died 10 times" in json.loads(failed.data)["message"]
    assert len(lines(calls)) == MAX_LOST


async def test_long_handlers_keep_their_message(bus: Bus, spawn: Spawn, calls: Path) -> None:
    await impatient(bus, 1.0)
    spawn()
    spawn()
    await bus.js.publish("data.pushed", push("sleep:5"))
    await wait_for(bus, "data.rejected")
    await eventually(lambda: idle(bus))
    assert len(lines(calls)) == 1


async def test_sigterm_hands_over_at_once(bus: Bus, spawn: Spawn, calls: Path) -> None:
    first = spawn()
    await bus.js.publish("data.pushed", push("sleep:60"))
    until(lambda: len(lines(calls)) == 1)
    spawn()

    async def other_polls() -> bool:
        return bool((await bus.js.consumer_info("EVENTS", "trainer-data-pushed")).num_waiting)

    await eventually(other_polls)  # its start is not what is measured
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    # ack_wait is 30 s here: only a message that was given back can be taken up this early.
    until(lambda: len(lines(calls)) == 2, seconds=15)


@pytest.mark.timeout(240)
async def test_being_stopped_often_is_not_dying(bus: Bus, spawn: Spawn, calls: Path) -> None:
    await bus.js.publish("data.pushed", push("sleep:3"))
    for stops in range(1, MAX_LOST + 2):
        worker = spawn()
        until(lambda stops=stops: len(lines(calls)) == stops)  # type: ignore[misc]
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    spawn()
    await wait_for(bus, "data.rejected")
    assert await kept(bus, "training.failed") == []


async def test_a_missing_bus_is_said(calls: Path, tmp_path: Path) -> None:
    environ = os.environ | {"NATS_URL": f"nats://127.0.0.1:{free_port()}", "CALLS": str(calls)}
    command = [sys.executable, "-m", "tests.integration.services.messaging.echo_worker"]
    process = subprocess.Popen(command, env=environ | {"BENTOBELT_HOME": str(tmp_path)}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert b"no bus at nats://127.0.0.1" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("LOG_LEVEL", "LOG_LEVEL"),
        ("HTTP_PORT", r"^/health cannot listen on 127.0.0.1:\d+: Address already in use; set"),
    ],
)
def test_a_setting_that_cannot_be_ends_the_start_and_is_named(setting: str, said: str, calls: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = {"LOG_LEVEL": "verbose", "HTTP_PORT": str(taken.getsockname()[1])}[setting]
        command = [sys.executable, "-m", "tests.integration.services.messaging.echo_worker"]
        environ = os.environ | {"CALLS": str(calls), setting: value}
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert re.search(said, ended.stderr)


async def test_bus_restart_is_survived(bus: Bus, spawn: Spawn, nats_server: NatsServer, calls: Path) -> None:
    worker = spawn()
    await bus.js.publish("data.pushed", push("sleep:1"))
    until(lambda: len(lines(calls)) == 1)
    nats_server.kill()
    nats_server.start()
    again = await connect(nats_server.url)
    await wait_for(again, "data.rejected")
    await again.js.publish("data.pushed", PUSH)
    await wait_for(again, "data.rejected", count=2)
    await again.close()
    assert worker.poll() is None


async def test_a_reset_consumer_repeats_the_recorded_outcome(bus: Bus, spawn: Spawn, calls: Path) -> None:
    spawn()
    await bus.js.publish("data.pushed", PUSH)
    [before] = await wait_for(bus, "data.rejected")
    await bus.nc.request("$JS.API.CONSUMER.RESET.EVENTS.trainer-data-pushed", b'{"seq": 1}', timeout=5)
    await eventually(lambda: idle(bus))
    assert [message.headers for message in await kept(bus, "data.rejected")] == [before.headers]
    assert len(lines(calls)) == 1


async def replay(url: str, event: str) -> None:
    said = await asyncio.to_thread(CliRunner().invoke, app, ["replay", event], env={"NATS_URL": url})
    assert said.exit_code == 0, said.output


async def test_what_was_given_up_is_tried_again_when_it_is_replayed(
    bus: Bus, nats_url: str, spawn: Spawn, calls: Path, tmp_path: Path
) -> None:
    spawn()
    await bus.js.publish("data.pushed", push(f"mended:{tmp_path / 'mended'}"))
    await wait_for(bus, "training.failed")
    await replay(nats_url, "EVENTS:1")
    failed = await wait_for(bus, "training.failed", count=2)
    assert len({(message.headers or {})["ce-correlationid"] for message in failed}) == 1
    (tmp_path / "mended").touch()
    await bus.nc.request("$JS.API.CONSUMER.RESET.EVENTS.trainer-data-pushed", b'{"seq": 1}', timeout=5)
    await eventually(lambda: idle(bus))
    assert len(lines(calls)) == 2  # the same messages, delivered again, are answered as before
    assert await kept(bus, "data.rejected") == []
    await replay(nats_url, "EVENTS:1")
    [done] = await wait_for(bus, "data.rejected")
    assert (done.headers or {})["ce-generation"] == "1"
    await replay(nats_url, "EVENTS:1")
    await eventually(lambda: idle(bus))
    assert len(lines(calls)) == 3
    assert len(await kept(bus, "training.failed")) == 2


async def test_health_means_it(bus: Bus, spawn: Spawn, port: int) -> None:
    process = spawn()

    def answer() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    until(lambda: answer() == 200)
    told = await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/metrics/")
    assert re.search(rb'bentobelt_events_total{outcome="failed".*} 0.0', told), (
        "what never happened is a zero, not missing"
    )
    await bus.js.delete_consumer("EVENTS", "trainer-data-pushed")
    # A worker that polls a consumer that is gone must not look well: it ends, so that it is started anew.
    until(lambda: process.poll() is not None)
    assert process.returncode == 1


async def test_logs_go_to_the_bus_with_run_and_version(bus: Bus, spawn: Spawn) -> None:
    spawn()
    await bus.js.publish("data.pushed", push("permanent"))
    found = await wait_for(bus, "logs.trainer.digits")
    line = json.loads(found[0].data)
    assert line["event"] == "message failed"
    assert line["version"].endswith(cloudevents.version_of(1, line["run"]).split("-")[1])
