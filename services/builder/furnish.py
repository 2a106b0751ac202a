"""Runs inside the build of a runtime image, by the Python that will serve: trims, compiles and halves.

    python -I furnish.py

Only packages of our own lock are trimmed, and only of what was tried to be left out: tests, headers, static libraries;
without extra requirements (`/build/extra` is empty) also the parts of Arrow that speak to other machines.
Half of all is put into `/build/rest`, for a layer of its own: the engine compresses a layer with one core.
"""

import compileall
import py_compile
import shutil
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
EXTRA = Path("/build/extra")
REST = Path("/build/rest")
TESTED = ("numpy", "scipy", "sklearn", "pandas", "pyarrow", "joblib", "psutil", "tornado", "zmq")
TRIMMED = ("tests", "test", "include", "*.a", "*.h", "*.hpp", "*.c", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.tp")
KEPT = ("numpy/_core/tests/_natype.py",)
ARROW = (
    "*_flight.*", "*_s3.so*", "_s3fs.*", "_gcsfs.*", "_azurefs.*", "_hdfs.*", "src",
    "libarrow_python.so", "libarrow_python.so.*.*",
)  # fmt: skip


def main() -> None:
    """Make /opt/serving ready to be copied."""
    for package in TESTED:
        for pattern in TRIMMED:
            remove(SITE / package, f"**/{pattern}")
    if not EXTRA.read_text().strip():
        for pattern in ARROW:
            remove(SITE / "pyarrow", pattern)
    ok = compileall.compile_dir(
        SITE, quiet=1, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    print("compiled" if ok else "some files are no Python of this version and stay as they are")
    set_aside()


def remove(folder: Path, pattern: str) -> None:
    """Delete what matches, folders whole, but not what is KEPT."""
    kept = [SITE / name for name in KEPT]
    for path in sorted(folder.glob(pattern)):
        if any(path == one or path in one.parents for one in kept):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def set_aside() -> None:
    """Move half of what is installed, as counted in bytes, the biggest packages first to where there is less."""
    REST.mkdir()
    here = there = 0
    for size, path in sorted(((size_of(path), path) for path in SITE.iterdir()), reverse=True):
        if there < here:
            shutil.move(path, REST / path.name)
            there += size
        else:
            here += size


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.lstat().st_size for file in [path, *path.rglob("*")])


if __name__ == "__main__":
    main()
