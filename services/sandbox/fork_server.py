"""The warm process that jobs are forked from: modules in BELT_PRELOAD.

It imports the modules once and then does nothing but fork. Its standard input is a socket; each connection that is
handed over on it is one job: a line with `{"job": "module:function", "argument": {…}, "memory": bytes|null}` comes in,
lines with `progress`, then `result` or `error`, and at last `exit` go out. Between this process and the job stands a
sitter that does no work: it kills the job's whole process group when the other end of the connection is closed, and
reports how the job ended. When the worker that started it is gone, standard input is closed and so it ends.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

OUTPUT_TAIL = 8000
"""Characters of a job's own output, and of what it raised, that are reported."""


def main(modules: list[str]) -> None:
    """Fork a job for every connection that comes, until standard input is closed."""
    gc.disable()  # it would look through what is being imported again and again: a seventh of the time
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):  # not in this environment: a job that needs it will say so
            importlib.import_module(module)
    gc.freeze()  # a job that looked through all of this for garbage would copy it
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides what ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # sitters are reaped by the kernel
    with socket.socket(fileno=os.dup(0)) as control:
        print("warm", flush=True)
        while True:
            _, handed, _, _ = socket.recv_fds(control, 1, 1)
            if not handed:
                return
            connection = socket.socket(fileno=handed[0])
            if os.fork() == 0:
                control.close()
                _sit(connection)
            connection.close()


def _sit(connection: socket.socket) -> NoReturn:
    """Start the job and stay with it: end it when nobody waits for it any more, tell how it ended."""
    os.setsid()  # out of the worker's group: whoever kills that as a whole leaves one to end the job
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile("r").readline() or "null")
    if request is None:
        os._exit(0)
    output = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this process
    job = os.fork()
    if job == 0:
        _work(connection, request, output.fileno())
    ended = os.pidfd_open(job)
    ready, _, _ = select.select([ended, connection.fileno()], [], [])
    with contextlib.suppress(ProcessLookupError):
        if ended not in ready:
            os.kill(job, signal.SIGKILL)
    _, status = os.waitpid(job, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(job, signal.SIGKILL)  # what the job itself had started
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        _say(connection, exit=code, output=_tail(output.fileno()))
    os._exit(0)


def _work(connection: socket.socket, request: dict[str, Any], output: int) -> NoReturn:
    """Be the job: a process group of its own, its output kept apart, its memory limited."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    try:
        if request["memory"] is not None:
            _limit_memory(int(request["memory"]))
        result = _function(request["job"])(request["argument"], lambda step: _say(connection, progress=step))
        _say(connection, result=result)
        code = 0
    except BaseException as error:  # noqa: BLE001  # whatever the job raises is its outcome, SystemExit included
        told = {"message": str(error)[:OUTPUT_TAIL], "traceback": traceback.format_exc()[-OUTPUT_TAIL:]}
        _say(connection, error=type(error).__name__, **told)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _function(job: str) -> Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], dict[str, Any]]:
    module, name = job.split(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def _limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes beyond what it has inherited."""
    with open("/proc/self/statm") as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + extra, data + extra))


def _say(connection: socket.socket, **line: Any) -> None:
    connection.sendall(json.dumps(line, default=str).encode() + b"\n")


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, OUTPUT_TAIL, max(0, size - OUTPUT_TAIL)).decode(errors="replace")


if __name__ == "__main__":
    # Not arguments: a command line that names services.<room> is a worker's.
    main(os.environ["BELT_PRELOAD"].split())
