"""`belt up` and `belt push` as a person would run them, timed; for the two benchmarks of push to live."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pandas as pd

from benchmarks import belt_up
from services.messaging import connect
from services.timeline import history, runs

PROJECT = Path(__file__).resolve().parents[1] / "examples" / "digits"
DATA = PROJECT / "data" / "digits.parquet"
BELT = (sys.executable, "-m", "belt.main")
PATIENCE = 600.0


def first_row() -> dict[str, float]:
    """Return the row that every request sends."""
    frame = pd.read_parquet(DATA).drop(columns="digit")
    return {str(name): float(value) for name, value in frame.iloc[0].items()}


@dataclass(frozen=True)
class Belt:
    """A running `belt up`."""

    home: Path
    gateway: str

    def push(self, row: dict[str, float]) -> tuple[float, str]:
        """Seconds from the command `belt push` to the new version's first prediction, and the run.

        Until it is live only `/info` is asked: predictions would load the machine, and the script has no such load.
        """
        with httpx.Client(base_url=self.gateway, timeout=10) as http:
            before = _version(http)
            started = time.perf_counter()
            pushed = subprocess.run(
                [*BELT, "push", str(PROJECT), "--home", str(self.home), "--json"], check=True, capture_output=True
            )
            while (now := _version(http)) in (before, None):
                waited = time.perf_counter() - started
                if waited > PATIENCE:
                    raise SystemExit(f"run {pushed.stdout.decode()} is not live after {PATIENCE:g} s")
                time.sleep(max(0.02, waited / 200))  # precise to half a percent: asking loads the machine, too
            answer = http.post("/digits/predict", json={"rows": [row]}).raise_for_status()
            seconds = time.perf_counter() - started
            assert answer.headers["X-Model-Version"] == now, "the first prediction is the new version's"
            return seconds, str(json.loads(pushed.stdout)["run"])

    async def stages(self) -> dict[str, dict[str, float]]:
        """Seconds per stage of every run."""
        bus = await connect((self.home / "nats.url").read_text().strip())
        stories = runs.build_runs(await history.events(bus))
        await bus.close()
        return {run.id: {stage.service: stage.seconds or 0.0 for stage in run.stages} for run in stories}


@contextmanager
def up(home: Path, environ: Mapping[str, str] | None = None) -> Iterator[Belt]:
    """Run a `belt up` on a free port, and stop it at the end of the block."""
    process, gateway = belt_up.start(home, environ)
    try:
        yield Belt(home, gateway)
    finally:
        belt_up.stop(process, home)


def medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median per step."""
    return {name: round(statistics.median(sample[name] for sample in samples), 2) for name in samples[0]}


def _version(http: httpx.Client) -> str | None:
    try:
        response = http.get("/digits/info")
    except httpx.TransportError:
        return None
    return response.headers.get("X-Model-Version") if response.status_code == 200 else None
