"""`belt doctor`: checks this machine and the `belt up` on it, with advice for each problem."""

import asyncio
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

import typer

from belt import connection, output
from belt.local import orphans
from belt.local.home import Home
from belt.local.stack import BIN, BUS, GATEWAY, ROOT, status
from contracts import subjects
from contracts.subjects import WORKERS
from services.host import is_free, port_holder

GIB = 1024**3
LOW_DISK = 2 * GIB
LOCK = ROOT / "requirements" / "serving.txt"
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+) \\$", re.MULTILINE)
"""A pin without an environment marker: the package has to be there on every platform."""
MARKS = {"ok": "✓", "note": "·", "problem": "✗"}
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the gateway of `belt up`.")]


@dataclass(frozen=True)
class CheckResult:
    """Result of one check. A `note` needs no action; `todo` is the advice for a `problem`."""

    what: str
    state: Literal["ok", "note", "problem"]
    found: str
    todo: str = ""


def doctor(home: output.Home = output.HOME, port: Port = 8080, as_json: output.Json = False) -> None:
    """Check this machine and its `belt up`, and say what to do about each problem.

    Exits with 1 when there is a problem.

    Examples:  belt doctor    belt doctor --json
    """
    findings = asyncio.run(_check(Home(home), port))
    rows = [(MARKS[finding.state], finding.what, finding.found, finding.todo) for finding in findings]
    table = output.table(("", "WHAT", "FOUND", "WHAT TO DO"), rows, "")
    output.result(as_json, [asdict(finding) for finding in findings], table)
    raise typer.Exit(any(finding.state == "problem" for finding in findings))


async def _check(home: Home, port: int) -> list[CheckResult]:
    findings = [*machine(home), *[finding async for finding in belt_up(home, port)]]
    if os.environ.get("NATS_URL") or home.nats_url.exists():
        findings += await bus(home)
    return findings


def check(what: str, is_good: bool, found: str, todo: str) -> CheckResult:
    """Return the result of a check; the advice is left out when all is good."""
    return CheckResult(what, "ok", found) if is_good else CheckResult(what, "problem", found, todo)


# -- this machine --------------------------------------------------------------------------------------------


def machine(home: Home) -> Iterator[CheckResult]:
    """Check Python, the binaries, the packages that models are trained and served with, the home and its disk."""
    python = f"{platform.python_version()} at {sys.executable}"
    yield check("python", sys.version_info >= (3, 11), python, "make setup PYTHON=<a Python of 3.11 or newer>")
    yield binary("nats-server", "-v")
    yield binary("traefik", "version")
    yield environment(LOCK.read_text())
    existing = next(folder for folder in (home.root, *home.root.parents) if folder.exists())
    able = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    yield check("home", able, str(home.root), f"{existing} is not writable: choose another folder with --home")
    free = shutil.disk_usage(existing).free
    yield check("disk", free > LOW_DISK, f"{free / GIB:.1f} GiB free", f"free some space on the disk of {existing}")


def binary(name: str, version_flag: str) -> CheckResult:
    """Check a binary that is installed from a wheel."""
    try:
        printed = subprocess.run(
            [BIN / name, version_flag], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return CheckResult(name, "problem", str(error), "make setup")
    number = re.search(r"\d+\.\d+\.\d+", printed)
    return CheckResult(name, "ok", number[0] if number else printed.strip())


def environment(lock: str) -> CheckResult:
    """Check that the packages that models are trained and served with have the versions of the lock."""
    pins = PIN.findall(lock)
    wrong = [f"{name} {have or 'missing'}, locked {pin}" for name, pin in pins if (have := _installed(name)) != pin]
    found = "; ".join(wrong[:5]) or f"{len(pins)} packages as locked, scikit-learn {_installed('scikit-learn')}"
    return check("packages", not wrong, found, "make setup")


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# -- belt up -------------------------------------------------------------------------------------------------


async def belt_up(home: Home, port: int) -> AsyncIterator[CheckResult]:
    """Check the `belt up` on this home, its workers and its gateway; without one, check that it could start."""
    running = home.running() if home.is_claimed() else None
    if running is None:
        yield CheckResult("belt up", "note", f"not running on {home.root}", "belt up")
        left = orphans.find(home.root)
        if left:
            yield CheckResult(
                "leftovers", "note", f"{len(left)} processes of a `belt up` that was killed", "belt up ends them"
            )
        held = "" if is_free(port) else port_holder(port) or "in use"
        ours = held.startswith(tuple(f"pid {process.pid}:" for process in left))
        yield check("port", ours or not held, f"{port}: {held or 'free'}", "belt up --port <another>")
        return
    since = output.local_time(running.since)
    yield CheckResult("belt up", "ok", f"pid {running.pid}, since {since}, gateway {running.gateway}")
    for name in (GATEWAY, *WORKERS):
        process = running.processes.get(name)
        answer = await status(process.port, "/ping" if name == GATEWAY else "/health") if process else None
        found = f"answers {answer}" if answer else "does not answer"
        yield check(name, answer == 200, found, f"read {home.log(name)}; belt up restarts a process that ended")


async def bus(home: Home) -> list[CheckResult]:
    """Check that the bus answers and has all streams, and count the dead letters."""
    try:
        async with connection.bus(home.root) as bus:
            where = connection.without_credentials(connection.nats_url(home.root))
            messages = {stream.config.name: stream.state.messages for stream in await bus.js.streams_info()}
    except output.Failed as error:
        return [CheckResult(BUS, "problem", str(error), "start `belt up`, or set NATS_URL")]
    missing = [stream for stream in subjects.STREAMS if stream not in messages]
    found = f"missing: {', '.join(missing)}" if missing else f"all {len(subjects.STREAMS)} exist"
    dead = messages.get("DLQ", 0)
    return [
        CheckResult(BUS, "ok", where),
        check("streams", not missing, found, "python -m services.messaging.streams"),
        CheckResult("dead letters", "note" if dead else "ok", str(dead), "belt logs" if dead else ""),
    ]
