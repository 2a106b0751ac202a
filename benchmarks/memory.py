"""Memory of trainer, evaluator and monitor over many pushes: does it stay flat?

    python -m benchmarks.memory [--json] [--runs 50]

The whole embedded default; after each run traffic and its labels, so that the monitor works too. Memory is PSS with all
children (warm templates), at rest: no job is running and it does not move any more. Growth is that of its anonymous
part: what a library's pages count for depends on how many other programs of the machine have it mapped just then.
What matters is whether it still grows at the end: caches and tables that fill up are a plateau, not a leak.
Keys: per service first_mb (after WARM_RUNS runs), last_mb, growth_mb_per_run (slope of a straight line through the
samples of the second half of the runs); runs; raw (per run and service: pss_mb, anonymous_mb).
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from belt.local.home import Home
from benchmarks import tiny
from services.messaging import connect

SERVICES = ("trainer", "evaluator", "monitor")
WARM_RUNS = 5
"""Caches fill during the first runs."""
REST_SECONDS, PATIENCE_SECONDS, MOVE_MB = 2.0, 20.0, 0.5
ROWS = 200
FIELDS = {"pss_mb": "Pss", "anonymous_mb": "Pss_Anon"}


Sample = dict[str, dict[str, float]]


async def measure(home: Home, runs: int, told: bool) -> list[Sample]:
    """Memory per service after each run."""
    bus = await connect(home.nats_url.read_text().strip())
    samples = []
    async with httpx.AsyncClient(base_url=home.gateway_url.read_text().strip(), timeout=20) as http:
        for number in range(runs):
            await tiny.push(bus)
            await ask(http)
            samples.append(await at_rest(home))
            if told:
                shown = ", ".join(f"{name} {sample['pss_mb']:.1f} MB" for name, sample in samples[-1].items())
                print(f"run {number + 1}: {shown}", file=sys.stderr)
    await bus.close()
    return samples


async def ask(http: httpx.AsyncClient) -> None:
    """Predictions and, at once, their labels."""
    answer = await http.post(f"/{tiny.MODEL}/predict", json={"rows": [tiny.ROW] * ROWS})
    labels = [{"id": one["id"], "label": 1} for one in answer.raise_for_status().json()["predictions"]]
    (await http.post(f"/{tiny.MODEL}/feedback", json={"labels": labels})).raise_for_status()


async def at_rest(home: Home) -> Sample:
    """Memory per service once no service's moves any more; the last one when they never rest."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before, since = now(home), time.monotonic()
    while time.monotonic() < min(deadline, since + REST_SECONDS):
        await asyncio.sleep(0.2)
        current = now(home)
        if any(abs(current[name]["anonymous_mb"] - before[name]["anonymous_mb"]) > MOVE_MB for name in SERVICES):
            before, since = current, time.monotonic()
    return now(home)


def now(home: Home) -> Sample:
    """Memory per service, with its children."""
    running = home.running()
    assert running is not None
    return {name: _with_children(running.processes[name].pid) for name in SERVICES}


def _with_children(pid: int) -> dict[str, float]:
    worker = psutil.Process(pid)
    found = [_rollup(process.pid) for process in (worker, *worker.children(recursive=True))]
    return {key: sum(one.get(field, 0.0) for one in found) for key, field in FIELDS.items()}


def _rollup(pid: int) -> dict[str, float]:
    """MB per field of a process; none when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def figures(samples: list[Sample]) -> dict[str, Any]:
    """The keys named above."""
    found: dict[str, Any] = {"runs": len(samples)}
    for name in SERVICES:
        anonymous = [sample[name]["anonymous_mb"] for sample in samples[len(samples) // 2 :]]
        found[name] = {
            "first_mb": round(samples[WARM_RUNS - 1][name]["pss_mb"], 1),
            "last_mb": round(samples[-1][name]["pss_mb"], 1),
            "growth_mb_per_run": round(statistics.linear_regression(range(len(anonymous)), anonymous).slope, 3),
        }
    return found | {"raw": samples}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    if options.runs < 2 * WARM_RUNS:
        parser.error(f"--runs: at least {2 * WARM_RUNS}")
    with tempfile.TemporaryDirectory(prefix="belt-memory-") as folder, tiny.belt(Path(folder)) as home:
        found = figures(asyncio.run(measure(home, options.runs, not options.json)))
    if options.json:
        print(json.dumps(found))
        return
    for name in SERVICES:
        print(
            "{0}: {first_mb} MB → {last_mb} MB, at the end {growth_mb_per_run} MB per run".format(name, **found[name])
        )


if __name__ == "__main__":
    main()
