"""Commands that build images: each has a time limit, and ends together with the builder."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from services.docker_engine import DockerRefused, DockerTrouble
from services.host import without_passwords

TAIL = 30
"""Lines at the end of an output that a person gets to see."""
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


class CommandRunner:
    """Runs commands, each in a process group of its own. `close` ends the groups that run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._closed = False

    def run(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        purpose: str,
        *,
        seconds: float,
        limit: str,
        follow: Callable[[str], None] = lambda _: None,
    ) -> tuple[int, list[str]]:
        """Run a command to its end.

        Args:
            command: the program and its arguments.
            variables: environment variables that it gets besides those of this process.
            purpose: description for messages, such as "building r/digits:7".
            seconds: how long the command and all that it starts may run.
            limit: setting that decides on `seconds`, for messages.
            follow: called with each line of the output.

        Returns: exit code, and the lines of the output without colours and passwords.

        Raises:
            DockerRefused: the command does not start.
            DockerTrouble: it took too long, or the builder is being stopped.
        """
        process = _start(command, variables, purpose)
        self._running.add(process)
        if self._closed:
            _kill(process)
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            lines = _read(process, follow)
        finally:
            timer.cancel()
            self._running.discard(process)
        if self._closed:
            raise DockerTrouble(f"{purpose}: the builder is being stopped")
        if late.is_set():
            end = "\n".join(lines[-TAIL:])
            raise DockerTrouble(f"{purpose} took longer than {seconds:g} s, {limit}\n{end}")
        return process.returncode, lines

    def close(self) -> None:
        """End the commands that run. A later command ends at once."""
        self._closed = True
        for process in list(self._running):
            _kill(process)


def _start(command: Sequence[str], variables: Mapping[str, str], purpose: str) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            command, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DockerRefused(f"{purpose}: the {command[0]} command does not start: {error}") from error


def _read(process: "subprocess.Popen[str]", follow: Callable[[str], None]) -> list[str]:
    """Return all lines of the output once the process, and every other one that writes to it, has ended."""
    lines: list[str] = []
    assert process.stdout is not None, "it is a pipe"
    with process.stdout as output:
        for line in output:
            lines.append(without_passwords(_COLOUR.sub("", line.rstrip())))
            follow(lines[-1])
    process.wait()
    return lines


def _kill(process: "subprocess.Popen[str]") -> None:
    """End the process group: the docker command, say, and the Buildx process that it has started."""
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(process.pid, signal.SIGKILL)
