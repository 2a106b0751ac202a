"""Containers in which the layers of images are made, and the volume that those of a runtime share."""

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from services.docker_errors import StreamError

SCRATCH = "bentobelt-making-"
"""How their names begin."""
ABANDONED_SECONDS = 3600.0
TAIL = 30
"""Lines of a failed build that are told."""
_COLOUR = re.compile(r"\x1b\[\d*m")


@contextlib.contextmanager
def scratch(api: docker.APIClient) -> Iterator[str]:
    """Name of a new volume, which goes with whatever is left in it."""
    name = f"{SCRATCH}{uuid.uuid4().hex}"
    try:
        yield api.create_volume(name)["Name"]
    finally:
        with contextlib.suppress(DockerException, RequestException):  # the error that led here is the one to tell
            api.remove_volume(name)


def remove_abandoned(api: docker.APIClient, seconds: float = ABANDONED_SECONDS) -> None:
    """Remove what builders left that were killed, once it is older than any making takes."""
    latest = time.time() - seconds
    for left in api.containers(all=True, filters={"name": SCRATCH, "status": ["created", "exited"]}):
        if left["Created"] < latest:
            with contextlib.suppress(APIError):  # another builder was faster
                api.remove_container(left["Id"], v=True)
    for volume in api.volumes(filters={"name": SCRATCH})["Volumes"] or ():
        if datetime.fromisoformat(volume["CreatedAt"]).timestamp() < latest:
            with contextlib.suppress(APIError):  # it is used, or gone
                api.remove_volume(volume["Name"])


@contextlib.contextmanager
def never_run(api: docker.APIClient, image: str) -> Iterator[str]:
    """A container that is there for its files alone."""
    with _removed(api, f"{SCRATCH}{uuid.uuid4().hex}") as name:
        yield api.create_container(image, entrypoint=["none"], name=name)["Id"]


@contextlib.contextmanager
def ran(api: docker.APIClient, image: str, volume: str, command: Sequence[str], folder: IO[bytes]) -> Iterator[str]:
    """A container in which a command was run to its end, with the volume as /build, and `folder`, a tar, in that."""
    mounted = api.create_host_config(mounts=[docker.types.Mount("/build", volume)])
    with _removed(api, volume) as name:
        container: str = api.create_container(
            image, list(command[1:]), entrypoint=[command[0]], user="0", working_dir="/", name=name, host_config=mounted
        )["Id"]
        api.put_archive(container, "/build", folder)
        api.start(container)
        if code := api.wait(container)["StatusCode"]:
            said = api.logs(container, tail=TAIL).decode(errors="replace")
            raise StreamError("\n".join([*tail(said), f"a command returned a non-zero code: {code}"]))
        yield container


@contextlib.contextmanager
def _removed(api: docker.APIClient, container: str) -> Iterator[str]:
    """The name of a container that is gone afterwards, also when the engine made it and did not say so in time."""
    try:
        yield container
    finally:
        with contextlib.suppress(DockerException, RequestException):
            api.remove_container(container, v=True, force=True)


def tail(printed: str) -> list[str]:
    """The end of what commands printed, without what the engine says of its own steps."""
    said = (_COLOUR.sub("", line).strip() for line in printed.splitlines())
    return [line for line in said if line and not line.startswith(("Step ", "--->"))][-TAIL:]
