"""`belt up` itself is killed: the next one on the home goes on where it stopped."""

import os
import signal

import pytest

from belt.local import orphans
from belt.local.stack import BUS, GATEWAY
from contracts.subjects import WORKERS
from services.messaging.connection import connect
from tests.chaos.faults import ONCE, Hurt, alive, answer, over
from tests.chaos.held import MODEL, Held
from tests.waiting import until

pytestmark = pytest.mark.timeout(240)


async def test_the_next_one_finishes_the_run_and_serves_what_was_live(running: Hurt, held: Held) -> None:
    version = running.version(MODEL)
    held.hold("trainer")
    run = running.start_push(held.project)
    held.reached("trainer")
    left = running.kill_itself()
    assert len(left) > len(WORKERS) + 2
    assert answer(running.http)[0] == version, "servers outlive it"
    running.up()
    held.release("trainer")
    assert [process for process in left if alive(process)] == []
    bus = await connect(running.nats_url())
    until(lambda: isinstance(answer(running.http), tuple), 30)
    assert await over(bus, run) == ONCE
    await bus.close()
    assert running.version(MODEL) == running.json("run", run)["version"]


def test_live_and_previous_answer_again_and_nothing_is_there_twice(running: Hurt) -> None:
    [shown] = [shown for shown in running.json("deployments") if shown["model"] == MODEL]
    left = running.kill_itself()
    running.up()
    assert [process for process in left if alive(process)] == []
    until(lambda: answer(running.http)[0] == shown["version"], 30)
    until(lambda: set(running.servers()) == {shown["version"], shown["previous"]})
    running.run("rollback", MODEL, "--reason", "chaos")
    assert running.version(MODEL) == shown["previous"]


def test_everything_killed_at_once(running: Hurt) -> None:
    version = running.version(MODEL)
    left = running.kill_itself()
    for process in left:
        process.kill()
    running.up()
    until(lambda: answer(running.http)[0] == version, 30)


def test_it_goes_on_after_all_its_parts_are_killed(running: Hurt, held: Held) -> None:
    killed = {part: running.pid(part) for part in (BUS, GATEWAY, *WORKERS)}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(running.pid(part) not in (0, pid) for part, pid in killed.items()))
    until(lambda: isinstance(answer(running.http), tuple), 30)
    assert running.push(held.project)["outcome"] == "deployed"


def test_nothing_is_left_when_it_ends(running: Hurt) -> None:
    there = orphans.find(running.home)
    running.down()
    assert [process for process in there if alive(process)] == []
    assert orphans.find(running.home) == []
    running.up()
