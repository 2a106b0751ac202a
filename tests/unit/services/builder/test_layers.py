"""The layers of a version's image."""

import io
import marshal
import tarfile
from pathlib import Path

from services.builder.layers import compiled, lock_of, split

FILES = {
    "bento.yaml": b"version: 7-aaaaaaaa",
    "env/python/requirements.txt": b"six==1 --hash=sha256:aa",
    "models/digits/7-aaaaaaaa/saved_model.pkl": b"\x00" * 10,
    "models/digits/7-aaaaaaaa/project/pipeline.py": b"def build(): ...",
    "src/bentofile.yaml": b"name: digits",
    "src/serving/app.py": b"x = 1",
    "src/serving/broken.py": b"def",
}


def bento(folder: Path, time: int) -> Path:
    made = folder / f"{time}.tar"
    with tarfile.open(made, "w") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid = len(content), time, time
            tar.addfile(member, io.BytesIO(content))
    return made


def split_up(folder: Path, time: int) -> tuple[bytes, bytes]:
    code, model = split(bento(folder, time), folder)
    with code, model:
        return code.read(), model.read()


def names(layer: bytes) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return {member.name for member in tar if member.isfile()}


def test_what_changes_is_a_layer_and_modules_have_their_bytecode(tmp_path: Path) -> None:
    code, model = map(names, split_up(tmp_path, 1))
    assert {name for name in code if not name.endswith(".pyc")} == {
        "bento/env/python/requirements.txt",
        "bento/src/serving/app.py",
        "bento/src/serving/broken.py",
    }
    assert {"bento/bento.yaml", "bento/src/bentofile.yaml"} <= model
    assert any(name.startswith("bento/models/digits/7-aaaaaaaa/project/__pycache__/pipeline.") for name in model)
    assert any(name.startswith("bento/src/serving/__pycache__/app.") for name in code)
    assert not any(name.startswith("bento/src/serving/__pycache__/broken.") for name in code)


def test_the_same_files_give_the_same_bytes_whenever_and_by_whomever(tmp_path: Path) -> None:
    assert split_up(tmp_path, 1) == split_up(tmp_path, 2)
    assert not list(tmp_path.glob("tmp*"))


def test_the_lock_is_read_from_the_bento(tmp_path: Path) -> None:
    assert lock_of(bento(tmp_path, 1)) == FILES["env/python/requirements.txt"]


def test_bytecode_names_the_module_where_it_will_be() -> None:
    made = compiled(b"x = 1", "/bento/src/serving/app.py")
    assert made is not None
    assert marshal.loads(made[16:]).co_filename == "/bento/src/serving/app.py"
    assert compiled(b"def", "/bento/x.py") is None
