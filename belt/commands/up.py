"""`belt up`: the whole belt in one command, until Ctrl-C."""

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
from belt.local.home import Home, Occupied
from belt.local.stack import GRACE_SECONDS, LocalStack, NotStarted
from services.host import is_free, port_holder

Folder = Annotated[
    Path, typer.Option("--home", envvar="BENTOBELT_HOME", help="Folder for all state; made when it is missing.")
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the gateway on 127.0.0.1.")]
INTERRUPTED = 130


def up(home: Folder = output.HOME, port: Port = 8080) -> None:
    """Start bus, gateway and the six workers here and keep them running, until Ctrl-C.

    Prints the line `ready` on stdout when a push will be served. HOME/nats.url then says how to reach the bus; the
    other commands find it there. A second Ctrl-C ends everything at once.

    Examples:  belt up    belt up --home /srv/belt --port 9000
    """
    claimed = Home(home)
    try:
        claimed.claim()
        if ended := orphans.end(claimed.root, GRACE_SECONDS, last="nats-server"):
            output.info(f"ended {ended} processes left from a `belt up` on {claimed.root} that was killed")
        claimed.forget()
        _refuse_port_in_use(port)
        asyncio.run(_live(claimed, port))
    except (Occupied, NotStarted) as error:
        output.fail(str(error))
    except OSError as error:
        output.fail(f"{claimed.root}: {error.strerror or error}")


def _refuse_port_in_use(port: int) -> None:
    if not is_free(port):
        held = port_holder(port)
        output.fail(f"port {port} is in use{f' by {held}' if held else ''}: end that, or choose another with --port")


async def _live(home: Home, port: int) -> None:
    since, stop = time.monotonic(), _stop_signals(home)
    local = LocalStack(home, port, output.info)
    telling: asyncio.Task[None] | None = None
    try:
        if not await _unless(stop, local.start()):
            return
        output.info(
            f"belt is up after {time.monotonic() - since:.1f} s: gateway {local.gateway}, state in {home.root}."
        )
        output.info("Push a project with `belt push`; Ctrl-C stops everything.")
        with contextlib.suppress(BrokenPipeError):  # nobody reads it: no reason to end
            print("ready", flush=True)
        telling = asyncio.create_task(restart_status.report(local.live, port, output.info))
        await _unless(stop, local.watch())
    finally:
        if telling:
            telling.cancel()
        output.info("stopping")
        await local.stop()
        output.info("stopped")


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do `work` to its end (True), or until it is to stop (False)."""
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
