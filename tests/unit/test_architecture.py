"""The shape that the folders promise, held by tests: who may import whom, and what a worker must not pay for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import subjects

ROOT = Path(__file__).resolve().parents[2]
ROOMS = sorted(subjects.WORKERS)
HEAVY = ("pandas", "sklearn", "pyarrow", "bentoml", "evidently", "apprise", "scipy", "aiohttp")


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str], *packages: str) -> list[str]:
    return sorted(name for name in names if name.split(".")[0] in packages)


def test_contracts_import_nothing_of_ours() -> None:
    for file in (ROOT / "contracts").glob("*.py"):
        assert ours(imports(file), "services", "serving", "belt") == [], file


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_another(room: str) -> None:
    others = tuple(f"services.{other}" for other in ROOMS if other != room)
    for file in (ROOT / "services" / room).rglob("*.py"):
        found = [name for name in imports(file) if name.startswith(others) or name.split(".")[0] == "belt"]
        assert found == [], f"{file} reaches into another room"


def test_what_all_rooms_share_knows_no_room() -> None:
    for file in (ROOT / "services").glob("*.py"):
        rooms = tuple(f"services.{room}" for room in ROOMS)
        assert [name for name in imports(file) if name.startswith(rooms)] == [], file


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_the_same_files(room: str) -> None:
    folder = ROOT / "services" / room
    for name in ("__init__.py", "app.py", "domain.py", "settings.py"):
        assert (folder / name).exists(), f"{room} has no {name}"
    assert "→" in (folder / "__init__.py").read_text(), f"{room}/__init__.py does not show its arrow"


@pytest.mark.parametrize("room", ROOMS)
def test_a_domain_is_pure(room: str) -> None:
    impure = {"nats", "faststream", "docker", "httpx", "os", "time", "subprocess", "asyncio", "pydantic_settings"}
    assert {name.split(".")[0] for name in imports(ROOT / "services" / room / "domain.py")} & impure == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_worker_does_not_load_what_only_its_children_need(room: str) -> None:
    code = f"import sys, services.{room}.app; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.split() == [], f"importing services.{room}.app also imports {loaded.stdout}"


def test_a_command_does_not_load_what_nats_could_use_and_others_may() -> None:
    names = "print(*{'nats', 'aiohttp'} & sys.modules.keys())"
    code = f"import sys, belt.main, belt.commands.runs; {names}; import aiohttp, s3fs"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.split() == ["nats"]


def test_catching_everything_is_left_to_the_worker() -> None:
    allowed = {ROOT / "services" / "messaging" / "worker.py", ROOT / "services" / "sandbox" / "fork_server.py"}
    for package in ("contracts", "services", "serving", "belt"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ExceptHandler) and file not in allowed:
                    caught = ast.unparse(node.type) if node.type else "everything"
                    assert caught not in ("Exception", "BaseException", "everything"), f"{file}:{node.lineno}"
