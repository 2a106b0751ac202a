"""`belt up`: runs the bus, the gateway and all workers until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from belt import output
from belt.local import orphans, restart_status
from belt.local.home import Home
from belt.local.stack import GRACE_SECONDS, LocalStack
from belt.output import Failed
from services.host import is_free, port_holder

Folder = Annotated[
    Path, typer.Option("--home", envvar="BENTOBELT_HOME", help="Folder for all state; created when it is missing.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the gateway on 127.0.0.1.")]
INTERRUPTED = 130


def up(home: Folder = output.HOME, port: Port = 8080) -> None:
    """Start the bus, the gateway and the six workers, and keep them running until Ctrl-C.

    Prints the line `ready` on stdout as soon as it accepts a push.
    The address of the bus is then in HOME/nats.url; the other commands read it there.
    A second Ctrl-C ends everything at once.

    Examples:  belt up    belt up --home /srv/belt --port 9000
    """
    claimed = Home(home)
    try:
        claimed.claim()
        if ended := orphans.end(claimed.root, GRACE_SECONDS, last="nats-server"):
            output.info(f"ended {ended} processes of a `belt up` on {claimed.root} that was killed")
        claimed.forget()
        if not is_free(port):
            holder = f" by {found}" if (found := port_holder(port)) else ""
            raise Failed(f"port {port} is in use{holder}: end it, or choose another port with --port")
        asyncio.run(_run(claimed, port))
    except OSError as error:
        reason = error.strerror or error
        raise Failed(f"cannot use {claimed.root}: {reason}; choose another folder with --home") from None


async def _run(home: Home, port: int) -> None:
    started, stop = time.monotonic(), _stop_signals(home)
    stack = LocalStack(home, port, output.info)
    report: asyncio.Task[None] | None = None
    try:
        if not await _until(stop, stack.start()):
            return
        seconds = time.monotonic() - started
        output.info(f"everything runs after {seconds:.1f} s: gateway {stack.gateway}, state in {home.root}")
        output.info("push a project with `belt push PROJECT`; Ctrl-C stops everything")
        with contextlib.suppress(BrokenPipeError):  # a closed stdout is no reason to end
            print("ready", flush=True)
        report = asyncio.create_task(restart_status.report(stack.live, port, output.info))
        await _until(stop, stack.watch())
    finally:
        if report:
            report.cancel()
        output.info("stopping")
        await stack.stop()
        output.info("stopped")


async def _until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Run `work` to its end and return True; cancel it and return False when `stop` is set."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return False
    working.result()
    return True


def _stop_signals(home: Home) -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def received() -> None:
        if stop.is_set():
            _kill(home)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, received)
    return stop


def _kill(home: Home) -> NoReturn:
    orphans.kill(home.root)
    home.forget()
    os._exit(INTERRUPTED)
