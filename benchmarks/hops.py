"""Five event hops with empty work: publish → five worker processes in a row → the last event arrives.

    python -m benchmarks.hops [--json] [--rounds 200]

Real nats-server (sync_interval always), real workers: inbox, PubAck and ack on every hop.
Keys: median_ms, p99_ms, raw (milliseconds of each round).
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
from pathlib import Path

from benchmarks.servers import nats_server
from contracts import cloudevents
from contracts.cloudevents import Envelope
from contracts.events import (
    AlertRaised,
    DataPushed,
    DataRejected,
    Event,
    ModelSuperseded,
    ReviewDecided,
    RollbackRequested,
)
from services.messaging import BusSettings, connect, ensure_topology
from services.messaging.worker import Worker

VERSION = "1-00000000"
CHAIN: tuple[Event, ...] = (
    DataPushed(model="hop"),
    ReviewDecided(model="hop", version=VERSION, decision="approve", by="bench", reason="hop"),
    RollbackRequested(model="hop", by="bench", reason="hop"),
    ModelSuperseded(model="hop", version=VERSION, by=VERSION),
    AlertRaised(model="hop", severity="info", title="hop", body="hop", about="hop"),
    DataRejected(model="hop", dataset="hop", violations=("hop",)),
)
HOPS = len(CHAIN) - 1


def hop(index: int) -> None:
    """Be the worker between event `index` and the next of the chain."""
    worker = Worker(f"hop{index}", BusSettings())

    @worker.on(type(CHAIN[index]))
    async def pass_on(_: Event, __: Envelope) -> list[Event]:
        return [CHAIN[index + 1]]

    worker.run()


async def measure(url: str, rounds: int) -> list[float]:
    """Milliseconds from publish to arrival of the fifth hop's event, one round at a time."""
    bus = await connect(url)
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def note(_: object) -> None:
        arrived.put_nowait(time.perf_counter())

    await bus.nc.subscribe(CHAIN[-1].subject, cb=note)
    taken = []
    for number in range(rounds + 10):
        started = time.perf_counter()
        await bus.js.publish(CHAIN[0].subject, cloudevents.body(CHAIN[0]))
        ended = await asyncio.wait_for(arrived.get(), 60)
        if number >= 10:  # the first ones pay for connections and caches
            taken.append((ended - started) * 1000)
    await bus.close()
    return taken


async def prepare(url: str) -> None:
    bus = await connect(url)
    await ensure_topology(bus)
    await bus.close()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--hop", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hop is not None:
        hop(options.hop)
        return
    with tempfile.TemporaryDirectory() as folder, nats_server(Path(folder)) as url:
        asyncio.run(prepare(url))
        workers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.hops", "--hop", str(index)],
                env=os.environ | {"NATS_URL": url, "BENTOBELT_HOME": folder, "LOG_LEVEL": "error"},
            )
            for index in range(HOPS)
        ]
        try:
            taken = asyncio.run(measure(url, options.rounds))
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
    figures = {
        "median_ms": round(statistics.median(taken), 2),
        "p99_ms": round(statistics.quantiles(taken, n=100)[98], 2),
        "raw": [round(value, 2) for value in taken],
    }
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"five hops: median {figures['median_ms']} ms, p99 {figures['p99_ms']} ms over {len(taken)} rounds")


if __name__ == "__main__":
    main()
