"""Predictions per second with the prediction log on, against a plain BentoML service of the same model without one.

    python -m benchmarks.serving [--json] [--rounds 10] [--seconds 2] [--model forest|linear]

The digits forest of examples/ (`linear`: a logistic regression, where nearly all is framework), one row per request,
16 connections from one client process, the two servers taking turns within a round. Both are Bentos started with
`bentoml serve`; the log goes to a real nats-server, and the run fails unless every answered row is in the stream.
What the ratio is made of: at 16 connections nearly all of the forest's is batching, which the plain service does not
do (BentoML offers it as `batchable=True`; not compared here). It says little about callers that come one at a time.
Keys: ratio (median of the rounds), ours_per_s, plain_per_s, ready_s, plain_ready_s, raw (per round).
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.servers import nats_server
from contracts.packaged_model import FILE, MODEL_FILE, PROJECT_FOLDER, Manifest
from services.host import free_port
from services.messaging import connect, ensure_topology
from serving import SERVICE

REPO = Path(__file__).parent.parent
TAG = "digits:1-0a1b2c3d"
CONNECTIONS = 16
SERVICES = {"ours": SERVICE, "plain": "benchmarks.plain_service:service"}


def build(folder: Path, kind: str) -> None:
    """Train, pack, and build the Bento of `kind`; runs in a process of its own with its own BENTOML_HOME."""
    import bentoml

    from services.builder.jobs.build_bento import copy_sources

    pack(folder)
    if kind == "ours":
        copy_sources(folder / "source")
    else:
        shutil.copytree(REPO / "benchmarks", folder / "source" / "benchmarks")
    bentoml.build(
        SERVICES[kind],
        name=kind,
        version="1",
        build_ctx=str(folder / "source"),
        args={"model_tag": TAG},
        python={"lock_packages": False},
    )


def pack(folder: Path) -> None:
    """Put the fitted estimator in `folder` into BentoML's model store, as the evaluator does."""
    import bentoml

    with bentoml.models.create(TAG) as packed:
        for name in (MODEL_FILE, FILE):
            shutil.copy(folder.parent / name, packed.path_of(name))
        Path(packed.path_of(PROJECT_FOLDER)).mkdir()


def train(folder: Path, kind: str) -> list[bytes]:
    """Fit the model, write it and its manifest into `folder`; the requests to send."""
    import joblib
    import pandas as pd
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression

    data = pd.read_parquet(REPO / "examples/digits/data/digits.parquet")
    rows, labels = data.drop(columns="digit"), data["digit"]
    forest = ExtraTreesClassifier(n_estimators=200, random_state=0)
    estimator = forest if kind == "forest" else LogisticRegression(max_iter=5000)
    joblib.dump(estimator.fit(rows, labels), folder / MODEL_FILE)
    (folder / FILE).write_text(manifest(list(rows.columns)).model_dump_json())
    bodies = [json.dumps({"rows": [row]}).encode() for row in rows.to_dict("records")]
    return [request(body) for body in bodies]


def manifest(columns: list[str]) -> Manifest:
    """Return the manifest that our service needs beside the model."""
    about: dict[str, Any] = {
        "model": "digits", "version": "1-0a1b2c3d", "run": "0" * 16, "task": "classification",
        "features": [{"name": name, "type": "number"} for name in columns],
        "target": {"name": "digit", "type": "integer"}, "classes": list(range(10)),
        "promise": {"metric": "accuracy", "value": 0.95}, "trained": time.time(), "dataset": "0" * 64,
    }  # fmt: skip
    return Manifest.model_validate(about)


def request(body: bytes) -> bytes:
    """A POST /predict as it goes over the wire."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


@contextmanager
def served(kind: str, home: Path, url: str) -> Iterator[tuple[int, float]]:
    """`bentoml serve` of the Bento; yields its port and the seconds it took to be ready."""
    port, started = free_port(), time.monotonic()
    environment = os.environ | {"NATS_URL": url}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "bentoml", "serve", f"{kind}:1", "--port", str(port)],
            env=environment | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"},
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        asyncio.run(ready(port))
        yield port, time.monotonic() - started
    finally:
        process.terminate()
        process.wait(30)


async def ready(port: int, seconds: float = 60.0) -> None:
    """Return once /readyz says 200."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
            except OSError:
                answer = b""
            if b" 200 " in answer[:16]:
                return
            await asyncio.sleep(0.02)


