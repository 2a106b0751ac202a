import asyncio
import time
from io import StringIO
from pathlib import Path

import psutil
from rich.console import Console

from belt.demo import demo, progress_line
from belt.demo.traffic import CameraAnswer, CameraTraffic


def traffic(answers: int, labels: int) -> CameraTraffic:
    """Traffic where every second one of the last 200 answers is right, and all before."""
    told = [CameraAnswer(0.0, "7-aaaaaaaa", n < answers - 200 or n % 2 == 0, False) for n in range(answers)]
    return CameraTraffic("http://127.0.0.1:1", "digits", ["x"], [], answers=told, labels=labels)


def test_the_line_says_answers_failures_recent_accuracy_and_labels() -> None:
    assert progress_line.line(traffic(1240, 480)) == "1 240 answers · 0 failed · accuracy 0.50 (last 200) · 480 labels"
    assert progress_line.line(traffic(0, 0)) == "0 answers · 0 failed · no accuracy yet · 0 labels"


async def test_on_a_terminal_it_is_there_while_the_traffic_goes_and_gone_afterwards() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100, _environ={})
    written = console.file
    assert isinstance(written, StringIO)
    deadline = time.monotonic() + 10
    async with progress_line.show(traffic(1240, 480), console):
        while "1 240 answers" not in written.getvalue() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
    assert "1 240 answers" in written.getvalue()
    assert written.getvalue().endswith("\x1b[2K")


async def test_an_interrupted_step_of_the_demo_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    before = set(children())
    step = asyncio.create_task(demo.belt("doctor", "--home", str(home)))
    deadline = time.monotonic() + 10
    while not set(children()) - before and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert set(children()) - before
    step.cancel()
    await asyncio.wait([step], timeout=10)
    assert step.cancelled()
    assert set(children()) <= before


def children() -> list[int]:
    """Processes that this one started and that are not gone."""
    return [process.pid for process in psutil.Process().children()]
