"""Child processes for all work on models: quick to start, limited, and ended with all that they started.

One fork server per environment imports the modules once; each job is a fork of it. A job therefore starts in
milliseconds, and its memory returns to the system when it ends. When a job is given up (time limit, cancellation, end
of this process), its connection closes, and that ends the job with all the processes it has started.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from contracts.runtime import Environment
from services.messaging import Permanent
from services.sandbox.environments import Environments

ROOT = Path(__file__).resolve().parents[2]
FORK_SERVER = Path(__file__).with_name("fork_server.py")
"""Started as a file: a project's environment lacks packages that this package imports."""
START_SECONDS = 60.0
"""Time in which a fork server must have imported its modules."""
EXTRA_SERVERS = 2
"""Fork servers kept beside that of the base environment; the one that was used longest ago is closed first."""
LINE_BYTES = 64 * 1024**2
"""Largest message of a job."""

log = structlog.get_logger()


class JobFailed(Permanent):
    """The job's code raised. `traceback` and `output` are the last parts of what it wrote."""

    def __init__(self, kind: str, message: str, traceback: str, output: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.traceback, self.output = kind, message, traceback, output


class JobKilled(Exception):
    """The job ended by a signal that we did not send, or ended itself: it is tried once more."""

    attempts = 2

    def __init__(self, code: int, output: str) -> None:
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        super().__init__(f"the process was ended by {end}" + (f"; its last output: {output[-500:]}" if output else ""))
        self.code, self.output = code, output


class JobTimedOut(Permanent):
    """The job took longer than its time limit and was ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it did not end within {seconds:g} seconds and was stopped")
        self.seconds = seconds


class Sandbox:
    """Runs jobs in child processes, each in the environment of its model.

    Args:
        environments: finds or makes the interpreter of an environment.
        preload: modules that a fork server imports before its first job.
    """

    def __init__(self, environments: Environments, preload: Sequence[str]) -> None:
        self.environments, self._preload = environments, tuple(preload)
        self._servers: dict[str, _ForkServer] = {}
        self._starting: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def warm(self) -> None:
        """Start the base environment's fork server now, so that the first job does not wait for it."""
        await self._server(self.environments.base)

    async def stay_warm(self) -> None:
        """Start the base environment's fork server, then wait until cancelled: a background task of a worker."""
        await self.warm()
        await asyncio.Event().wait()

    async def run(
        self,
        environment: Environment,
        job: str,
        argument: Mapping[str, Any],
        *,
        seconds: float,
        memory: int | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Call `job` ("module:function") with `(argument, progress)` in a child process and return its result.

        Args:
            environment: environment with the model's packages.
            job: function of (argument: dict, progress: callable taking a dict) that returns a dict.
            argument: JSON; larger data goes through files.
            seconds: time limit of the job.
            memory: bytes that the job may allocate; None: no limit.
            progress: called with each dict that the job reports.

        Raises:
            JobFailed: the code raised (MemoryError when it needed more than `memory`).
            JobKilled: the process was ended by a signal, or ended itself.
            JobTimedOut: the job took longer than `seconds`.
        """
        server = await self._server(environment)
        request = {"job": job, "argument": dict(argument), "memory": memory}
        try:
            async with asyncio.timeout(seconds):
                return await server.run(request, progress or _ignore)
        except TimeoutError:
            raise JobTimedOut(seconds) from None

    async def close(self) -> None:
        """End all fork servers; running jobs end with their connections."""
        for server in self._servers.values():
            await server.close()
        self._servers.clear()

    async def _server(self, environment: Environment) -> "_ForkServer":
        async with self._starting[environment.lock]:
            server = self._servers.pop(environment.lock, None)
            if server is None or not server.alive:
                python = await self.environments.python(environment)
                server = await _ForkServer.start(python, self._preload)
            self._servers[environment.lock] = server  # last in order: used most recently
            await self._close_oldest()
            return server

    async def _close_oldest(self) -> None:
        extra = [lock for lock in self._servers if lock != self.environments.base.lock]
        for lock in extra[:-EXTRA_SERVERS]:
            await self._servers.pop(lock).close()


class _ForkServer:
    """A running fork server, and the socket on which it is handed the connection of each job."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process, self._control = process, control

    @classmethod
    async def start(cls, python: Path, preload: Sequence[str]) -> "_ForkServer":
        control, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                str(python), "-P", str(FORK_SERVER),
                stdin=theirs.fileno(), stdout=asyncio.subprocess.PIPE, env=_environ(preload), cwd=ROOT,
            )  # fmt: skip
        server = cls(process, control)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(server.close)  # unless it gets ready
            assert process.stdout is not None
            async with asyncio.timeout(START_SECONDS):
                if not await process.stdout.readline():
                    raise JobKilled(await process.wait(), "the fork server could not import its modules")
            stack.pop_all()
        return server

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def run(self, request: dict[str, Any], progress: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"j"], [theirs.fileno()])
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES)
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            return await _outcome(reader, progress)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        self._control.close()
        try:
            await asyncio.wait_for(self._process.wait(), 2)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _outcome(reader: asyncio.StreamReader, progress: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    outcome: dict[str, Any] = {}
    while line := await reader.readline():
        message: dict[str, Any] = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        elif "exit" in message:
            return _result(outcome, message)
        else:
            outcome = message
    raise JobKilled(-9, "")


def _result(outcome: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
    """The result in a job's last message but one; `end` holds its exit code and output."""
    output = str(end["output"]).strip()
    if "error" in outcome:
        raise JobFailed(outcome["error"], outcome["message"], outcome["traceback"], output)
    if "result" not in outcome:
        raise JobKilled(end["exit"], output)
    if output:
        log.info("output", text=output)
    result: dict[str, Any] = outcome["result"]
    return result


def _environ(preload: Sequence[str]) -> dict[str, str]:
    # Our code comes from this installation, packages from the environment's own.
    ours = {"PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True", "BELT_PRELOAD": " ".join(preload)}
    return {**os.environ, **ours}


def _ignore(_: Mapping[str, Any]) -> None:
    return None
