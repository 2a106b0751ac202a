"""A bus with a user per service: the whole loop works, and nobody can do what is another's."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nats
import pytest
from nats.aio.client import Client

from belt.local.home import Home
from contracts import subjects
from services.host import free_port
from services.messaging import permissions
from tests.belts import ROOT
from tests.permitted import PermittedBelt
from tests.waiting import eventually, until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def belt(tmp_path: Path) -> AsyncIterator[PermittedBelt]:
    home = Home(tmp_path / "home")
    home.claim()
    running = PermittedBelt(home, free_port())
    yield running
    await running.stop()


async def run(belt: PermittedBelt, *arguments: str) -> str:
    """A belt command that has to succeed; what it printed."""
    command = [sys.executable, "-m", "belt.main", *arguments, "--home", str(belt.home.root)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, (arguments, output.decode())
    return output.decode()


async def test_a_whole_loop_asks_for_nothing_that_is_not_allowed(belt: PermittedBelt) -> None:
    await belt.start()
    told = [json.loads(await run(belt, "push", "examples/digits", "--wait", "--json")) for _ in range(2)]
    assert [one["outcome"] for one in told] == ["deployed", "deployed"]
    rows = json.loads(await run(belt, "predict", "digits", "examples/digits/data/digits.parquet", "--json"))
    labels = [{"id": answer["id"], "label": 3} for answer in rows["predictions"][:5]]
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{belt.gateway}/digits/feedback", json={"labels": labels})
        assert answer.json() == {"accepted": 5}
    await run(belt, "rollback", "digits", "--reason", "a test")
    for command in (["runs"], ["models"], ["deployments"], ["logs"], ["doctor"], ["review", "list"]):
        await run(belt, *command)
    await run(belt, "trace", rows["predictions"][0]["id"])
    await run(belt, "replay", told[0]["run"])
    bus = await nats.connect(belt.url(permissions.SETUP))
    js = bus.jetstream()

    async def followed() -> bool:
        """The monitor has read the traffic, and saved that."""
        info = await js.stream_info("KV_monitor", subjects_filter="$KV.monitor.digits.state")
        return bool(info.state.subjects) and (await js.stream_info("PREDICTIONS")).state.messages >= 2

    await eventually(followed)
    await bus.close()
    assert belt.violations() == []


NOT_THEIRS = [
    ("trainer", "model.approved"),
    ("trainer", "data.pushed"),
    ("trainer", "$KV.registry.digits.candidate.1-abcdef00"),
    ("trainer", "$KV.registry.digits.live.local"),
    ("builder", "model.approved"),
    ("evaluator", "$KV.registry.digits.live.local"),
    ("deployer-local", "$KV.registry.digits.live.production"),
    ("notifier", "review.decided"),
    ("serving", "model.deployed"),
    ("serving", "$KV.registry.digits.live.local"),
    ("monitor", "predictions.digits"),
    ("trainer", "$JS.API.STREAM.DELETE.EVENTS"),
    ("trainer", "$JS.API.STREAM.PURGE.KV_registry"),
    ("trainer", "$JS.API.CONSUMER.DELETE.EVENTS.evaluator-model-trained"),
    ("trainer", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.evaluator-model-trained"),
    ("trainer", "$JS.ACK.EVENTS.evaluator-model-trained.1.1.1.1.1"),
    ("trainer", "$JS.API.CONSUMER.CREATE.KV_projects.mine.$KV.projects.>"),
    ("serving", "$JS.API.DIRECT.GET.KV_registry.$KV.registry.digits.live.local"),
    ("serving", "$JS.API.CONSUMER.CREATE.EVENTS.mine"),
    ("belt", "$KV.registry.digits.live.local"),
]
NOT_FOR_THEM = [
    ("serving", ">"),
    ("serving", "predictions.>"),
    ("trainer", "_INBOX_evaluator.>"),
    ("trainer", "model.>"),
]


@pytest.fixture
async def bus(belt: PermittedBelt) -> PermittedBelt:
    await belt.start_bus()
    return belt


async def test_what_is_anothers_is_refused(bus: PermittedBelt) -> None:
    for user, subject in NOT_THEIRS:
        client = await _as(bus, user)
        await client.publish(subject, b"{}")
        await client.flush()
        await client.close()
    for user, subject in NOT_FOR_THEM:
        client = await _as(bus, user)
        await client.subscribe(subject)
        await client.flush()
        await client.close()
    until(lambda: bus.violations() == [*NOT_THEIRS, *NOT_FOR_THEM])
    setup = await nats.connect(bus.url(permissions.SETUP))
    assert (await setup.jetstream().stream_info("EVENTS")).state.messages == 0
    await setup.close()


async def test_a_consumer_reads_what_its_name_allows(bus: PermittedBelt) -> None:
    """The filter is part of the request's subject; the body cannot say another one."""
    trainer = await _as(bus, "trainer")
    config = {"name": "trainer-data-pushed", "durable_name": "trainer-data-pushed", "filter_subject": "model.approved"}
    body = json.dumps({"stream_name": "EVENTS", "config": config}).encode()
    answer = await trainer.request("$JS.API.CONSUMER.CREATE.EVENTS.trainer-data-pushed.data.pushed", body)
    assert "error" in json.loads(answer.data)
    await trainer.close()


async def test_a_consumer_cannot_be_made_to_speak(bus: PermittedBelt) -> None:
    """The server does not check the subject that a consumer delivers to, so no service may read what it writes."""
    trainer = await _as(bus, "trainer")
    await trainer.jetstream().publish("$KV.projects.digits", b'{"forged": true}')
    own = {"name": "trainer-data-pushed", "deliver_subject": "model.approved", "filter_subject": "$KV.projects.>"}
    body = json.dumps({"stream_name": "KV_projects", "config": own}).encode()
    for stream in ("KV_projects", "OBJ_artifacts", "EVENTS"):
        with pytest.raises((TimeoutError, nats.errors.NoRespondersError)):
            await trainer.request(f"$JS.API.CONSUMER.CREATE.{stream}.trainer-data-pushed", body, timeout=0.5)
    await trainer.close()
    setup = await nats.connect(bus.url(permissions.SETUP))
    assert (await setup.jetstream().stream_info("EVENTS")).state.messages == 0
    await setup.close()


async def _as(belt: PermittedBelt, user: str) -> Client:
    async def quiet(_: Exception) -> None: ...

    return await nats.connect(belt.url(user), inbox_prefix=subjects.inbox_prefix(user), error_cb=quiet)
