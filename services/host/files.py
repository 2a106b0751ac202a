"""Files on this machine: written at once, locked between processes, and named by their digest."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(
    file: Path, text: str, *, mode: int = 0o644, owner: int | None = None, partial_in: Path | None = None
) -> None:
    """Write a file so that readers see the old content or the new content, never a part.

    Args:
        file: the file to write; its folder is made if it is missing.
        text: the content, written as UTF-8.
        mode: permissions of the file, before the umask.
        owner: user id that the file is given to; default: this process's user.
        partial_in: folder of the unfinished file, on the same disk; default: the file's own folder.
    """
    folder = partial_in or file.parent
    for needed in (file.parent, folder):
        needed.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{file.name}.{os.getpid()}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as unfinished:
        unfinished.write(text)
    if owner is not None:
        os.chown(partial, owner, -1)
    partial.replace(file)


@contextmanager
def locked(lock: Path) -> Iterator[None]:
    """Hold a lock file for as long as the block runs; wait while another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(lock: Path) -> IO[str] | None:
    """Lock a file until the returned object is closed or this process ends; None when another process holds it."""
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def sha256_of(file: Path) -> str:
    """Return the sha256 digest of a file's content, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
