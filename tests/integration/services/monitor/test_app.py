"""The monitor as a process on a real bus: it finds a loss, survives kills, counts everything once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts import cloudevents
from contracts.artifact_ref import PARQUET
from contracts.events import DataRejected, DriftDetected, Event, subject_of
from contracts.features import RECENT
from services.messaging.connection import Bus
from services.messaging.settings import BusSettings
from services.monitor.detection.rules import Rules
from services.monitor.domain import SOURCE, ModelState
from services.monitor.ingest.consumer import TrafficStream, consumer_of
from services.monitor.state.label_join import RowPositions
from services.monitor.state.store import KvStateStore, StateConflict, unpack
from services.storage.artifact_store import open_artifact_store
from services.storage.registry import Registry
from tests.unit.services.monitor.monitored import VERSION, Stream, base_rows, candidate, deployed, live, messages
from tests.waiting import eventually

Process = subprocess.Popen[bytes]


@pytest.fixture
def started(nats_url: str, home: Path) -> Iterator[Any]:
    """Starts monitors; all are ended by their process id."""
    running: list[Process] = []

    def start(**settings: str) -> Process:
        environ = {
            **os.environ,
            "NATS_URL": nats_url,
            "BENTOBELT_HOME": str(home),
            "MONITOR_SAVE_SECONDS": "0",
            "MONITOR_RETRAIN_REPORT_SECONDS": "60",  # importing Evidently takes long on a busy machine
            **settings,
        }
        log = (home / f"monitor-{len(running)}.log").open("wb")
        process = subprocess.Popen([sys.executable, "-m", "services.monitor.app"], env=environ, stderr=log)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


async def publish(bus: Bus, *events: Event) -> int:
    """Publish in order; the sequence of the last."""
    sequence = 0
    for event in events:
        ack = await bus.js.publish(subject_of(event), cloudevents.body(event), headers={"ce-subject": event.model})
        sequence = ack.seq
    return sequence


async def go_live(bus: Bus, home: Path, window: int = 500) -> None:
    """Version 1 is approved and live, its dataset in the store."""
    base = home / "base.parquet"
    pq.write_table(base_rows(), base)
    artifacts = open_artifact_store(bus, BusSettings(home=home))
    await Registry(bus).put_candidate(candidate(await artifacts.put(base, PARQUET), window), None)
    await Registry(bus).put_live(live(), None)
    await publish(bus, deployed(window=window))


async def state(bus: Bus) -> ModelState | None:
    saved = await KvStateStore(bus).load("digits")
    return ModelState.load("digits", unpack(saved), Rules()) if saved else None


async def counted(bus: Bus, position: int) -> ModelState:
    async def reached() -> ModelState | None:
        now = await state(bus)
        return now if now and now.traffic.position >= position else None

    found = await eventually(reached)
    assert found
    return found


async def detected(bus: Bus, kind: str) -> tuple[DriftDetected, dict[str, str]] | None:
    for number in range(1, (await bus.js.stream_info("EVENTS")).state.last_seq + 1):
        message = await bus.js.get_msg("EVENTS", seq=number)
        if message.subject == "drift.detected":
            event = DriftDetected.model_validate_json(message.data or b"")
            if event.kind == kind:
                return event, dict(message.headers or {})
    return None


async def test_a_loss_becomes_a_retraining_with_old_and_recent_rows(bus: Bus, home: Path, started: Any) -> None:
    await go_live(bus, home)
    started()
    stream = Stream(1)
    await publish(bus, *(m for _ in range(4) for m in messages(stream, 100, 0.95)))
    await publish(bus, *(m for _ in range(8) for m in messages(stream, 100, 0.5, shift=0.5)))
    found = await eventually(lambda: detected(bus, "performance"), 60)
    assert found
    event, headers = found
    assert (event.action, event.version) == ("retrain", VERSION)
    assert headers["ce-source"] == SOURCE
    assert event.evidence["accuracy"] < 0.7
    assert event.dataset
    rows = pq.read_table(await open_artifact_store(bus, BusSettings(home=home)).fetch(event.dataset))
    recent = rows.filter(pa.compute.field(RECENT))
    assert rows.schema.field("digit").type == pa.int8()
    assert rows.num_rows == 300 + recent.num_rows
    assert recent.num_rows >= 500
    assert event.report

    # Its run ends without a version: the incident is closed.
    async def published() -> ModelState | None:
        now = await state(bus)
        return now if now and now.incident and now.incident.published else None

    await eventually(published)
    rejected = DataRejected(model="digits", dataset="d", violations=("no",))
    await bus.js.publish(
        "data.rejected", cloudevents.body(rejected), headers={"ce-correlationid": headers["ce-correlationid"]}
    )

    async def closed() -> bool:
        now = await state(bus)
        return now is not None and now.incident is None

    await eventually(closed)


async def test_killed_again_and_again_it_counts_every_label_once(bus: Bus, home: Path, started: Any) -> None:
    await go_live(bus, home)
    stream, position = Stream(2), 0
    for _ in range(3):
        process = started()
        for _ in range(5):
            position = await publish(bus, *messages(stream, 50, 0.95))
        await counted(bus, position - 5)  # in mid-window
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        position = await publish(bus, *messages(stream, 50, 0.95))
    started()
    watch = (await counted(bus, position)).traffic.versions[VERSION]
    assert (watch.windows.rows, watch.performance.label_count, watch.repeated) == (900, 900, 0)


async def test_of_two_replicas_one_reads_and_the_other_takes_over(bus: Bus, home: Path, started: Any) -> None:
    await go_live(bus, home)
    first, second = started(), started()
    stream = Stream(3)
    await counted(bus, await publish(bus, *messages(stream, 50, 0.95)))
    lease = json.loads((await (await bus.bucket("leases")).get("monitor.digits")).value or b"")
    holder = first if lease["id"].startswith(f"{first.pid}-") else second
    os.kill(holder.pid, signal.SIGTERM)
    assert await asyncio.to_thread(holder.wait, 30) == 0
    watch = (await counted(bus, await publish(bus, *messages(stream, 50, 0.95)))).traffic.versions[VERSION]
    assert (watch.windows.rows, watch.performance.label_count) == (100, 100)


async def test_unreadable_traffic_is_put_aside_and_the_rest_counts(bus: Bus, home: Path, started: Any) -> None:
    await go_live(bus, home)
    started()
    for body in (
        b"",
        b"{",
        b"[1]",
        b"\xff",
        b'{"version":"1-0123abcd","time":1,"id":["a"],"columns":{},"prediction":[]}',
    ):
        await bus.js.publish("predictions.digits", body)
    await bus.js.publish("feedback.digits", b'{"labels":[{"label":1}]}')
    state = await counted(bus, await publish(bus, *messages(Stream(4), 50, 0.95)))
    assert state.traffic.versions[VERSION].performance.label_count == 50
    assert (await bus.js.stream_info("DLQ")).state.messages == 6


async def test_a_burst_of_serving_errors_is_an_alert(bus: Bus, home: Path, started: Any) -> None:
    await go_live(bus, home)
    started()
    await counted(bus, await publish(bus, *messages(Stream(5), 50, 0.95)))
    line = {"level": "error", "version": VERSION, "time": 1000.0, "event": "predict.failed", "count": 12}
    for _ in range(2):
        await bus.nc.publish("logs.serving.digits", json.dumps(line).encode())
    found = await eventually(lambda: detected(bus, "quality"))
    assert found
    assert (found[0].action, found[0].evidence) == ("alert", {"serving_errors": 24.0})


async def test_a_state_is_written_by_one_and_may_be_large(bus: Bus) -> None:
    one, other = KvStateStore(bus), KvStateStore(bus)
    assert await one.load("digits") is None
    assert await other.load("digits") is None
    large = os.urandom(2_000_000)
    await one.save("digits", large)
    with pytest.raises(StateConflict):
        await other.save("digits", b"late")
    assert await other.load("digits") == large
    await other.save("digits", b"new")
    with pytest.raises(StateConflict):
        await one.save("digits", b"zombie")
    assert await KvStateStore(bus).load("digits") == b"new"
    info = await bus.js.stream_info("KV_monitor", subjects_filter="$KV.monitor.digits.chunk.>")
    assert len(info.state.subjects or {}) == 1


async def test_notices_stay_in_order_until_they_are_deleted(bus: Bus) -> None:
    store = KvStateStore(bus)
    await store.add_notice("digits", "e2", {"ended": "b"})
    await store.add_notice("digits", "e1", {"ended": "a"})
    assert list(await store.notices("digits")) == ["e1", "e2"]
    await store.delete_notices("digits", ["e1", "e2"])
    assert await store.notices("digits") == {}


async def test_a_reader_starts_behind_its_position_whatever_the_consumer_says(bus: Bus) -> None:
    stream = Stream(6)
    for _ in range(3):
        await publish(bus, *messages(stream, 10, 0.95))
    reader = TrafficStream(bus, "digits")
    assert await reader.open(0) == 0
    assert [t.sequence for t in await reader.fetch(5)] == [1, 2, 3, 4, 5, 6]
    await reader.ack()
    again = TrafficStream(bus, "digits")
    assert await again.open(2) == 2
    assert [t.sequence for t in await again.fetch(5)] == [3, 4, 5, 6]
    assert await again.open(1000) == 0  # the stream was made anew
    assert len(await again.fetch(5)) == 6
    assert (await bus.js.consumer_info("PREDICTIONS", consumer_of("digits"))).num_pending == 0


async def test_rows_the_bus_has_dropped_are_left_out(bus: Bus) -> None:
    import numpy as np

    await publish(bus, *messages(Stream(7), 3, 0.95), *messages(Stream(8), 3, 0.95))
    await bus.js.purge_stream("PREDICTIONS", seq=3)
    wanted = RowPositions(np.array([1, 3, 3]), np.array([0, 1, 2]), np.array([2, 4, 4]), np.array([0, 1, 2]))
    columns = await TrafficStream(bus, "digits").read_rows(wanted)
    assert {name: len(values) for name, values in columns.items()} == {
        "column:x0": 2, "column:x1": 2, "column:x2": 2, "prediction": 2, "label": 2,
    }  # fmt: skip
