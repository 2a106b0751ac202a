"""Images of a version: how large, how much of a new one is pushed, how soon its container answers.

    python -m benchmarks.image [--json] [--rounds 7]

Needs a Docker engine with the images of tests/docker/images.txt. Both images are of the same Bento of examples/digits,
pushed to a registry of this run's own; the container is started as the deployer does it, limits included.
Keys: size_ratio (our image to that of `bentoml containerize`, as the engine counts), pushed_bytes and model_bytes of a
second version, start_ratio (container start to first answer, against the `docker run` step of the plain script),
start_s and plain_start_s (their medians), build_s (median time from a Bento to the pushed image), runtime_s (the same
for the first version, whose runtime image is made with it), raw.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import docker
import structlog

from benchmarks import plain_script, pushes
from contracts.events import ModelApproved
from tests.docker.approvals import version
from tests.docker.containers import answer, serving
from tests.docker.makers import Maker
from tests.docker.registries import Registry, forget

PLAIN_ROUNDS = 3
IMAGES = Path(__file__).resolve().parents[1] / "tests" / "docker" / "images.sh"


async def measure(rounds: int) -> dict[str, Any]:
    """All figures."""
    engine = docker.from_env(timeout=600)
    with tempfile.TemporaryDirectory(prefix="belt-bench-") as folder, Registry() as registry:
        try:
            return await _measure(engine, Path(folder), registry, rounds)
        finally:
            forget(engine, registry)


async def _measure(engine: docker.DockerClient, folder: Path, registry: Registry, rounds: int) -> dict[str, Any]:
    async with Maker(folder, registry.address) as maker:
        runtime, _ = await _make(maker, await maker.example("digits", 1))
        builds, event, image = [], None, ""
        for number in range(2, 2 + rounds):
            event = await maker.example("digits", number)
            seconds, image = await _make(maker, event)
            builds.append(seconds)
        assert event is not None, "at least one round"
        model = (await maker.artifacts.fetch(event.artifact)).stat().st_size
        before = registry.layers("digits", version(rounds))
        after = registry.layers("digits", event.version)
        starts = [_start(engine, image, event) for _ in range(rounds)]
        ours = engine.images.get(image).attrs["Size"]
    async with Maker(folder, registry.address, way="containerize") as maker:
        plain = await maker.example("digits", 100)
        _, named = await _make(maker, plain)
        theirs = engine.images.get(named).attrs["Size"]
    plain_script.write(folder / "plain", pushes.DATA)
    row = pushes.first_row()
    runs = [plain_script.run_in_docker(folder / "plain", row, registry.address)["run"] for _ in range(PLAIN_ROUNDS)]
    return {
        "size_ratio": round(ours / theirs, 3),
        "pushed_bytes": sum(size for digest, size in after.items() if digest not in before),
        "model_bytes": model,
        "start_ratio": round(statistics.median(starts) / statistics.median(runs), 3),
        "start_s": round(statistics.median(starts), 2),
        "plain_start_s": round(statistics.median(runs), 2),
        "build_s": round(statistics.median(builds), 2),
        "runtime_s": round(runtime, 1),
        "raw": {
            "size_bytes": ours,
            "plain_size_bytes": theirs,
            "compressed_bytes": sum(after.values()),
            "plain_compressed_bytes": sum(registry.layers("digits", plain.version).values()),
            "starts_s": [round(seconds, 3) for seconds in starts],
            "plain_starts_s": [round(seconds, 3) for seconds in runs],
            "builds_s": [round(seconds, 3) for seconds in builds],
        },
    }


async def _make(maker: Maker, event: ModelApproved) -> tuple[float, str]:
    started = time.perf_counter()
    assert await maker.images.find(event) is None
    looked = time.perf_counter() - started
    async with maker.bentos.build(event, "bench") as bento:
        started = time.perf_counter()
        image = await maker.images.make(event, "bench", bento)
        return looked + time.perf_counter() - started, image.image


def _start(engine: docker.DockerClient, image: str, event: ModelApproved) -> float:
    with serving(engine, image, wait=False) as container:
        before = time.perf_counter()
        container.start()
        while True:
            with contextlib.suppress(OSError):
                answer(container, event)
                return time.perf_counter() - before
            time.sleep(0.005)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    subprocess.run([IMAGES, "python", "registry"], check=True)
    figures = asyncio.run(measure(options.rounds))
    if options.json:
        print(json.dumps(figures))
        return
    pushed, model = figures["pushed_bytes"] / 1e6, figures["model_bytes"] / 1e6
    print(f"image: {figures['size_ratio']} of the size of what `bentoml containerize` makes")
    print(
        f"a new version pushes {pushed:.1f} MB, its model has {model:.1f} MB: {figures['build_s']} s to build and push"
    )
    print(f"the first version, with its runtime image: {figures['runtime_s']} s")
    print(f"container start to first answer: {figures['start_s']} s, {figures['start_ratio']} of the script's step")


if __name__ == "__main__":
    main()
