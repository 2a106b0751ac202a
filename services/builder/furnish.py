"""Runs inside the build of a runtime image, by the Python that will serve: trims and compiles what was installed.

    python -I furnish.py

Only packages of our own lock are trimmed, and only of what was tried to be left out: tests, headers, static libraries;
without extra requirements (`/build/extra` is empty) also the parts of Arrow that speak to other machines.
What is in a layer below, as `/build/furnished` tells, is left alone: a file that is written again is in both.
"""

import compileall
import py_compile
import re
import shutil
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
EXTRA = Path("/build/extra")
FURNISHED = Path("/build/furnished")
TESTED = ("numpy", "scipy", "sklearn", "pandas", "pyarrow", "joblib", "psutil", "tornado", "zmq")
TRIMMED = ("tests", "test", "include", "*.a", "*.h", "*.hpp", "*.c", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.tp")
KEPT = ("numpy/_core/tests/_natype.py",)
ARROW = (
    "*_flight.*", "*_s3.so*", "_s3fs.*", "_gcsfs.*", "_azurefs.*", "_hdfs.*", "src",
    "libarrow_python.so", "libarrow_python.so.*.*",
)  # fmt: skip


def main() -> None:
    """Make what is new in /opt/serving ready to be served from."""
    before = FURNISHED.read_text().splitlines() if FURNISHED.exists() else []
    for package in set(TESTED) - set(before):
        for pattern in TRIMMED:
            remove(SITE / package, f"**/{pattern}")
    if not EXTRA.read_text().strip() and "pyarrow" not in before:
        for pattern in ARROW:
            remove(SITE / "pyarrow", pattern)
    there = re.compile(rf"^{re.escape(str(SITE))}/({'|'.join(map(re.escape, before))})(/|$)") if before else None
    ok = compileall.compile_dir(
        SITE, quiet=1, workers=0, rx=there, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    print("compiled" if ok else "some files are no Python of this version and stay as they are")
    FURNISHED.write_text("\n".join(path.name for path in SITE.iterdir()))


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
