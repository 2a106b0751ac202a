"""A belt of its own with a tiny model, for what is measured on the whole embedded default."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nats.aio.msg import Msg

from belt.local.home import Home
from benchmarks import belt_up
from contracts import cloudevents
from services.messaging import Bus

MODEL = "tiny"
ROW = {"a": 0.9, "b": 0.1}
BELT = [sys.executable, "-m", "belt.main"]
FILES = {
    "model.yaml": f"name: {MODEL}\ntarget: y\ndataset: rows.csv\nestimator: pipeline:build\n",
    "pipeline.py": (
        "from sklearn.linear_model import LogisticRegression\n\n\n"
        "def build() -> LogisticRegression:\n    return LogisticRegression()\n"
    ),
}
ROWS = 2000
RUN_SECONDS = 120.0
ENDINGS = ("model.deployed", "model.rejected", "data.rejected", "model.superseded", "*.failed")


def write(folder: Path) -> Path:
    """The project: two columns, and an answer that a line through them gives."""
    import numpy as np
    import pandas as pd

    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_text(content)
    values = np.random.default_rng(0).uniform(size=(ROWS, 2))
    rows = pd.DataFrame(values[np.abs(values[:, 0] - 0.5) > 0.05], columns=["a", "b"])
    rows.assign(y=(rows["a"] > 0.5).astype(int)).to_csv(folder / "rows.csv", index=False)
    return folder


@contextmanager
def belt(folder: Path) -> Iterator[Home]:
    """Run a `belt up` with a home in `folder` and the tiny model live, and stop it at the end of the block."""
    home = Home(folder / "home")
    up, _ = belt_up.start(home.root)
    try:
        environ = os.environ | {"BENTOBELT_HOME": str(home.root)}
        subprocess.run([*BELT, "push", str(write(folder / "project")), "--wait", "--json"], env=environ, check=True,
                       capture_output=True)  # fmt: skip
        yield home
    finally:
        belt_up.stop(up, home.root)


async def push(bus: Bus) -> dict[str, Any]:
    """Push the tiny model once more and wait until it is live; its `model.deployed`."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Queue[Msg] = asyncio.Queue()

    async def note(message: Msg) -> None:
        loop.call_soon(ended.put_nowait, message)

    subscriptions = [await bus.nc.subscribe(subject, cb=note) for subject in ENDINGS]
    ack = await bus.js.publish("data.pushed", json.dumps({"model": MODEL}).encode())
    run = cloudevents.run_of("nats", f"EVENTS:{ack.seq}", MODEL)
    try:
        async with asyncio.timeout(RUN_SECONDS):
            while (message := await ended.get()).headers is None or message.headers["ce-correlationid"] != run:
                continue
    finally:
        for subscription in subscriptions:
            await subscription.unsubscribe()
    if message.subject != "model.deployed":
        raise SystemExit(f"run {run} ended with {message.subject}: {message.data.decode()[:1000]}")
    deployed: dict[str, Any] = json.loads(message.data)
    return deployed
