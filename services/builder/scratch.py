"""Containers in which images are made, and the volume that those of a runtime share."""

import contextlib
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from services.docker_errors import StreamError

SCRATCH = "bentobelt-making-"
"""How their names begin."""
ABANDONED_SECONDS = 3600.0
TAIL = 30
"""Lines of a failed build that are told."""
_COLOUR = re.compile(r"\x1b\[\d*m")


def new_name() -> str:
    """A name that nothing in the engine has."""
    return f"{SCRATCH}{uuid.uuid4().hex}"


def remove_making(api: docker.APIClient, name: str) -> None:
    """Remove containers whose names begin so, and the volume that is called so.

    Raises:
        APIError: the volume is still used.
    """
    for container in api.containers(all=True, filters={"name": name}):
        _remove(api, container["Id"])
    with contextlib.suppress(NotFound):
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
    name = new_name()
    try:
        yield api.create_container(image, entrypoint=["none"], name=name)["Id"]
    finally:
        _remove(api, name)  # also when the engine made it and did not say so in time


def start(
    api: docker.APIClient,
    image: str,
    name: str,
    command: Sequence[str],
    mount: docker.types.Mount,
    files: IO[bytes] | None = None,
) -> str:
    """Start a command as root, with `files`, a tar, unpacked at /; without any it has no network.

    Returns:
        The container's id.
    """
    container: str = api.create_container(
        image, list(command[1:]), entrypoint=[command[0]], user="0", working_dir="/", name=name,
        host_config=api.create_host_config(
            mounts=[mount], network_mode=None if files else "none",
            log_config=docker.types.LogConfig(type="json-file"),  # whatever the engine's own is: it has to be read
        ),
        healthcheck={"test": ["NONE"]},
    )["Id"]  # fmt: skip
    if files is not None:
        api.put_archive(container, "/", files)
    api.start(container)
    return container


def printed(api: docker.APIClient, container: str, seconds: float) -> Iterator[str]:
    """Lines that a container prints, as they come, for so long.

    Raises:
        StreamError: it still runs then.
    """
    stream = api.logs(container, stdout=True, stderr=False, stream=True, follow=True)
    late = threading.Event()

    def stop() -> None:
        late.set()
        stream.close()

    timer = threading.Timer(seconds, stop)  # the SDK itself waits for a line for ever
    timer.daemon = True
    timer.start()
    try:
        rest = b""
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
    finally:
        timer.cancel()
    if late.is_set():
        raise StreamError(f"it took longer than {seconds:g} s, three times BUILDER_SECONDS")


def ended(api: docker.APIClient, container: str) -> None:
    """Wait until its command has ended.

    Raises:
        StreamError: it failed; with what it printed.
    """
    if code := api.wait(container)["StatusCode"]:
        said = api.logs(container, tail=TAIL).decode(errors="replace")
        raise StreamError("\n".join([*tail(said), f"a command returned a non-zero code: {code}"]))


def _remove(api: docker.APIClient, container: str) -> None:
    with contextlib.suppress(DockerException, RequestException):  # the error that led here is the one to tell
        api.remove_container(container, v=True, force=True)


def tail(printed: str) -> list[str]:
    """The end of what commands printed."""
    said = (_COLOUR.sub("", line).strip() for line in printed.splitlines())
    return [line for line in said if line][-TAIL:]
