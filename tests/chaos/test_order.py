"""A message that comes twice counts once; the last decision wins, however slow the one before was."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts import cloudevents
from services.messaging.connection import Bus
from services.timeline import history
from tests.chaos.faults import ONCE, Hurt, Traffic, answer, idle, over, said
from tests.chaos.held import MODEL, Held
from tests.waiting import eventually, until

pytestmark = pytest.mark.timeout(240)
BODY = json.dumps({"model": MODEL}).encode()


async def test_the_same_push_many_times_is_one_run(belt: Hurt, bus: Bus, traffic: Traffic) -> None:
    headers = {"ce-id": "once", "ce-source": "chaos"}
    run = cloudevents.run_of("chaos", "once", MODEL)
    for _ in range(3):
        await bus.js.publish("data.pushed", BODY, headers=headers)
    assert await over(bus, run) == ONCE
    version, servers = belt.version(MODEL), belt.settled()
    await bus.js.publish("data.pushed", BODY, headers=headers)
    await eventually(lambda: idle(bus))
    assert await said(bus, run) == ONCE
    assert (belt.version(MODEL), belt.servers()) == (version, servers)
    assert traffic.failures == []


async def test_the_same_push_after_the_bus_has_forgotten_it_is_the_same_run(
    belt: Hurt, bus: Bus, traffic: Traffic
) -> None:
    headers = {"ce-id": "late", "ce-source": "chaos", "Nats-Msg-Id": "data.pushed:late"}
    run = cloudevents.run_of("chaos", "late", MODEL)
    async with forgetful(bus):
        await bus.js.publish("data.pushed", BODY, headers=headers)
        assert await over(bus, run) == ONCE
        told, servers, others = belt.json("run", run), belt.settled(), await runs(bus)
        assert not (await bus.js.publish("data.pushed", BODY, headers=headers)).duplicate
        await eventually(lambda: idle(bus))
        assert await said(bus, run) == ONCE
        assert await runs(bus) == others
    assert belt.version(MODEL) == told["version"] == belt.json("run", run)["version"]
    assert belt.servers() == servers
    assert traffic.failures == []


async def test_every_event_of_a_run_again_changes_nothing(belt: Hurt, bus: Bus, held: Held, traffic: Traffic) -> None:
    run = str(belt.push(held.project)["run"])
    assert await over(bus, run) == ONCE
    version, servers, events, registered = belt.version(MODEL), belt.settled(), await ids(bus), await registry(bus)
    for _ in range(2):
        await again(bus, run)
        await eventually(lambda: idle(bus), 60)
    assert await ids(bus) == events
    assert await registry(bus) == registered
    assert (belt.version(MODEL), belt.servers()) == (version, servers)
    assert traffic.failures == []


async def test_an_older_run_again_does_not_move_the_traffic(belt: Hurt, bus: Bus, held: Held) -> None:
    older = str(belt.push(held.project)["run"])
    newer = belt.push(held.project)
    assert belt.version(MODEL) == newer["version"]
    async with forgetful(bus):
        await again(bus, older)
        await eventually(lambda: idle(bus), 60)
    assert belt.version(MODEL) == newer["version"]
    assert await said(bus, older) == ONCE


async def test_a_rollback_during_a_rollout_wins(belt: Hurt, bus: Bus, held: Held, traffic: Traffic) -> None:
    belt.push(held.project)
    live = belt.push(held.project)["version"]
    [shown] = [shown for shown in belt.json("deployments") if shown["model"] == MODEL]
    held.hold("deployer")
    slow = belt.start_push(held.project)
    held.reached("deployer")
    belt.run("rollback", MODEL, "--reason", "chaos")
    assert belt.version(MODEL) == shown["previous"] != live
    held.release("deployer")
    counted = await over(bus, slow)
    assert counted == {**{k: v for k, v in ONCE.items() if k != "model.deployed"}, "model.superseded": 1}
    assert belt.version(MODEL) == shown["previous"]
    until(lambda: set(belt.servers()) == {shown["previous"]})  # neither of the two others is kept
    assert traffic.failures == []
    assert belt.push(held.project)["outcome"] == "deployed"


async def test_pushes_that_come_while_one_is_rolled_out(belt: Hurt, bus: Bus, held: Held, traffic: Traffic) -> None:
    held.hold("deployer")
    first = belt.start_push(held.project)
    held.reached("deployer")
    second, third = belt.start_push(held.project), belt.start_push(held.project)

    async def built() -> bool:
        return (await said(bus, third))["image.pushed"] == 1

    await eventually(built, 60)
    held.release("deployer")
    for run in (first, second, third):
        counted = await over(bus, run)
        assert counted["model.deployed"] + counted["model.superseded"] == 1
    assert belt.version(MODEL) == belt.json("run", third)["version"]
    assert isinstance(answer(belt.http), tuple)
    assert traffic.failures == []


@asynccontextmanager
async def forgetful(bus: Bus) -> AsyncIterator[None]:
    """While it lasts, the stream recognizes no duplicate: as if its window had passed each time."""
    config = (await bus.js.stream_info("EVENTS")).config
    window = config.duplicate_window
    config.duplicate_window = 0.1
    await bus.js.update_stream(config)
    try:
        yield
    finally:
        config.duplicate_window = window
        await bus.js.update_stream(config)


async def again(bus: Bus, run: str) -> None:
    """Publish every event of the run once more, without the id by which the stream would recognize it."""
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
    reader = await bus.js.pull_subscribe(">", stream="EVENTS", config=config)
    kept = await reader.fetch((await reader.consumer_info()).num_pending or 0, timeout=10)
    await reader.unsubscribe()
    for message in kept:
        at = message.metadata
        _, about = cloudevents.read(message.subject, message.headers, message.data, at.sequence.stream, at.timestamp)
        if about.run == run:
            headers = {k: v for k, v in (message.headers or {}).items() if k != "Nats-Msg-Id"}
            await bus.js.publish(message.subject, message.data, headers=headers)


async def runs(bus: Bus) -> set[str]:
    return {about.run for _, about in await history.events(bus)}


async def ids(bus: Bus) -> set[tuple[str, str]]:
    """Every event there is, told by subject and id: a repetition adds none."""
    return {(about.subject, about.id) for _, about in await history.events(bus)}


async def registry(bus: Bus) -> dict[str, bytes | None]:
    bucket = await bus.bucket("registry")
    return {key: (await bucket.get(key)).value for key in await bucket.keys()}
