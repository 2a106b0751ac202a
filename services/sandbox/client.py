"""Child processes for all work on models: warm, killable, limited.

One template process per environment pays the imports once (`fork_server`); each job is a fork of it, so it starts
 in milliseconds and its memory goes back to the system when it ends. Giving up on a job (timeout, cancellation,
death of this process) closes its connection, and that ends the job with all it has started.
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
"""Run as a file: a project's environment has not all that this package imports."""
WARM_SECONDS = 60.0
"""Time a template may take to import its modules."""
EXTRA_TEMPLATES = 2
"""Templates kept beside the base one; the one used longest ago goes first."""
LINE_BYTES = 64 * 1024**2

log = structlog.get_logger()


class JobFailed(Permanent):
    """The job's code raised. `traceback` and `output` are ends of what it left behind."""

    def __init__(self, kind: str, message: str, traceback: str, output: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.traceback, self.output = kind, message, traceback, output


class JobKilled(Exception):
    """The job died of a signal that we did not send: worth one more attempt."""

    attempts = 2

    def __init__(self, code: int, output: str) -> None:
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        super().__init__(f"the process was ended by {end}" + (f"; its last words: {output[-500:]}" if output else ""))
        self.code, self.output = code, output


class JobTimedOut(Permanent):
    """The job took longer than it may and was ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it did not end within {seconds:g} seconds and was stopped")
        self.seconds = seconds


class Sandbox:
    """Runs jobs in forks of warm templates.

    Args:
        environments: which interpreter belongs to which environment.
        preload: modules a template imports before its first job.
    """

    def __init__(self, environments: Environments, preload: Sequence[str]) -> None:
        self.environments, self._preload = environments, tuple(preload)
        self._templates: dict[str, _Template] = {}
        self._starting: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def warm(self) -> None:
        """Start the base template now, so that the first job does not wait for it."""
        await self._template(self.environments.base)

    async def stay_warm(self) -> None:
        """The same, for as long as a worker lives."""
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
        """Call `job` ("module:function") with `(argument, progress)` in a fork and return its result.

        Args:
            environment: where the model's packages are.
            job: function of (argument: dict, progress: callable taking a dict) that returns a dict.
            argument: JSON; bigger things go through files.
            seconds: after which the job is ended.
            memory: bytes it may allocate, or no limit.
            progress: called with each dict the job reports.

        Raises:
            JobFailed: the code raised (MemoryError when it wanted too much).
            JobKilled: the process died of a signal.
            JobTimedOut: it took too long.
        """
        template = await self._template(environment)
        request = {"job": job, "argument": dict(argument), "memory": memory}
        try:
            async with asyncio.timeout(seconds):
                return await template.run(request, progress or _ignore)
        except TimeoutError:
            raise JobTimedOut(seconds) from None

    async def close(self) -> None:
        """End all templates; jobs under way end with their connections."""
        for template in self._templates.values():
            await template.close()
        self._templates.clear()

    async def _template(self, environment: Environment) -> "_Template":
        async with self._starting[environment.lock]:
            template = self._templates.pop(environment.lock, None)
            if template is None or not template.alive:
                python = await self.environments.python(environment)
                template = await _Template.start(python, self._preload)
            self._templates[environment.lock] = template  # last in order: used most recently
            await self._forget_oldest()
            return template

    async def _forget_oldest(self) -> None:
        extra = [lock for lock in self._templates if lock != self.environments.base.lock]
        for lock in extra[:-EXTRA_TEMPLATES]:
            await self._templates.pop(lock).close()


class _Template:
    """One warm process, and the socket that jobs' connections are handed over on."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket) -> None:
        self._process, self._control = process, control

    @classmethod
    async def start(cls, python: Path, preload: Sequence[str]) -> "_Template":
        control, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                str(python), "-P", str(FORK_SERVER),
                stdin=theirs.fileno(), stdout=asyncio.subprocess.PIPE, env=_environ(preload), cwd=ROOT,
            )  # fmt: skip
        template = cls(process, control)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(template.close)  # unless it gets warm
            assert process.stdout is not None
            async with asyncio.timeout(WARM_SECONDS):
                if not await process.stdout.readline():
                    raise JobKilled(await process.wait(), "the template could not import its modules")
            stack.pop_all()
        return template

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
    said: dict[str, Any] = {}
    while line := await reader.readline():
        message: dict[str, Any] = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        elif "exit" in message:
            return _conclude(said, message)
        else:
            said = message
    raise JobKilled(-9, "")


def _conclude(said: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
    output = str(end["output"]).strip()
    if "error" in said:
        raise JobFailed(said["error"], said["message"], said["traceback"], output)
    if "result" not in said:
        raise JobKilled(end["exit"], output)
    if output:
        log.info("output", text=output)
    result: dict[str, Any] = said["result"]
    return result


def _environ(preload: Sequence[str]) -> dict[str, str]:
    # Our code comes from this installation, packages from the environment's own.
    ours = {"PYTHONPATH": str(ROOT), "BENTOML_DO_NOT_TRACK": "True", "BELT_PRELOAD": " ".join(preload)}
    return {**os.environ, **ours}


def _ignore(_: Mapping[str, Any]) -> None:
    return None
