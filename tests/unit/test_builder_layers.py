"""The build context of a version's image."""

import io
import marshal
import tarfile
from pathlib import Path

from services.builder.layers import compiled, context, lock_of

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


def test_what_changes_comes_last_and_modules_have_their_bytecode(tmp_path: Path) -> None:
    with context(bento(tmp_path, 1), tmp_path) as made, tarfile.open(fileobj=made) as tar:
        files = {member.name for member in tar if member.isfile()}
    assert {name for name in files if name.startswith("code/") and not name.endswith(".pyc")} == {
        "code/env/python/requirements.txt",
        "code/src/serving/app.py",
        "code/src/serving/broken.py",
    }
    assert {"model/bento.yaml", "model/src/bentofile.yaml", "Dockerfile"} <= files
    assert any(name.startswith("model/models/digits/7-aaaaaaaa/project/__pycache__/pipeline.") for name in files)
    assert any(name.startswith("code/src/serving/__pycache__/app.") for name in files)
    assert not any(name.startswith("code/src/serving/__pycache__/broken.") for name in files)


def test_the_same_files_give_the_same_bytes_whenever_and_by_whomever(tmp_path: Path) -> None:
    with context(bento(tmp_path, 1), tmp_path) as first, context(bento(tmp_path, 2), tmp_path) as second:
        assert first.read() == second.read()
    assert not list(tmp_path.glob("tmp*"))


def test_the_lock_is_read_from_the_bento(tmp_path: Path) -> None:
    assert lock_of(bento(tmp_path, 1)) == FILES["env/python/requirements.txt"]


def test_bytecode_names_the_module_where_it_will_be() -> None:
    made = compiled(b"x = 1", "/bento/src/serving/app.py")
    assert made is not None
    assert marshal.loads(made[16:]).co_filename == "/bento/src/serving/app.py"
    assert compiled(b"def", "/bento/x.py") is None
