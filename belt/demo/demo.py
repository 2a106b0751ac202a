"""`belt demo`: shows the whole loop on real data with the real commands, in a temporary home."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import typer
from rich.rule import Rule

from belt import connection, output
from belt.demo import progress_line
from belt.demo.traffic import CameraTraffic, DigitImage
from belt.output import Failed, Json
from contracts.events import DriftDetected
from services.host import free_port
from services.messaging import Bus
from services.timeline import Run, history, runs, wording

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "digits"
MODEL, TRAINED_ON = "digits", 1000
"""The first 1 000 images train the first version; the camera sends the other 797."""
BEFORE_ROWS, AFTER_ROWS = 400, 400
INTERRUPTED = 130
NEXT = """to go on with your own `belt up`, after `. .venv/bin/activate`:
  belt up
  belt push examples/digits --wait
  belt predict digits examples/digits/data/digits.parquet"""
ANSWERS_SECONDS, DRIFT_SECONDS, RETRAIN_SECONDS = 60.0, 90.0, 90.0


def demo(json: Json = False) -> None:
    """Show the whole loop on the 1 797 handwritten digits that ship with scikit-learn.

    Starts `belt up` in a temporary home, pushes examples/digits and sends traffic.
    Then it turns the camera upside down and waits until the drift is detected
    and a retrained version is judged and live. Takes about a minute.

    Example:  belt demo
    """
    try:
        asyncio.run(_demo(json))
    except KeyboardInterrupt:
        output.info("interrupted; everything is stopped")
        raise typer.Exit(INTERRUPTED) from None
    output.info(NEXT)


async def _demo(as_json: bool) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="belt-demo-") as folder:
        home, port = Path(folder) / "home", free_port()
        names, images = _split(Path(folder) / "first.parquet")
        heading("1. Start the bus, the gateway and six workers")
        async with belt_up(home, port):
            heading(f"2. Push {PROJECT.name}: train, judge, build, deploy")
            await belt(
                "push", str(PROJECT), "--data", str(Path(folder) / "first.parquet"), "--wait", "--home", str(home)
            )
            async with connection.bus(home, reconnect=True) as bus:
                traffic = CameraTraffic(f"http://127.0.0.1:{port}", MODEL, names, images)
                first, second = await _run_scenario(bus, home, traffic)
                found = runs.build_runs(await history.events(bus))
                _report(found, traffic, first, second, time.monotonic() - started, as_json)


async def _run_scenario(bus: Bus, home: Path, traffic: CameraTraffic) -> tuple[str, str]:
    """Send traffic before, during and after the drift; return the versions that answered at first and at the end."""
    async with running(traffic):
        heading("3. Send steady traffic; the labels arrive late")
        async with progress_line.show(traffic):
            await _until(lambda: len(traffic.answers) >= BEFORE_ROWS, f"{BEFORE_ROWS} answers", traffic)
        first = traffic.answers[0].version
        output.info(f"version {first} answers: accuracy {traffic.accuracy(version=first, upside_down=False)[0]:.3f}")
        heading("4. Turn the camera upside down")
        start = await history.next_sequence(bus, "EVENTS")
        traffic.upside_down = True
        async with progress_line.show(traffic):
            run = await _wait_for_drift(bus, traffic, start)
        heading("5. Retrain on old and new rows, compare with the live version, deploy under traffic")
        await asyncio.wait_for(belt("watch", run, "--home", str(home)), RETRAIN_SECONDS)
        ended = next(one for one in runs.build_runs(await history.events(bus)) if one.id == run)
        if ended.outcome != "deployed" or not ended.version:
            raise Failed(f"the retrained version was not deployed: {ended.outcome}, {ended.reason}")
        second = ended.version
        heading("6. Send more traffic to the new version")
        async with progress_line.show(traffic):
            await _until(
                lambda: traffic.accuracy(version=second, upside_down=True)[1] >= AFTER_ROWS,
                f"{AFTER_ROWS} answers by {second}",
                traffic,
            )
        return first, second


async def _wait_for_drift(bus: Bus, traffic: CameraTraffic, start: int) -> str:
    """Return the run that the monitor starts when it has detected the drift."""
    labels = traffic.labels
    try:
        async with asyncio.timeout(DRIFT_SECONDS):
            async for event, about in history.follow_events(bus, start):
                if isinstance(event, DriftDetected) and event.action == "retrain":
                    output.info(f"after {traffic.labels - labels} labels: {wording.describe(event)}")
                    return about.run
    except TimeoutError:
        pass
    raise Failed(f"the monitor detected no drift within {DRIFT_SECONDS:g} s ({traffic.labels - labels} labels)")


async def _until(is_done: Callable[[], bool], what: str, traffic: CameraTraffic) -> None:
    deadline = time.monotonic() + ANSWERS_SECONDS
    while not is_done():
        if time.monotonic() > deadline:
            failures = "; ".join(traffic.failures[-3:]) or "no request failed"
            raise Failed(f"there were no {what} within {ANSWERS_SECONDS:g} s ({failures})")
        await asyncio.sleep(0.1)


def _report(runs: list[Run], traffic: CameraTraffic, first: str, second: str, seconds: float, as_json: bool) -> None:
    """Print the events of both runs, the accuracies and the failures; fail when the new version is not better."""
    phases = {
        "before": traffic.accuracy(version=first, upside_down=False),
        "during": traffic.accuracy(version=first, upside_down=True),
        "after": traffic.accuracy(version=second, upside_down=True),
    }
    heading("Result")
    _timeline(runs)
    rows = [(phase, f"{share:.3f}", count) for phase, (share, count) in phases.items()]
    document = {
        "accuracy": {phase: share for phase, (share, _) in phases.items()},
        "answers": len(traffic.answers),
        "failed_requests": len(traffic.failures),
        "seconds": round(seconds, 1),
        "versions": [first, second],
    }
    output.result(as_json, document, output.table(("CAMERA", "ACCURACY", "ANSWERS"), rows, ""))
    output.info(f"{len(traffic.answers)} answers, {len(traffic.failures)} failed requests, {seconds:.0f} s in all")
    if traffic.failures:
        raise Failed(f"{len(traffic.failures)} requests failed, e.g. {traffic.failures[0]}")
    if phases["after"][0] <= phases["during"][0]:
        raise Failed("the retrained version is not better than the one before")


def _timeline(runs: list[Run]) -> None:
    start = runs[0].started
    rows = [
        (f"+{(event.time - start).total_seconds():.1f} s", number, event.subject, event.summary)
        for number, run in enumerate(runs, 1)
        for event in run.events
    ]
    output.stderr().print(output.table(("TIME", "RUN", "EVENT", "WHAT"), rows, ""))


def _split(target: Path) -> tuple[list[str], list[DigitImage]]:
    """Write the first images as training data; return the names of the pixels and the images of the camera."""
    import pandas as pd

    frame = pd.read_parquet(PROJECT / "data" / "digits.parquet")
    frame[:TRAINED_ON].to_parquet(target, index=False)
    names = [name for name in frame.columns if name != "digit"]
    seen = frame[TRAINED_ON:]
    images = [
        DigitImage(tuple(map(float, pixels)), int(digit))
        for pixels, digit in zip(seen[names].to_numpy(), seen["digit"], strict=True)
    ]
    return names, images


@asynccontextmanager
async def belt_up(home: Path, port: int) -> AsyncIterator[None]:
    """Run `belt up` while the block runs."""
    process = _start(home, port)
    try:
        assert process.stdout is not None
        if (await asyncio.to_thread(process.stdout.readline)).strip() != "ready":
            raise Failed(f"`belt up` did not get ready; it exited with {process.wait(10)}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):  # a second Ctrl-C ends it at once
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _start(home: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "belt.main", "up", "--home", str(home), "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


async def belt(*arguments: str) -> None:
    """Run a belt command as a person does; fail when its exit code is not 0."""
    output.info(f"$ belt {' '.join(arguments)}")
    command = [sys.executable, "-m", "belt.main", *arguments]
    # In a session of its own, so that Ctrl-C reaches only this process.
    process = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr, start_new_session=True)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
            output.stderr().show_cursor()  # a killed command leaves it hidden
    if code:
        raise Failed(f"`belt {arguments[0]}` exited with {code}")


@asynccontextmanager
async def running(traffic: CameraTraffic) -> AsyncIterator[None]:
    """Send traffic while the block runs."""
    task = asyncio.create_task(traffic.run())
    try:
        yield
    finally:
        traffic.stop()
        await asyncio.wait_for(task, 30)


def heading(title: str) -> None:
    """Print a heading above a step of the demo."""
    output.stderr().print(Rule(f"[bold]{title}", align="left"))
