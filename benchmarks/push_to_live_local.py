"""Push to live on the embedded default, against the plain script, both warm, in pairs.

    python -m benchmarks.push_to_live_local [--json] [--rounds 5]

Ours: from starting `belt push` until the new version answers through the gateway. The script's: train.py,
`bentoml build`, `bentoml serve` until its first answer. Same data, same estimator, same machine, taking turns.
Keys: warm_ratio (median of the pairs' ratios), ours_s, script_s, stages_s (medians per stage), raw.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from belt import history, ports, story
from benchmarks import plain_script
from services.bus import connect

PROJECT = Path(__file__).resolve().parents[1] / "examples" / "digits"
BELT = [sys.executable, "-m", "belt.main"]


def push(home: Path, gateway: str, row: dict[str, float]) -> tuple[float, str]:
    """Seconds from the command to the new version's first answer, and the run."""
    with httpx.Client(base_url=gateway, timeout=10) as http:
        before = _version(http, row)
        started = time.perf_counter()
        pushed = subprocess.run(
            [*BELT, "push", str(PROJECT), "--home", str(home), "--json"], check=True, capture_output=True, text=True
        )
        while _version(http, row) in (before, None):
            if time.perf_counter() - started > 120:
                raise SystemExit(f"run {pushed.stdout} is not live after 120 s")
            time.sleep(0.01)
        return time.perf_counter() - started, json.loads(pushed.stdout)["run"]


def _version(http: httpx.Client, row: dict[str, float]) -> str | None:
    response = http.post("/digits/predict", json={"rows": [row]})
    return response.headers.get("X-Model-Version") if response.status_code == 200 else None


async def stages(url: str) -> dict[str, dict[str, float]]:
    """Seconds per stage of every run."""
    bus = await connect(url)
    runs = story.stories(await history.events(bus))
    await bus.close()
    return {run.id: {stage.room: stage.seconds or 0.0 for stage in run.stages} for run in runs}


def measure(rounds: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(prefix="belt-bench-") as folder:
        home, plain, port = Path(folder) / "home", Path(folder) / "plain", ports.free(1)[0]
        plain_script.write(plain, PROJECT / "data" / "digits.parquet")
        row = _row()
        up = subprocess.Popen(
            [*BELT, "up", "--home", str(home), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            assert up.stdout is not None
            assert up.stdout.readline().strip() == "ready", "`belt up` did not get ready"
            gateway = f"http://127.0.0.1:{port}"
            push(home, gateway, row)  # the first round of each pays for caches
            plain_script.run(plain, row)
            pairs = [(push(home, gateway, row), plain_script.run(plain, row)) for _ in range(rounds)]
            per_run = asyncio.run(stages((home / "nats.url").read_text().strip()))
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)
    return _figures(pairs, per_run)


def _figures(
    pairs: list[tuple[tuple[float, str], dict[str, float]]], per_run: dict[str, dict[str, float]]
) -> dict[str, Any]:
    ours = [seconds for (seconds, _), _ in pairs]
    script = [sum(steps.values()) for _, steps in pairs]
    ratios = [our / their for our, their in zip(ours, script, strict=True)]
    own_stages = [per_run[run] for (_, run), _ in pairs]
    return {
        "warm_ratio": round(statistics.median(ratios), 3),
        "ours_s": round(statistics.median(ours), 2),
        "script_s": round(statistics.median(script), 2),
        "stages_s": _medians(own_stages),
        "steps_s": _medians([steps for _, steps in pairs]),
        "raw": {"ours_s": ours, "script_s": script, "ratios": ratios, "stages_s": own_stages},
    }


def _medians(samples: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(sample[name] for sample in samples), 2) for name in samples[0]}


def _row() -> dict[str, float]:
    import pandas as pd

    frame = pd.read_parquet(PROJECT / "data" / "digits.parquet").drop(columns="digit")
    return {str(name): float(value) for name, value in frame.iloc[0].items()}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"push to live {figures['ours_s']} s, script {figures['script_s']} s: ratio {figures['warm_ratio']}")
    print(f"ours:   {figures['stages_s']}")
    print(f"script: {figures['steps_s']}")


if __name__ == "__main__":
    main()
