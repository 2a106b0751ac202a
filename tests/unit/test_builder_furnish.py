"""What of an installed package goes into a runtime image."""

import ctypes
import importlib.util
import shutil
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


@pytest.mark.parametrize(
    "content", [b"", b"INPUT(libx.so.1)\n", b"\x7fELF\x01\x01" + bytes(100), b"\x7fELF\x02\x02" * 20]
)
def test_what_is_no_library_of_this_kind_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    """A linker's script, another width, another order of bytes."""
    file = tmp_path / "x.so"
    file.write_bytes(content)
    furnish.strip(file)
    assert file.read_bytes() == content


def test_what_is_kept_of_a_folder_is_all_that_stays(tmp_path: Path) -> None:
    for name in ("numpy/tests/kept.py", "numpy/tests/other.py", "numpy/tests/data/x", "numpy/ma/tests/y", "numpy/z.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    furnish.remove(tmp_path / "numpy", "**/tests", [tmp_path / "numpy/tests/kept.py"])
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/*") if path.is_file())
    assert left == ["numpy/tests/kept.py", "numpy/z.py"]
