"""The process that jobs are forked from. It imports the modules in BELT_PRELOAD once and then only forks.

Its standard input is a socket, on which it is handed one connection per job. On that connection it reads one line,
`{"job": "module:function", "argument": {…}, "memory": bytes|null}`; it writes lines with `progress`, then one with
`result` or `error`, and at last one with `exit`. Between this process and the job stands a supervisor process: it kills
the job's whole process group when the other end of the connection closes, and reports how the job ended. When the
worker ends, standard input closes, and the fork server ends too.
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
"""Characters of a job's output, and of its traceback, that are reported."""


def main(modules: list[str]) -> None:
    """Fork a job for every connection, until standard input is closed."""
    gc.disable()  # collections during imports take a seventh of the time
    for module in modules:
        with contextlib.suppress(ModuleNotFoundError):  # not in this environment: a job that needs it will raise
            importlib.import_module(module)
    gc.freeze()  # a collection in a job would copy these pages
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides what ends
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the supervisors
    with socket.socket(fileno=os.dup(0)) as control:
        print("warm", flush=True)
        while True:
            _, handed, _, _ = socket.recv_fds(control, 1, 1)
            if not handed:
                return
            connection = socket.socket(fileno=handed[0])
            if os.fork() == 0:
                control.close()
                _supervise(connection)
            connection.close()


def _supervise(connection: socket.socket) -> NoReturn:
    """Start the job and wait: end it when the connection closes, report how it ended."""
    os.setsid()  # in a group of its own: it must survive a kill of the worker's group, to end the job
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
        os.killpg(job, signal.SIGKILL)  # processes that the job itself started
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        _send(connection, exit=code, output=_tail(output.fileno()))
    os._exit(0)


def _work(connection: socket.socket, request: dict[str, Any], output: int) -> NoReturn:
    """Run the job: in a process group of its own, with its output in a file and its memory limited."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, target)
    try:
        if request["memory"] is not None:
            _limit_memory(int(request["memory"]))
        result = _function(request["job"])(request["argument"], lambda step: _send(connection, progress=step))
        _send(connection, result=result)
        code = 0
    except BaseException as error:  # noqa: BLE001  # whatever the job raises is its outcome, SystemExit included
        details = {"message": str(error)[:OUTPUT_TAIL], "traceback": traceback.format_exc()[-OUTPUT_TAIL:]}
        _send(connection, error=type(error).__name__, **details)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _function(job: str) -> Callable[[dict[str, Any], Callable[[dict[str, Any]], None]], dict[str, Any]]:
    module, name = job.split(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return function


def _limit_memory(extra: int) -> None:
    """Let this process allocate `extra` bytes beyond the memory that it inherited."""
    with open("/proc/self/statm") as file:
        data = int(file.read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + extra, data + extra))


def _send(connection: socket.socket, **line: Any) -> None:
    connection.sendall(json.dumps(line, default=str).encode() + b"\n")


def _tail(output: int) -> str:
    size = os.fstat(output).st_size
    return os.pread(output, OUTPUT_TAIL, max(0, size - OUTPUT_TAIL)).decode(errors="replace")


if __name__ == "__main__":
    # Not arguments: a command line that names services.<worker> is a worker's.
    main(os.environ["BELT_PRELOAD"].split())
