"""Unpacking as a Python without tarfile's filters does it: before 3.11.4, such as Debian 12's."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.storage.archives import BadArchive, extract_plain, pack_folder


def archive(*members: tarfile.TarInfo) -> tarfile.TarFile:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    raw.seek(0)
    return tarfile.open(fileobj=raw)


def named(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "project" / "tests").mkdir(parents=True)
    (tmp_path / "project" / "model.yaml").write_text("name: digits")
    (tmp_path / "project" / "tests" / "test_it.py").write_text("")
    with tarfile.open(fileobj=io.BytesIO(pack_folder(tmp_path / "project"))) as tar:
        extract_plain(tar, tmp_path / "out")
    assert (tmp_path / "out" / "model.yaml").read_text() == "name: digits"
    assert (tmp_path / "out" / "tests" / "test_it.py").exists()


@pytest.mark.parametrize(
    "bad",
    [
        lambda: named("../evil"),
        lambda: named("a/../../evil"),
        lambda: named("/tmp/evil"),
        lambda: named("link", tarfile.SYMTYPE, ".."),
        lambda: named("link", tarfile.LNKTYPE, "/etc/passwd"),
        lambda: named("fifo", tarfile.FIFOTYPE),
    ],
)
def test_what_would_leave_the_folder_is_refused(tmp_path: Path, bad: Callable[[], tarfile.TarInfo]) -> None:
    with archive(named("good"), bad()) as tar, pytest.raises(BadArchive, match="outside"):
        extract_plain(tar, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["good"]


def test_nothing_comes_out_with_another_users_rights(tmp_path: Path) -> None:
    member = named("tool")
    member.mode = 0o4777
    with archive(member) as tar:
        extract_plain(tar, tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755
