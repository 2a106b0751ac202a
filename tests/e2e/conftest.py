"""One whole belt for the end-to-end tests."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.belts import ROOT, Belt


@pytest.fixture(scope="session")
def belt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Belt]:
    running = Belt(tmp_path_factory.mktemp("belt") / "home")
    running.up()
    yield running
    running.http.close()
    running.down()


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A copy of an example with some of its files replaced."""

    def copy(example: str = "digits", **files: str) -> Path:
        folder = tmp_path / example
        shutil.copytree(ROOT / "examples" / example, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, content in files.items():
            target = folder / name.replace("__", "/").replace("_yaml", ".yaml").replace("_py", ".py")
            target.write_text(content)
        return folder

    return copy
