"""A fault of one model affects no other model, and ends with its cause."""

import asyncio
from functools import partial
from typing import Any

import pytest

from services.messaging.worker import restart_on_error
from services.monitor.ingest.model_reader import ModelReaders
from services.monitor.state.store import pack, unpack
from tests.component.services.monitor.test_app import Room
from tests.fakes import MemoryRegistry, deliver
from tests.unit.services.monitor.monitored import VERSION, Stream, deployed, messages
from tests.waiting import eventually


class Uneven:
    """Raises an unexpected error in its first `failures` runs, then keeps running."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts, self.lives = failures, 0, False

    async def run(self, _leases: object) -> None:
        self.starts += 1
        if self.starts <= self.failures:
            raise ZeroDivisionError("nobody is ready for this")
        self.lives = True
        await asyncio.Event().wait()


class UnreadableRegistry(MemoryRegistry):
    """Its first answer is nothing that can be read."""

    asked = 0

    async def lives(self) -> list[Any]:
        self.asked += 1
        if self.asked == 1:
            raise ValueError("a record of another release")
        return await super().lives()


async def test_a_model_that_fails_starts_anew_and_leaves_the_others_alone() -> None:
    models = {"bad": Uneven(1), "good": Uneven(0)}
    registry = UnreadableRegistry()
    make: Any = models.__getitem__
    readers = ModelReaders(make, None, registry, scan=0.01)  # type: ignore[arg-type]
    for model in models:
        readers.add(model)
    running = asyncio.create_task(readers.run())

    async def settled() -> bool:
        return not running.done() and all(model.lives for model in models.values()) and registry.asked > 1

    try:
        await eventually(settled)
        assert (models["bad"].starts, models["good"].starts) == (2, 1)
    finally:
        running.cancel()


async def test_a_guarded_task_ends_when_it_is_done_or_cancelled() -> None:
    runs = 0

    async def third_time() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise OSError("not yet")

    await restart_on_error(third_time, {}, pauses=(0.0, 0.001))
    assert runs == 3
    waiting = asyncio.create_task(restart_on_error(asyncio.Event().wait, {}, pauses=(0.0,)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_health_names_what_fails_again_and_again() -> None:
    room, bad, failing = Room(), Uneven(10), dict[str, str]()
    room.worker.on_health(lambda: failing)
    task = restart_on_error(partial(bad.run, None), failing, pauses=(0.0, 60.0), model="digits")
    running = asyncio.create_task(task)

    async def reported() -> bool:
        return bool(room.worker.health()["failing"] == {"digits": "ZeroDivisionError: nobody is ready for this"})

    await eventually(reported)
    assert bad.starts == 2
    assert room.worker.health()["healthy"] is False
    running.cancel()
    await asyncio.wait({running})
    assert room.worker.health()["failing"] == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("versions"),
        lambda state: state["versions"][VERSION].pop("detector"),
        lambda state: state["versions"][VERSION].update(promise={"metric": "?"}),
        lambda state: state["versions"][VERSION].update(counts=state["versions"][VERSION]["counts"][:1]),
        lambda state: state["versions"][VERSION]["pending"].update(columns={}),
        lambda state: state.update(incident={"id": 1}),
        lambda state: state.update(early=None),
    ],
)
async def test_a_state_of_another_release_starts_anew_from_the_bus(damage: Any) -> None:
    room, traffic = Room(), Stream(1)
    await room.approve()
    first = room.reader()
    await first.open()
    room.stream.publish(*messages(traffic, 50, 0.95))
    await room.read(first)
    state = unpack(room.store.states["digits"])
    damage(state)
    room.store.states["digits"] = pack(state)
    second = room.reader()
    await second.open()
    room.stream.acked = 0
    await room.read(second)
    assert second.state.traffic.versions[VERSION].performance.label_count == 50


@pytest.mark.parametrize("notice", [{"deployed": {"model": "digits"}}, {"errors": 3}, {"deployed": 1}, {}])
async def test_notices_of_another_release_are_ignored(notice: dict[str, Any]) -> None:
    room = Room()
    await room.store.add_notice("digits", "e0", notice)
    await deliver(room.worker, deployed())
    reader = room.reader()
    await reader.open()
    await room.read(reader)
    assert reader.state.live == {"local": VERSION}
    assert room.store.left == {}


@pytest.mark.parametrize("line", ['"time":NaN', '"time":1e999', f'"count":{"9" * 400}', '"count":-1', '"version":"?"'])
async def test_invalid_lines_of_the_serving_log_leave_no_notice(line: str) -> None:
    room = Room()
    body = '{"level":"error","version":"1-0123abcd","time":1.0,"count":2}'
    key = line.split(":")[0]
    kept = [part for part in body[1:-1].split(",") if not part.startswith(key)]
    await deliver(room.worker, ("{" + ",".join([*kept, line]) + "}").encode(), "logs.serving.digits")
    assert room.store.left == {}
