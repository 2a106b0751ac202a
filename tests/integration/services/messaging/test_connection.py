import pytest
from nats.js.api import StreamConfig

from contracts import subjects
from contracts.artifact_ref import ArtifactRef
from services.messaging.connection import Bus
from services.messaging.streams import ACK_WAIT, STREAM_LIMITS, ensure_topology
from services.storage.registry import Conflict, Live, Project, Registry

LIVE = Live(model="digits", version="3-0000abcd", image="i", url="u", target="local", order=41, run="r", since=1.0)


async def test_topology_is_what_the_contract_says(bus: Bus) -> None:
    for name, stored in subjects.STREAMS.items():
        config, limits = (await bus.js.stream_info(name)).config, STREAM_LIMITS[name]
        assert (tuple(config.subjects or ()), config.max_age) == (stored, limits.max_age)
        assert config.duplicate_window == limits.duplicate_window
    for service, heard in subjects.LISTENS.items():
        name = "deployer-local" if service == "deployer" else service
        for subject in heard:
            info = await bus.js.consumer_info(subjects.stream_of(subject), subjects.consumer_of(name, subject))
            assert info.config.ack_wait == ACK_WAIT


async def test_a_message_that_is_given_back_comes_again_however_often(bus: Bus) -> None:
    await bus.js.publish("data.pushed", b"{}")
    durable = subjects.consumer_of("trainer", "data.pushed")
    reader = await bus.js.pull_subscribe_bind(durable, stream="EVENTS")
    for delivery in range(1, 101):
        [message] = await reader.fetch(1, timeout=5)
        assert message.metadata.num_delivered == delivery
        await message.nak()


async def test_ensuring_again_leaves_everything_alone(bus: Bus) -> None:
    drifted = StreamConfig(name="LOGS", subjects=["logs.>"], max_age=60.0)
    await bus.js.update_stream(drifted)
    await ensure_topology(bus)
    assert (await bus.js.stream_info("LOGS")).config.max_age == 60.0


async def test_a_recreated_stream_starts_above_what_the_registry_knows(bus: Bus) -> None:
    await Registry(bus).put_live(LIVE, None)
    await bus.js.delete_stream("EVENTS")
    await ensure_topology(bus)
    ack = await bus.js.publish("data.pushed", b"{}")
    assert ack.seq > 41


async def test_a_recreated_stream_starts_above_a_project_that_was_only_pushed(bus: Bus) -> None:
    ref = ArtifactRef(uri="u", sha256="0" * 64, size=1, media_type="m")
    await Registry(bus).put_project(Project(model="digits", archive=ref, order=7), None)
    await bus.js.delete_stream("EVENTS")
    await ensure_topology(bus)
    assert (await bus.js.publish("data.pushed", b"{}")).seq > 7


async def test_live_has_one_writer_at_a_time(bus: Bus) -> None:
    registry = Registry(bus)
    await registry.put_live(LIVE, None)
    newer = LIVE.model_copy(update={"order": 42})
    with pytest.raises(Conflict):
        await registry.put_live(newer, None)
    await registry.put_live(newer, LIVE)
    with pytest.raises(Conflict):
        await registry.put_live(LIVE, LIVE)
    assert await registry.live("digits") == newer
    assert await registry.lives() == [newer]


async def test_what_was_never_written_is_none(bus: Bus) -> None:
    registry = Registry(bus)
    assert await registry.live("digits") is None
    assert await registry.candidates("digits") == []
    assert await registry.models() == []
    ref = ArtifactRef(uri="u", sha256="0" * 64, size=1, media_type="m")
    await registry.put_project(Project(model="digits", archive=ref, order=1), None)
    assert await registry.models() == ["digits"]
