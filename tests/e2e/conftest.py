"""One whole belt for the end-to-end tests."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.messaging.connection import Bus, connect
from tests.belts import ROOT, Belt

LIMITS = {"TRAINER_SECONDS": "15", "TRAINER_MEMORY": str(2 * 1024**3)}
"""Enough for the examples; what never ends or eats memory is not waited for long."""


@pytest.fixture(scope="session")
def belt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Belt]:
    running = Belt(tmp_path_factory.mktemp("belt") / "home", **LIMITS)
    running.up()
    yield running
    running.http.close()
    running.down()


@pytest.fixture(scope="session")
def pushed(belt: Belt) -> str:
    """The version of `digits` that a first good push made live."""
    told = belt.push("examples/digits")
    assert told["outcome"] == "deployed", told
    assert belt.version("digits") == told["version"]
    return str(told["version"])


@pytest.fixture
def live(belt: Belt, pushed: str) -> str:
    """The version of `digits` that answers now."""
    return belt.version("digits")


@pytest.fixture
async def bus(belt: Belt) -> AsyncIterator[Bus]:
    """The belt's bus, as any client sees it."""
    connected = await connect(belt.nats_url())
    yield connected
    await connected.close()


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
