"""Files of this machine: never half written, locked between processes, named by their digest."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.host import locked, sha256_of, try_lock, write_atomically

HOLD = """
import sys
from pathlib import Path
from services.host import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "settings.json"
    write_atomically(file, "one")
    write_atomically(file, "zwei: ü")
    assert file.read_text("utf-8") == "zwei: ü"
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "old"


def test_a_private_file_is_never_readable_for_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "nats.url", "secret", mode=0o600, owner=os.geteuid())
    assert (tmp_path / "nats.url").stat().st_mode & 0o777 == 0o600


def test_the_unfinished_file_may_lie_elsewhere(tmp_path: Path) -> None:
    write_atomically(tmp_path / "routes" / "a.yml", "{}", partial_in=tmp_path / "partial")
    assert [file.name for file in (tmp_path / "routes").iterdir()] == ["a.yml"]
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_lock_is_held_against_other_processes(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert try_lock(lock) is None
        other.communicate()
    mine = try_lock(lock)
    assert mine is not None
    mine.close()
    with locked(lock):
        assert try_lock(lock) is None


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
