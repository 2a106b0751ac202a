"""Containers of an image, started as a deployer starts them, and asked for predictions."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import docker

from contracts.events import ModelApproved
from contracts.runtime import Limits
from services.host import free_port
from tests.waiting import until


@contextlib.contextmanager
def serving(engine: docker.DockerClient, image: str, *, wait: bool = True, **environment: str) -> Iterator[Any]:
    """A container, ready unless it is not to be waited for: then it is not even started.

    Read-only, without capabilities, its bus away; removed by its id.
    """
    port, limits = free_port(), Limits()
    container = engine.containers.create(
        image, read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"], security_opt=["no-new-privileges"],
        mem_limit=limits.memory, nano_cpus=int(limits.cpus * 1e9), ports={"3000/tcp": ("127.0.0.1", port)},
        environment={"NATS_URL": "nats://127.0.0.1:1", **environment}, labels={"dev.bentobelt.test": str(port)},
    )  # fmt: skip
    try:
        if wait:
            container.start()
            until(lambda: _ready(container, port), seconds=60)
        yield container
    finally:
        container.remove(force=True)


def answer(container: Any, event: ModelApproved) -> list[Any]:
    """Return the container's predictions for the rows of the probe."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{container.labels['dev.bentobelt.test']}/predict",
        json.dumps({"rows": event.probe.rows}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answered:
        return [one["prediction"] for one in json.load(answered)["predictions"]]


def _ready(container: Any, port: int) -> bool:
    container.reload()
    assert container.status in ("created", "running"), container.logs().decode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answered:
            return bool(answered.status == 200)
    except OSError:
        return False
