"""`belt demo`: the whole story on real data, with the real commands, on a home of its own that is gone afterwards."""

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
"""Images 1 to 1 000 train the first version; the camera sees the other 797, which no version was trained on."""
BEFORE_ROWS, AFTER_ROWS = 400, 400
INTERRUPTED = 130
NEXT = """go on with a belt of your own, after `. .venv/bin/activate`:
  belt up
  belt push examples/digits --wait
  belt predict digits examples/digits/data/digits.parquet"""
DRIFT_SECONDS, RETRAIN_SECONDS = 90.0, 90.0


def demo(json: Json = False) -> None:
    """Show the whole loop on the 1 797 handwritten digits that ship with scikit-learn.

    Starts a belt of its own, pushes examples/digits, answers traffic, turns the camera upside down, and waits until
    the belt has noticed, retrained, judged and rolled out by itself. Takes about a minute; leaves nothing behind.

    Example:  belt demo
    """
    try:
        connection.run(_demo(json))
    except KeyboardInterrupt:
        output.info("interrupted; everything is stopped")
        raise typer.Exit(INTERRUPTED) from None
    output.info(NEXT)


async def _demo(as_json: bool) -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="belt-demo-") as folder:
        home, port = Path(folder) / "home", free_port()
        names, images = _split(Path(folder) / "first.parquet")
        chapter("1. The belt: bus, gateway and six workers")
        async with belt_up(home, port):
            chapter(f"2. Push {PROJECT.name}: train, judge, build, roll out")
            await belt(
                "push", str(PROJECT), "--data", str(Path(folder) / "first.parquet"), "--wait", "--home", str(home)
            )
            async with connection.bus(home, patient=True) as bus:
                traffic = CameraTraffic(f"http://127.0.0.1:{port}", MODEL, names, images)
                first, second = await _live_through(bus, home, traffic)
                stories = runs.stories(await history.events(bus))
                _report(stories, traffic, first, second, time.monotonic() - started, as_json)


async def _live_through(bus: Bus, home: Path, traffic: CameraTraffic) -> tuple[str, str]:
    """Traffic before, during and after the drift; returns the two versions that answered it."""
    async with running(traffic):
        chapter("3. Steady traffic; labels arrive late")
        async with progress_line.telling(traffic):
            await _answered(traffic, BEFORE_ROWS, 60)
        first = traffic.answers[0].version
        output.info(f"first answer by {first}: accuracy {traffic.accuracy(version=first, upside_down=False)[0]:.3f}")
        chapter("4. The camera is mounted upside down")
        since = await history.next_sequence(bus, "EVENTS")
        traffic.upside_down = True
        async with progress_line.telling(traffic):
            run = await _drift(bus, traffic, since)
        chapter("5. Retrain on old and new rows, compare with the champion, roll out under traffic")
        await asyncio.wait_for(belt("watch", run, "--home", str(home)), RETRAIN_SECONDS)
        told = _find(runs.stories(await history.events(bus)), run)
        if told.outcome != "deployed" or not told.version:
            raise Failed(f"the retrained version was not deployed but {told.outcome}: {told.why}")
        chapter("6. Traffic goes on")
        async with progress_line.telling(traffic):
            await _answered_by(traffic, told.version, AFTER_ROWS, 60)
        return first, told.version


async def _drift(bus: Bus, traffic: CameraTraffic, since: int) -> str:
    """The run that the monitor starts when it has seen enough."""
    labels = traffic.labels
    try:
        async with asyncio.timeout(DRIFT_SECONDS):
            async for event, about in history.follow_events(bus, since):
                if isinstance(event, DriftDetected) and event.action == "retrain":
                    output.info(f"after {traffic.labels - labels} labels: {wording.says(event)}")
                    return about.run
    except TimeoutError:
        pass
    raise Failed(f"the monitor did not notice the loss within {DRIFT_SECONDS:g} s ({traffic.labels - labels} labels)")


async def _answered(traffic: CameraTraffic, count: int, seconds: float) -> None:
    await _until(lambda: len(traffic.answers) >= count, seconds, f"{count} answers", traffic)


