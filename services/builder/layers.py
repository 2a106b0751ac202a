"""A Bento, given as tar, in the order that layers are pushed in: what changes with every version comes last.

Nothing of a machine or a moment goes in, so that the same code is the same layer, which no registry is sent twice.
"""

import functools
import io
import py_compile
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

LOCK = "env/python/requirements.txt"
CHANGING = ("bento.yaml", "README.md", "apis/", "models/", "src/bentofile.yaml")
"""Parts of a Bento that differ from version to version."""
PLACE = "bento"
"""Where it lies in an image."""


def lock_of(bento: Path) -> bytes:
    """The hash-locked requirements inside a Bento."""
    with tarfile.open(bento) as tar:
        member = tar.extractfile(LOCK)
        assert member is not None, f"{LOCK} is a file"
        return member.read()


def split(bento: Path, folder: Path) -> tuple[IO[bytes], IO[bytes]]:
    """The code and the model of a Bento, each as an open tar without a name in `folder`, to be unpacked at /."""
    code, model = tempfile.TemporaryFile(dir=folder), tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # the caller closes them
    with (
        tarfile.open(bento) as source,
        tarfile.open(fileobj=code, mode="w") as code_tar,
        tarfile.open(fileobj=model, mode="w") as model_tar,
    ):
        changing, staying = _Layer(model_tar), _Layer(code_tar)
        for member in filter(tarfile.TarInfo.isfile, source):
            content = source.extractfile(member)
            assert content is not None, "it is a file"
            layer = changing if member.name.startswith(CHANGING) else staying
            if member.name.endswith(".py"):
                layer.add_module(f"{PLACE}/{member.name}", content.read())
            else:
                layer.copy(f"{PLACE}/{member.name}", member.size, content)
    code.seek(0)
    model.seek(0)
    return code, model


def files(named: dict[str, bytes]) -> IO[bytes]:
    """A few files, as a tar."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        layer = _Layer(tar)
        for name, content in named.items():
            layer.add(name, content)
    made.seek(0)
    return made


class _Layer:
    """Writes files without owner and time, each after its folders, which would get the time of now otherwise."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._folders: set[str] = set()

    def add(self, name: str, content: bytes) -> None:
        self.copy(name, len(content), io.BytesIO(content))

    def copy(self, name: str, size: int, content: IO[bytes]) -> None:
        self._make_folder(name.rpartition("/")[0])
        member = tarfile.TarInfo(name)
        member.size = size
        self._tar.addfile(member, content)

    def add_module(self, name: str, source: bytes) -> None:
        """A module and its bytecode: in a container whose root is read-only, none can be written later."""
        self.add(name, source)
        if (bytecode := compiled(source, f"/{name}")) is not None:
            folder, _, module = name.removesuffix(".py").rpartition("/")
            self.add(f"{folder}/__pycache__/{module}.{sys.implementation.cache_tag}.pyc", bytecode)

    def _make_folder(self, name: str) -> None:
        if not name or name in self._folders:
            return
        self._make_folder(name.rpartition("/")[0])
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        self._tar.addfile(member)
        self._folders.add(name)


@functools.lru_cache(256)
def compiled(source: bytes, name: str) -> bytes | None:
    """Bytecode that is trusted without a look at the source; None when it is no Python of this version."""
    with tempfile.TemporaryDirectory() as folder:
        file, made = Path(folder) / "source.py", Path(folder) / "made.pyc"
        file.write_bytes(source)
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        try:
            py_compile.compile(str(file), str(made), name, doraise=True, invalidation_mode=unchecked)
        except py_compile.PyCompileError:
            return None
        return made.read_bytes()
