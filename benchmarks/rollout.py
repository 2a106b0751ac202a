"""Rollouts and rollbacks under steady traffic: requests that fail, and how soon a rollback has the traffic.

    python -m benchmarks.rollout [--json] [--rollouts 10]

A tiny model on the whole embedded default; each rollout is a push, every second one is rolled back.
Keys: failed (requests of all rollouts that were not answered with 200), rollback_s (median from publishing
`rollback.requested` to the first answer of the other version through the gateway), requests, rollouts, switched_s
(median from `data.pushed` to the new version's first answer), raw.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from belt.local.home import Home
from benchmarks import tiny
from contracts import cloudevents
from contracts.events import RollbackRequested
from services.messaging import Bus, connect

CLIENTS, PAUSE_SECONDS = 4, 0.005
SWITCH_SECONDS = 60.0


@dataclass
class Traffic:
    """Clients that ask all the time, over connections they keep."""

    gateway: str
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    first: dict[str, float] = field(default_factory=dict)
    """Version → when it answered first since `forget`."""
    _answered: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped: bool = False

    async def run(self) -> None:
        """Ask until `stop`."""
        async with httpx.AsyncClient(base_url=self.gateway, timeout=10) as http:
            await asyncio.gather(*(self._ask(http) for _ in range(CLIENTS)))

    def stop(self) -> None:
        self._stopped = True

    async def seen(self, version: str) -> float:
        """Wait until `version` answers, and return the time of its first answer."""
        async with asyncio.timeout(SWITCH_SECONDS):
            while version not in self.first:
                self._answered.clear()
                await self._answered.wait()
        return self.first[version]

    async def _ask(self, http: httpx.AsyncClient) -> None:
        while not self._stopped:
            self.requests += 1
            try:
                answer = await http.post(f"/{tiny.MODEL}/predict", json={"rows": [tiny.ROW]})
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                self._note(answer)
            await asyncio.sleep(PAUSE_SECONDS)

    def _note(self, answer: httpx.Response) -> None:
        if answer.status_code == 200:
            self.first.setdefault(answer.headers["X-Model-Version"], time.perf_counter())
            self._answered.set()
        else:
            self.failures.append(f"{answer.status_code} {answer.text[:200]}")


async def measure(home: Home, rollouts: int) -> dict[str, Any]:
    """All figures."""
    bus, traffic = await connect(home.nats_url.read_text().strip()), Traffic(home.gateway_url.read_text().strip())
    asking = asyncio.create_task(traffic.run())
    switched, rolled_back = [], []
    for number in range(rollouts):
        started = time.perf_counter()
        deployed = await tiny.push(bus)
        switched.append(await traffic.seen(deployed["version"]) - started)
        if number % 2 and deployed.get("previous"):
            rolled_back.append(await roll_back(bus, traffic, deployed["previous"]))
    traffic.stop()
    await asking
    await bus.close()
    return {
        "failed": len(traffic.failures),
        "rollback_s": round(statistics.median(rolled_back), 3),
        "requests": traffic.requests,
        "rollouts": rollouts,
        "switched_s": round(statistics.median(switched), 2),
        "raw": {"rollback_s": rolled_back, "switched_s": switched, "failures": traffic.failures[:100]},
    }


async def roll_back(bus: Bus, traffic: Traffic, previous: str) -> float:
    """Seconds from the request to the first answer of `previous`."""
    event = RollbackRequested(model=tiny.MODEL, by="bench", reason="measured")
    traffic.first.pop(previous, None)
    started = time.perf_counter()
    await bus.js.publish(event.subject, cloudevents.body(event))
    return await traffic.seen(previous) - started


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rollouts", type=int, default=10)
    options = parser.parse_args()
    if options.rollouts < 2:
        parser.error("--rollouts: at least 2")
    with tempfile.TemporaryDirectory(prefix="belt-rollout-") as folder, tiny.belt(Path(folder)) as home:
        found = asyncio.run(measure(home, options.rollouts))
    if options.json:
        print(json.dumps(found))
        return
    print("{failed} of {requests} requests failed in {rollouts} rollouts (budget 0)".format(**found))
    print("rollback after {rollback_s} s (budget 1), push to first answer {switched_s} s".format(**found))
    for failure in found["raw"]["failures"]:
        print(f"  {failure}")


if __name__ == "__main__":
    main()
