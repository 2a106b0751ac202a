"""Runs inside the build of a runtime image, by the Python that will serve: trims and compiles.

    python -I furnish.py

Only packages of our own lock are trimmed, and only of what was tried to be left out: tests, headers, static libraries;
without extra requirements (`/build/extra` is empty) also the parts of Arrow that speak to other machines.
"""

import compileall
import py_compile
import shutil
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
EXTRA = Path("/build/extra")
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


if __name__ == "__main__":
    main()