async def _answered_by(traffic: CameraTraffic, version: str, count: int, seconds: float) -> None:
    def enough() -> bool:
        return traffic.accuracy(version=version, upside_down=True)[1] >= count

    await _until(enough, seconds, f"{count} answers by {version}", traffic)


async def _until(enough: Callable[[], bool], seconds: float, what: str, traffic: CameraTraffic) -> None:
    deadline = time.monotonic() + seconds
    while not enough():
        if time.monotonic() > deadline:
            lately = "; ".join(traffic.failures[-3:]) or "no request failed"
            raise Failed(f"no {what} within {seconds:g} s ({lately})")
        await asyncio.sleep(0.1)


def _report(runs: list[Run], traffic: CameraTraffic, first: str, second: str, seconds: float, as_json: bool) -> None:
    """The timeline of both runs, the accuracies and the failures; fails when the story did not end well."""
    phases = {
        "before": traffic.accuracy(version=first, upside_down=False),
        "during": traffic.accuracy(version=first, upside_down=True),
        "after": traffic.accuracy(version=second, upside_down=True),
    }
    chapter("The story")
    _timeline(runs)
    rows = [(phase, f"{share:.3f}", count) for phase, (share, count) in phases.items()]
    document = {
        "accuracy": {phase: share for phase, (share, _) in phases.items()},
        "answers": len(traffic.answers),
        "failed_requests": len(traffic.failures),
        "seconds": round(seconds, 1),
        "versions": [first, second],
    }
    output.result(as_json, document, output.table(("camera", "accuracy", "answers"), rows, ""))
    output.info(f"{len(traffic.answers)} answers, {len(traffic.failures)} failed requests, {seconds:.0f} s in all")
    if traffic.failures:
        raise Failed(f"{len(traffic.failures)} requests failed, e.g. {traffic.failures[0]}")
    if phases["after"][0] <= phases["during"][0]:
        raise Failed("the retrained version is no better than the one it replaced")


def _timeline(runs: list[Run]) -> None:
    start = runs[0].started
    rows = [
        (f"+{(moment.time - start).total_seconds():.1f} s", number, moment.subject, moment.says)
        for number, run in enumerate(runs, 1)
        for moment in run.moments
    ]
    output.stderr().print(output.table(("time", "run", "event", "what"), rows, ""))


def _split(target: Path) -> tuple[list[str], list[DigitImage]]:
    """Write the first images as training data; the others are what the camera will see."""
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
    """A whole belt until the block is left; Ctrl-C reaches it through us."""
    process = _start(home, port)
    try:
        assert process.stdout is not None
        if (await asyncio.to_thread(process.stdout.readline)).strip() != "ready":
            raise Failed(f"`belt up` did not get ready; it exited with {process.wait(10)}")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        _ended(process)


def _start(home: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "belt.main", "up", "--home", str(home), "--port", str(port)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def _ended(process: "subprocess.Popen[str]") -> None:
    """Wait until a stopped belt is gone, also when Ctrl-C is pressed again meanwhile: then at once."""
    try:
        process.wait(30)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def belt(*arguments: str) -> None:
    """Run a belt command as a person would.

    Raises:
        Failed: it did not exit with 0.
    """
    output.info(f"$ belt {' '.join(arguments)}")
    command = [sys.executable, "-m", "belt.main", *arguments]
    # In a session of its own: a Ctrl-C is ours to answer, once.
    process = await asyncio.create_subprocess_exec(*command, stdout=sys.stderr, start_new_session=True)
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
            output.stderr().show_cursor()  # it had no time to do so itself
    if code:
        raise Failed(f"`belt {arguments[0]}` exited with {code}")


@asynccontextmanager
async def running(traffic: CameraTraffic) -> AsyncIterator[None]:
    """Traffic for as long as the block lasts."""
    task = asyncio.create_task(traffic.run())
    try:
        yield
    finally:
        traffic.stop()
        await asyncio.wait_for(task, 30)


def chapter(title: str) -> None:
    """A heading, so that a reader sees where the story is."""
    output.stderr().print(Rule(f"[bold]{title}", align="left"))


def _find(runs: list[Run], id: str) -> Run:
    return next(run for run in runs if run.id == id)
