"""Throughput of four replicas of a worker against one, on work that waits (a handler that awaits 100 ms).

    python -m benchmarks.scaling [--json] [--rounds 3]

Real nats-server (sync_interval always), real worker processes that share one durable consumer.
Keys: speedup (ratio of the medians), one_per_s, four_per_s (medians), raw (events per second of each round).
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from benchmarks.hops import prepare
from benchmarks.servers import nats_server
from contracts import cloudevents
from contracts.cloudevents import Envelope
from contracts.events import DataPushed, DataRejected, Event
from services.messaging import Bus, BusSettings, connect
from services.messaging.worker import Worker

WORK_SECONDS = 0.1
REPLICAS = 4
EACH = 40
"""Events per replica and round."""
PATIENCE_SECONDS = 60.0


def work() -> None:
    """Be a replica."""
    worker = Worker("scaling", BusSettings())

    @worker.on(DataPushed)
    async def wait(event: DataPushed, _: Envelope) -> list[Event]:
        await asyncio.sleep(WORK_SECONDS)
        # It names itself, so that all replicas are known to be there before anything is measured.
        return [DataRejected(model=event.model, dataset=str(os.getpid()), violations=("waited",))]

    worker.run()


@contextmanager
def replicas(count: int, url: str, folder: str) -> Iterator[None]:
    """`count` worker processes."""
    environ = os.environ | {"NATS_URL": url, "BENTOBELT_HOME": folder, "LOG_LEVEL": "error"}
    command = [sys.executable, "-m", "benchmarks.scaling", "--work"]
    started = [subprocess.Popen(command, env=environ) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


class Round:
    """Publishes events and waits for what follows from each."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._said = bus, asyncio.Queue[str]()

    async def listen(self) -> None:
        """Hear what the replicas say."""

        async def note(message: Msg) -> None:
            self._said.put_nowait(json.loads(message.data)["dataset"])

        await self._bus.nc.subscribe(DataRejected.subject, cb=note)

    async def until_all_work(self, count: int) -> None:
        """Return once every replica has worked."""
        seen: set[str] = set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(seen) < count:
                seen |= set(await self._pass_through(2 * count))

    async def per_second(self, events: int) -> float:
        """Events worked off per second, from the first publish to the last answer."""
        started = time.perf_counter()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._pass_through(events)
        return events / (time.perf_counter() - started)

    async def _pass_through(self, events: int) -> list[str]:
        body = cloudevents.body(DataPushed(model="scaling"))
        await asyncio.gather(*(self._bus.js.publish(DataPushed.subject, body) for _ in range(events)))
        return [await self._said.get() for _ in range(events)]


async def measure(url: str, folder: str, rounds: int) -> dict[int, list[float]]:
    """Events per second of each round, by number of replicas."""
    bus, taken = await connect(url), dict[int, list[float]]()
    one = Round(bus)
    await one.listen()
    for count in (1, REPLICAS):
        with replicas(count, url, folder):
            await one.until_all_work(count)
            taken[count] = [await one.per_second(EACH * count) for _ in range(rounds)]
    await bus.close()
    return taken


def figures(taken: dict[int, list[float]]) -> dict[str, Any]:
    """The keys named above."""
    one, four = statistics.median(taken[1]), statistics.median(taken[REPLICAS])
    return {
        "speedup": round(four / one, 2),
        "one_per_s": round(one, 2),
        "four_per_s": round(four, 2),
        "raw": {"one_per_s": taken[1], "four_per_s": taken[REPLICAS]},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    with tempfile.TemporaryDirectory(prefix="belt-scaling-") as folder, nats_server(Path(folder)) as url:
        asyncio.run(prepare(url))
        found = figures(asyncio.run(measure(url, folder, options.rounds)))
    if options.json:
        print(json.dumps(found))
        return
    print("{speedup} times the throughput with four replicas (budget 3.8)".format(**found))
    print("one {one_per_s} events/s, four {four_per_s} events/s".format(**found))


if __name__ == "__main__":
    main()
