"""Push to live on Docker, against the plain script with an image and a registry, warm and cold, in pairs.

    python -m benchmarks.push_to_live [--json] [--rounds 5] [--no-cold]

Needs an engine. Ours: `belt up` with BUILDER_IMAGES=docker and DEPLOYER_SERVERS=containers; from starting `belt push`
until the new version answers through the gateway. The script's: train.py, `bentoml build`, `bentoml containerize`,
`docker push`, `docker run`, until its first answer. Same data, same estimator, same machine, same registry, in
turns.
Cold: neither engine nor registry has anything of it but the base image. Ours includes the time of `belt up` then.
Keys: warm_ratio, cold_ratio (medians of the pairs' ratios), ours_s, script_s, cold_ours_s, cold_script_s, stages_s,
steps_s, cold_stages_s, cold_steps_s (medians per stage and step), raw, cold_raw.
"""

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from benchmarks import plain_script, pushes
from services.host import free_port

IMAGES = Path(__file__).resolve().parents[1] / "tests" / "docker" / "images.sh"
BASE = "python:3.11-slim"
COLD_ROUNDS = 3


@contextmanager
def registry(engine: docker.DockerClient) -> Iterator[str]:
    """An empty registry; yields its address."""
    port = free_port()
    running = engine.containers.run("registry:3", detach=True, ports={"5000/tcp": ("127.0.0.1", port)})
    try:
        yield f"127.0.0.1:{port}"
    finally:
        running.remove(force=True, v=True)
        for image in engine.images.list():
            for tag in image.tags:
                if tag.startswith(f"127.0.0.1:{port}/"):
                    engine.images.remove(tag, force=True)


def environ(address: str, base: str = BASE) -> dict[str, str]:
    """Return the environment variables that make `belt up` use the engine."""
    return {
        "BUILDER_IMAGES": "docker",
        "BUILDER_REGISTRY": address,
        "BUILDER_BASE_IMAGE": base,
        "DEPLOYER_SERVERS": "containers",
    }


def warm(engine: docker.DockerClient, rounds: int) -> dict[str, Any]:
    """Pairs on a machine that has done it before."""
    row = pushes.first_row()
    with (
        tempfile.TemporaryDirectory(prefix="belt-bench-") as folder,
        registry(engine) as address,
        pushes.up(Path(folder) / "home", environ(address)) as belt,
    ):
        plain = Path(folder) / "plain"
        plain_script.write(plain, pushes.DATA)
        belt.push(row)  # the first round of each pays for caches
        plain_script.run_in_docker(plain, row, address)
        pairs = [(belt.push(row), plain_script.run_in_docker(plain, row, address)) for _ in range(rounds)]
        per_run = asyncio.run(belt.stages())
    ours, script = [seconds for (seconds, _), _ in pairs], [sum(steps.values()) for _, steps in pairs]
    stages = [per_run[run] for (_, run), _ in pairs]
    ratios = [our / their for our, their in zip(ours, script, strict=True)]
    return {
        "warm_ratio": round(statistics.median(ratios), 3),
        "ours_s": round(statistics.median(ours), 2),
        "script_s": round(statistics.median(script), 2),
        "stages_s": pushes.medians(stages),
        "steps_s": pushes.medians([steps for _, steps in pairs]),
        "raw": {"ours_s": ours, "script_s": script, "ratios": ratios, "stages_s": stages},
    }


def cold(engine: docker.DockerClient) -> dict[str, Any]:
    """Pairs where both begin with the base image alone. The engine keeps what pip downloaded for the script."""
    pairs = [_cold_pair(engine) for _ in range(COLD_ROUNDS)]
    ours, script = [ours for ours, _, _ in pairs], [sum(steps.values()) for _, _, steps in pairs]
    ratios = [our / their for our, their in zip(ours, script, strict=True)]
    return {
        "cold_ratio": round(statistics.median(ratios), 3),
        "cold_ours_s": round(statistics.median(ours), 1),
        "cold_script_s": round(statistics.median(script), 1),
        "cold_stages_s": pushes.medians([stages for _, stages, _ in pairs]),
        "cold_steps_s": pushes.medians([steps for _, _, steps in pairs]),
        "cold_raw": {"ours_s": ours, "script_s": script, "ratios": ratios},
    }


def _cold_pair(engine: docker.DockerClient) -> tuple[float, dict[str, float], dict[str, float]]:
    row = pushes.first_row()
    # A base that the engine has not built on before, so that no step comes out of its cache.
    base = f"belt-bench-base:{uuid.uuid4().hex[:12]}"
    engine.images.build(fileobj=_dockerfile(base), tag=base, rm=True)
    try:
        with tempfile.TemporaryDirectory(prefix="belt-bench-") as folder, registry(engine) as address:
            started = time.perf_counter()
            with pushes.up(Path(folder) / "home", environ(address, base)) as belt:
                belt.push(row)
                ours = time.perf_counter() - started
                stages = next(iter(asyncio.run(belt.stages()).values()))
        with tempfile.TemporaryDirectory(prefix="belt-bench-") as folder, registry(engine) as address:
            plain_script.write(Path(folder), pushes.DATA)
            steps = plain_script.run_in_docker(Path(folder), row, address, "no-cache")
    finally:
        engine.images.remove(base, force=True)
    return ours, stages, steps


def _dockerfile(name: str) -> Any:
    return io.BytesIO(f"FROM {BASE}\nLABEL dev.bentobelt.benchmark={name}\n".encode())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-cold", action="store_true", help="only the warm pairs")
    options = parser.parse_args()
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    subprocess.run([IMAGES, "python", "registry"], check=True)
    engine = docker.from_env(timeout=300)
    figures = warm(engine, options.rounds) | ({} if options.no_cold else cold(engine))
    if options.json:
        print(json.dumps(figures))
        return
    print(f"push to live, warm: {figures['ours_s']} s, script {figures['script_s']} s: ratio {figures['warm_ratio']}")
    print(f"ours:   {figures['stages_s']}")
    print(f"script: {figures['steps_s']}")
    if "cold_ratio" in figures:
        print(f"cold: {figures['cold_ours_s']} s, script {figures['cold_script_s']} s: ratio {figures['cold_ratio']}")
        print(f"ours:   {figures['cold_stages_s']}")
        print(f"script: {figures['cold_steps_s']}")


if __name__ == "__main__":
    main()
