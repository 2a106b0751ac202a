"""Runs inside the build of a runtime image, by the Python that will serve: trims and compiles what was installed.

    python -I furnish.py <part>

Only packages of our own lock are trimmed, and only of what was tried to be left out: tests, headers, static libraries,
symbols for debuggers; without extra requirements (`/build/extra` is empty) also the parts of Arrow that speak to other
machines.
What came with the parts before is left alone. What is new is listed, for runtime.sh to put into a layer.
"""

import compileall
import os
import py_compile
import re
import shutil
import struct
import sys
import sysconfig
from pathlib import Path

ROOT = Path("/opt/serving")
SITE = Path(sysconfig.get_path("purelib"))
EXTRA = Path("/build/extra")
NEW = ROOT / ".new"
"""A list per part of what came with it; uv's cache is here, too."""
TESTED = ("numpy", "scipy", "sklearn", "pandas", "pyarrow", "joblib", "psutil", "tornado", "zmq")
TRIMMED = ("tests", "test", "include", "*.a", "*.h", "*.hpp", "*.c", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.tp")
STRIPPED = (*TESTED, "aiohttp", "frozenlist", "httptools", "multidict", "propcache", "uvloop", "watchfiles", "yaml")
ARROW = (
    "*_flight.*", "*_s3.so*", "_s3fs.*", "_gcsfs.*", "_azurefs.*", "_hdfs.*", "src",
    "libarrow_python.so", "libarrow_python.so.*.*",
)  # fmt: skip
UNUSED = (
    "circus", "tornado", "zmq", "pynvml.py", "pyparsing",  # for BentoML's supervisor, which no container of ours runs
    "bentoml_cli", "fsspec/tests", "narwhals/_dask", "narwhals/_duckdb", "narwhals/_ibis", "narwhals/_polars",
    "narwhals/_spark_like", "narwhals/_sql", "numpy/distutils", "numpy/f2py", "pandas/plotting/_matplotlib",
    "pydantic/v1", "pygments/styles", "rich_toolkit", "scipy/signal",
)  # fmt: skip
LANGUAGES = r"pygments/lexers/(?!__init__|_mapping|python)"  # rich knows of more than a server prints
"""Not compiled, unless a project has requirements of its own: what no server imports, nor scikit-learn while what
`serving/postponed.py` names waits.
"""


def main(part: str) -> None:
    """Make what is new in /opt/serving ready to be served from, and list it."""
    before = {name for listed in NEW.iterdir() if listed.is_file() for name in listed.read_text().split("\0")}
    within = f"{SITE.relative_to(ROOT)}/"
    packages = {name.removeprefix(within).partition("/")[0] for name in before if name.startswith(within)}
    for package in set(TESTED) - packages:
        for pattern in TRIMMED:
            remove(SITE / package, f"**/{pattern}")
    if not EXTRA.read_text().strip() and "pyarrow" not in packages:
        for pattern in ARROW:
            remove(SITE / "pyarrow", pattern)
    for package in set(STRIPPED) - packages:
        for library in (SITE / package).glob("**/*.so*"):
            if not library.is_symlink():
                strip(library)
    unused = () if EXTRA.read_text().strip() else UNUSED
    skipped = "|".join([LANGUAGES, *(rf"{re.escape(name)}(/|$)" for name in (*unused, *packages))])
    ok = compileall.compile_dir(
        SITE,
        quiet=1,
        workers=0,
        rx=re.compile(rf"^{re.escape(str(SITE))}/({skipped})"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    print("compiled" if ok else "some files are no Python of this version and stay as they are")
    (NEW / part).write_text("\0".join(sorted(files() - before)))


def files() -> set[str]:
    """Everything in /opt/serving that is no folder, links to folders included."""
    found: set[str] = set()
    for folder, folders, names in os.walk(ROOT):
        if Path(folder) == ROOT:
            folders.remove(NEW.name)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found.update(os.path.relpath(os.path.join(folder, name), ROOT) for name in [*names, *links])
    return found


def remove(folder: Path, pattern: str) -> None:
    """Delete what matches, folders whole."""
    for path in sorted(folder.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def strip(library: Path) -> None:
    """Cut off what no loader reads, which only debuggers do: what is behind the last segment of an ELF file.

    The layout is that of `Elf64_Ehdr` and `Elf64_Phdr` in elf(5). Whatever is not such a file stays as it is.
    """
    with library.open("r+b") as elf:
        header = elf.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":  # 64 bits, little-endian
            return
        (start,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
        elf.seek(start)
        segments = [struct.unpack_from("<8xQ16xQ", elf.read(size)) for _ in range(count)]
        end = max([start + size * count, *(offset + length for offset, length in segments)])
        if not segments or end > library.stat().st_size:  # nothing to load, or cut short
            return
        elf.seek(40)
        elf.write(bytes(8))  # e_shoff: there are no sections now, which are for linkers
        elf.seek(60)
        elf.write(bytes(4))  # e_shnum, e_shstrndx
        elf.truncate(end)


if __name__ == "__main__":
    main(sys.argv[1])
