"""Check of what tests leave behind: processes, temporary folders, consumers, buckets whose keys stay for good."""

import gc
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from contracts import subjects
from services.messaging.connection import Bus
from tests.waiting import until

MARK = "BENTOBELT_TEST"
"""Environment variable that every process of a session inherits: `<session>:<module that started it>`."""
GRACE = 15.0
"""Seconds in which a process that was asked to end has to be gone."""
FOR_GOOD = {subjects.REGISTRY, subjects.PROJECTS, subjects.MONITOR}
"""Buckets whose keys have no time to live."""


@contextmanager
def nothing_left(session: str, folder: Path, grace: float = GRACE) -> Iterator[None]:
    """Fail when processes or temporary folders of the block are still there after it.

    Args:
        session: a text that no other session has in its mark.
        folder: where `tempfile` puts what it makes in this process meanwhile.
        grace: seconds to wait for processes that are ending.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    mark(session, "a fixture of the session")
    try:
        yield
    finally:
        tempfile.tempdir = before
        os.environ.pop(MARK, None)
    gc.collect()  # some folders are removed with the object that owns them
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == [], f"left in the folder for temporary files: {kept}"
    ended = False
    try:
        ended = until(lambda: not processes(session), grace)
    finally:
        running = [] if ended else processes(session)
        assert running == [], "processes are left: " + "; ".join(running)


def mark(session: str, module: str) -> None:
    """Let what is started from now on inherit the name of the test module."""
    os.environ[MARK] = f"{session}:{module}"


def processes(session: str) -> list[str]:
    """Return a line per living process of the session, with the module that started it. This one is not counted."""
    return [found for process in psutil.process_iter() if (found := _described(process, session))]


def _described(process: psutil.Process, session: str) -> str:
    try:
        marked = process.environ().get(MARK, "")
        if not marked.startswith(f"{session}:") or process.pid == os.getpid():
            return ""
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return f"{marked.partition(':')[2]} started {process.pid} {' '.join(process.cmdline())[:200]}"
    except (psutil.Error, OSError):  # it ended meanwhile, or is another user's
        return ""


async def left_on_the_bus(bus: Bus) -> list[str]:
    """Return the consumers that nobody will remove and the buckets whose keys should have a time to live."""
    found = []
    for stream in await bus.js.streams_info():
        name = stream.config.name or ""
        if name.startswith("KV_") and name.removeprefix("KV_") not in FOR_GOOD and not stream.config.max_age:
            found.append(f"the keys of bucket {name.removeprefix('KV_')} have no time to live")
        for consumer in await bus.js.consumers_info(name) if stream.state.consumer_count else []:
            if not consumer.config.durable_name and not consumer.config.inactive_threshold:
                found.append(f"consumer {consumer.name} of {name} stays when its reader is gone")
    return found
