"""Folders that travel, and the cache they are unpacked in."""

import errno
import io
import os
import resource
import tarfile
from pathlib import Path

import pytest

from services.storage.archives import BadArchive, pack_folder, seal_of, unpack, unpacked
from services.storage.artifact_store import CACHE_BYTES, _evict


def packed(folder: Path, to: Path) -> Path:
    to.write_bytes(pack_folder(folder))
    return to


def test_a_link_to_a_file_travels_as_the_file(home: Path) -> None:
    (home / "elsewhere.csv").write_text("1,2")
    (home / "project").mkdir()
    (home / "project" / "rows.csv").symlink_to(home / "elsewhere.csv")
    (home / "project" / "same.csv").hardlink_to(home / "elsewhere.csv")
    (home / "project" / "gone.csv").symlink_to(home / "nowhere")
    unpack(packed(home / "project", home / "archive"), home / "there")
    assert {file.name: file.read_text() for file in (home / "there").iterdir() if not file.is_symlink()} == {
        "rows.csv": "1,2",
        "same.csv": "1,2",
    }


def test_a_disk_without_room_is_not_the_archives_fault(home: Path) -> None:
    (home / "project").mkdir()
    (home / "project" / "rows.csv").write_bytes(os.urandom(100_000))
    archive = packed(home / "project", home / "archive")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OSError, match="large") as error:
            unpack(archive, home / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno == errno.EFBIG


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_archive_is_one(home: Path, mode: str, damage: str) -> None:
    raw, content = io.BytesIO(), " ".join(map(str, range(30_000))).encode()
    with tarfile.open(fileobj=raw, mode=mode) as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo("rows.csv")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    whole = raw.getvalue()
    middle = len(whole) // 2
    (home / "archive").write_bytes(
        whole[:middle] if damage == "cut" else whole[:middle] + bytes(64) + whole[middle + 64 :]
    )
    with pytest.raises(BadArchive, match="cannot be unpacked"):
        unpack(home / "archive", home / "there")


def test_the_cache_forgets_the_oldest_with_folder_and_seal(home: Path) -> None:
    (home / "project").mkdir()
    (home / "project" / "model.yaml").write_text("name: digits")
    archive = packed(home / "project", home / "archive")
    cache = home / "cache"
    cache.mkdir()
    for age in range(10):
        file = cache / f"{age}"
        unpacked(archive, folder := cache / f"{age}.d")
        file.touch()
        os.truncate(file, CACHE_BYTES // 4)
        for path in (file, seal_of(folder)):
            os.utime(path, (1000 - age, 1000 - age))
    _evict(cache)
    kept = [cache / f"{age}" for age in range(8)]
    assert sorted(cache.iterdir()) == sorted(
        path for file in kept for path in (file, Path(f"{file}.d"), Path(f"{file}.seal"))
    )
