"""Containers in which images are made, and the volume that those of a runtime share."""

import contextlib
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import IO, Protocol

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from services.docker_engine.errors import StreamError

SCRATCH = "bentobelt-making-"
"""How their names begin."""
ABANDONED_SECONDS = 3600.0
MAKING = 3
"""A command may take so many times what the engine may be silent: it fetches and compiles all packages of a runtime."""
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


def run(
    api: docker.APIClient,
    image: str,
    name: str,
    command: Sequence[str],
    mount: docker.types.Mount,
    *,
    seconds: float,
    files: IO[bytes] | None = None,
) -> Iterator[str]:
    """Run a command as root, with `files`, a tar, unpacked at /; without any it has no network. The container stays.

    Yields:
        Lines of its standard output as they come. It starts when the first is asked for.

    Raises:
        StreamError: it failed, or takes longer than MAKING times `seconds`; with the end of what it printed.
    """
    container: str = api.create_container(
        image, list(command[1:]), entrypoint=[command[0]], user="0", working_dir="/", name=name,
        host_config=api.create_host_config(
            mounts=[mount], network_mode=None if files else "none", log_config=docker.types.LogConfig(type="none"),
        ),
        healthcheck={"test": ["NONE"]},
    )["Id"]  # fmt: skip
    if files is not None:
        api.put_archive(container, "/", files)
    # Listened to, and not read from a log: where the disk is full, no log can say so.
    stream = api.attach(container, stream=True, demux=True)
    api.start(container)
    said: deque[str] = deque(maxlen=TAIL)
    yield from printed(stream, MAKING * seconds, said)
    if code := api.wait(container, timeout=seconds)["StatusCode"]:
        raise StreamError("\n".join([*said, f"a command returned a non-zero code: {code}"]))


class Stream(Protocol):
    """What a container prints: pieces of its standard output or error output, one of the two at a time."""

    def __iter__(self) -> Iterator[tuple[bytes | None, bytes | None]]: ...

    def close(self) -> None: ...


def printed(stream: Stream, seconds: float, said: deque[str]) -> Iterator[str]:
    """Lines of the standard output, as they come, for so long; `said` gets those of both outputs.

    Raises:
        StreamError: there may still be more then; with what was said.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        stream.close()

    timer = threading.Timer(seconds, stop)  # the SDK itself waits for a line for ever
    timer.daemon = True
    timer.start()
    rests = [b"", b""]
    try:
        for pieces in stream:
            for number, piece in enumerate(pieces):
                *lines, rests[number] = (rests[number] + (piece or b"")).split(b"\n")
                said.extend(_readable(lines))
                if number == 0:
                    yield from _readable(lines)
    finally:
        timer.cancel()
    said.extend(_readable(rests))
    if late.is_set():
        raise StreamError("\n".join([*said, f"it took longer than {seconds:g} s, {MAKING} times BUILDER_SECONDS"]))


def _remove(api: docker.APIClient, container: str) -> None:
    with contextlib.suppress(DockerException, RequestException):  # the error that led here is the one to tell
        api.remove_container(container, v=True, force=True)


def _readable(lines: Iterable[bytes]) -> list[str]:
    said = (_COLOUR.sub("", line.decode(errors="replace")).strip() for line in lines)
    return [line for line in said if line]