async def load(port: int, requests: list[bytes], seconds: float) -> tuple[int, float]:
    """Answered requests of all connections in `seconds`, and the seconds it really took."""
    started = time.perf_counter()
    work = [_connection(port, requests[number::CONNECTIONS], started + seconds) for number in range(CONNECTIONS)]
    answered = sum(await asyncio.gather(*work))
    return answered, time.perf_counter() - started


async def _connection(port: int, requests: list[bytes], until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = 0
    while time.perf_counter() < until:
        writer.write(requests[answered % len(requests)])
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"an answer was not 200: {head.decode()}")
        length = head.index(b"content-length:") + len(b"content-length:")
        await reader.readexactly(int(head[length : head.index(b"\r\n", length)]))
        answered += 1
    writer.close()
    return answered


async def logged(url: str, rows: int, seconds: float = 10.0) -> None:
    """Check that the stream has every answered row."""
    bus, deadline, found = await connect(url), time.monotonic() + seconds, 0
    subscription = await bus.js.pull_subscribe("predictions.digits", stream="PREDICTIONS")
    while found < rows:
        if time.monotonic() > deadline:
            raise SystemExit(f"{rows} rows were answered, {found} are in the stream")
        for message in await subscription.fetch(50, timeout=seconds):
            found += len(json.loads(message.data)["id"])
            await message.ack()
    await bus.close()


async def prepare(url: str) -> None:
    """Streams on a fresh server."""
    bus = await connect(url)
    await ensure_topology(bus)
    await bus.close()


def measure(folder: Path, requests: list[bytes], rounds: int, seconds: float) -> dict[str, Any]:
    """Start both, take turns, and give the figures."""
    (folder / "nats").mkdir()
    with ExitStack() as stack:
        url = stack.enter_context(nats_server(folder / "nats"))
        asyncio.run(prepare(url))
        ports, ready_s = {}, {}
        for kind in SERVICES:
            ports[kind], ready_s[kind] = stack.enter_context(served(kind, folder / kind, url))
        counts = {kind: asyncio.run(load(ports[kind], requests, 1.0))[0] for kind in SERVICES}  # warm-up
        raw = []
        for number in range(rounds):
            order = list(SERVICES) if number % 2 else list(reversed(SERVICES))
            rates = {}
            for kind in order:
                answered, took = asyncio.run(load(ports[kind], requests, seconds))
                counts[kind] += answered
                rates[kind] = answered / took
            raw.append({kind: round(rates[kind], 1) for kind in SERVICES})
        asyncio.run(logged(url, counts["ours"]))
    return figures(raw, ready_s)


def figures(raw: list[dict[str, float]], ready_s: dict[str, float]) -> dict[str, Any]:
    """The keys named above."""
    return {
        "ratio": round(statistics.median(one["ours"] / one["plain"] for one in raw), 2),
        "ours_per_s": statistics.median(one["ours"] for one in raw),
        "plain_per_s": statistics.median(one["plain"] for one in raw),
        "ready_s": round(ready_s["ours"], 2),
        "plain_ready_s": round(ready_s["plain"], 2),
        "raw": raw,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="per server and round")
    parser.add_argument("--model", choices=("forest", "linear"), default="forest")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(Path(options.build[0]), options.build[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = train(folder, options.model)
        for kind in SERVICES:
            (folder / kind).mkdir()
            environment = os.environ | {"BENTOML_HOME": str(folder / kind), "BENTOML_DO_NOT_TRACK": "True"}
            command = [sys.executable, "-m", "benchmarks.serving", "--build", str(folder / f"{kind}-build"), kind]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=REPO)
        taken = measure(folder, requests, options.rounds, options.seconds)
    if options.json:
        print(json.dumps(taken))
    else:
        print("{ratio}× of plain BentoML: {ours_per_s:.0f} against {plain_per_s:.0f} predictions/s".format(**taken))


if __name__ == "__main__":
    main()
