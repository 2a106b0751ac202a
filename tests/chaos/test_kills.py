"""Every process of a belt is killed in the middle of its work: one effect, and the live version answers on."""

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from belt.local.stack import BUS, GATEWAY
from services.messaging.connection import Bus
from tests.belts import ROOT
from tests.chaos.faults import ONCE, Hurt, Traffic, alive, answer, over, said
from tests.chaos.held import MODEL, Held
from tests.waiting import eventually, until

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("room", ["trainer", "evaluator", "deployer"])
async def test_a_worker_killed_at_work_is_taken_over_with_one_effect(
    belt: Hurt, bus: Bus, held: Held, traffic: Traffic, room: str
) -> None:
    held.hold(room)
    run = belt.start_push(held.project)
    stopped = held.reached(room)
    belt.kill(room)
    # Its job waits for ever: only somebody who ends it ends it. A server is ended by the deployer that finds it.
    until(lambda: not alive(stopped)) if room != "deployer" else None
    held.release(room)
    assert await over(bus, run) == ONCE
    assert not alive(stopped)
    assert belt.version(MODEL) == belt.json("run", run)["version"]
    assert traffic.failures == []


async def test_the_builder_killed_while_building(belt: Hurt, bus: Bus, held: Held, traffic: Traffic) -> None:
    builder = psutil.Process(belt.pid("builder"))
    [template] = builder.children()
    run = belt.start_push(held.project)
    above = (builder.pid, template.pid)
    job = until(lambda: next((p for p in builder.children(recursive=True) if p.ppid() not in above), None))
    assert job is not None
    job.suspend()  # the build cannot be over before the kill
    belt.kill("builder")
    assert (await said(bus, run))["image.pushed"] == 0
    assert await over(bus, run) == ONCE
    assert not alive(job)
    assert traffic.failures == []


@pytest.mark.parametrize("room", ["trainer", "deployer"])
async def test_the_bus_killed_in_the_middle_of_a_run(
    belt: Hurt, bus: Bus, held: Held, traffic: Traffic, room: str
) -> None:
    held.hold(room)
    run = belt.start_push(held.project)
    held.reached(room)
    belt.kill(BUS)
    held.release(room)
    assert await over(bus, run) == ONCE
    assert traffic.failures == []
    id = belt.http.post(f"/{MODEL}/predict", json={"rows": [{"a": 0.9, "b": 0.1}]}).json()["predictions"][0]["id"]
    label = {"labels": [{"id": id, "label": 1}]}
    until(lambda: belt.http.post(f"/{MODEL}/feedback", json=label).status_code == 200)


async def test_the_gateway_killed_in_the_middle_of_a_rollout(belt: Hurt, bus: Bus, held: Held) -> None:
    held.hold("deployer")
    run = belt.start_push(held.project)
    held.reached("deployer")
    belt.kill(GATEWAY)
    held.release("deployer")
    until(lambda: isinstance(answer(belt.http), tuple), 10)
    assert await over(bus, run) == ONCE
    assert belt.version(MODEL) == belt.json("run", run)["version"]


async def test_the_live_server_killed_answers_again(belt: Hurt, bus: Bus) -> None:
    version = belt.version(MODEL)
    killed = belt.servers()[version]
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: (found := answer(belt.http))[0] == version and isinstance(found, tuple), 30)
    assert belt.servers()[version].pid != killed.pid


async def test_the_server_kept_warm_is_killed_and_nobody_notices(belt: Hurt, held: Held, traffic: Traffic) -> None:
    belt.push(held.project)
    [shown] = [shown for shown in belt.json("deployments") if shown["model"] == MODEL]
    killed = until(lambda: belt.servers().get(shown["previous"]))
    assert killed is not None
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: (now := belt.servers().get(shown["previous"])) is not None and now.pid != killed.pid)
    belt.run("rollback", MODEL, "--reason", "chaos")
    assert belt.version(MODEL) == shown["previous"]
    assert traffic.failures == []


async def test_deployer_and_live_server_killed_at_once(belt: Hurt, bus: Bus) -> None:
    version = belt.version(MODEL)
    os.kill(belt.servers()[version].pid, signal.SIGKILL)
    belt.kill("deployer")
    until(lambda: (found := answer(belt.http))[0] == version and isinstance(found, tuple), 30)


async def test_a_trainer_that_wakes_up_after_its_work_was_taken_over(
    belt: Hurt, bus: Bus, held: Held, traffic: Traffic
) -> None:
    held.hold("trainer")
    run = belt.start_push(held.project)
    held.reached("trainer")
    paused = psutil.Process(belt.pid("trainer"))
    paused.suspend()
    held.release("trainer")
    replica = subprocess.Popen(
        [sys.executable, "-P", "-m", "services.trainer.app"], env=paused.environ() | {"HTTP_PORT": "0"}, cwd=ROOT
    )
    try:

        async def taken_over() -> bool:
            return (await said(bus, run))["model.trained"] == 1

        await eventually(taken_over, 60)
        paused.resume()
        assert await over(bus, run) == ONCE
    finally:
        paused.resume()
        replica.terminate()
        await asyncio.to_thread(replica.wait, 20)
    assert traffic.failures == []
