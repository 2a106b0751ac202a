"""`belt demo`, as `make demo` runs it."""

import json
import subprocess
import sys

import psutil
import pytest


def ours() -> set[int]:
    """Pids of every process of a demo: they all know its home."""
    found = set()
    for process in psutil.process_iter():
        try:
            if "belt-demo-" in process.environ().get("BENTOBELT_UP", ""):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(300)
def test_the_whole_story_ends_well_and_leaves_nothing() -> None:
    before = ours()
    done = subprocess.run(
        [sys.executable, "-m", "belt.main", "demo", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["failed_requests"] == 0
    assert told["accuracy"]["before"] > 0.9
    assert told["accuracy"]["during"] < 0.6
    assert told["accuracy"]["after"] > 0.85
    assert len(set(told["versions"])) == 2
    assert ours() <= before
