"""The check for leftovers catches them."""

import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tests import leaks

GRANDCHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=sys.stdin)"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(leaks.MARK, "")  # the session's own mark comes back afterwards
    return uuid.uuid4().hex


def test_a_process_that_is_left_fails_with_its_module(session: str, tmp_path: Path) -> None:
    def leave_one() -> None:
        with leaks.nothing_left(session, tmp_path, 0.1):
            leaks.mark(session, "test_x.py")
            left.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

    left: list[subprocess.Popen[bytes]] = []
    with pytest.raises(AssertionError, match=r"test_x\.py started"):
        leave_one()
    left[0].kill()
    left[0].wait()
    assert leaks.processes(session) == []


def test_a_grandchild_whose_parent_has_ended_is_found(session: str, tmp_path: Path) -> None:
    with leaks.nothing_left(session, tmp_path):
        parent = subprocess.Popen([sys.executable, "-c", GRANDCHILD], stdin=subprocess.PIPE)
        assert parent.wait(60) == 0
        [found] = leaks.processes(session)
        assert "a fixture of the session started" in found
        assert parent.stdin is not None
        parent.stdin.close()


def test_a_folder_that_is_left_fails(session: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="left-over"), leaks.nothing_left(session, tmp_path):
        tempfile.mkdtemp(prefix="left-over-")


def test_what_is_cleaned_up_passes(session: str, tmp_path: Path) -> None:
    with leaks.nothing_left(session, tmp_path), tempfile.TemporaryDirectory():
        subprocess.run([sys.executable, "-c", ""], check=True)
