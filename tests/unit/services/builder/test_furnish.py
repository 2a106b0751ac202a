"""What of an installed package goes into a runtime image."""

import ctypes
import importlib.util
import shutil
import struct
from pathlib import Path

import pytest

from services.builder import furnish


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library with symbols for debuggers, as its wheel brings it."""
    found = importlib.util.find_spec("yaml._yaml")
    assert found is not None
    assert found.origin is not None
    return Path(shutil.copy(found.origin, tmp_path))


def test_a_library_without_its_symbols_is_smaller_and_is_loaded(library: Path) -> None:
    before = library.read_bytes()
    furnish.strip(library)
    after = library.read_bytes()
    assert len(after) < 0.8 * len(before)
    assert after[64:] == before[64 : len(after)], "what is loaded is what it was"
    assert ctypes.PyDLL(str(library)).PyInit__yaml
    furnish.strip(library)
    assert library.read_bytes() == after


def elf(kind: bytes = b"\x02\x01", start: int = 64, segments: tuple[tuple[int, int], ...] = ()) -> bytes:
    """A file of 200 bytes with the header of a library, and where its segments say that they are."""
    header = struct.pack("<4s2s26xQQ6xHHHHH", b"\x7fELF", kind, start, 1, 56, len(segments), 64, 1, 0)
    table = b"".join(struct.pack("<8xQ16xQ16x", offset, length) for offset, length in segments)
    return (header + table).ljust(200, b"x")


def test_what_is_behind_the_last_segment_goes(tmp_path: Path) -> None:
    file = tmp_path / "x.so"
    file.write_bytes(elf(segments=((0, 150),)))
    furnish.strip(file)
    assert len(file.read_bytes()) == 150


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"INPUT(libx.so.1)\n",  # a linker's script
        elf()[:40],
        elf(b"\x01\x01", segments=((0, 150),)),  # 32 bits
        elf(b"\x02\x02", segments=((0, 150),)),  # big-endian
        elf(),  # an object file: nothing is loaded
        elf(segments=((0, 1000),)),  # cut short
    ],
)
def test_what_is_no_library_of_this_kind_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.so"
    file.write_bytes(content)
    furnish.strip(file)
    assert file.read_bytes() == content
