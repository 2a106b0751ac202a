"""The shape that the folders promise, held by tests: which module may import which, and what a worker must not load."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import subjects

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("contracts", "services", "serving", "belt", "infra")
ROOMS = sorted(subjects.WORKERS)
SHARED = ("host", "messaging", "storage", "sandbox", "docker_engine", "timeline")
HEAVY = ("pandas", "sklearn", "pyarrow", "bentoml", "evidently", "apprise", "scipy")

SECOND_FACES = {
    "services.messaging.worker": "loads FastStream, which commands and child processes need not wait for",
    "services.storage.model_store": "loads BentoML: for child processes",
}
"""Modules of a shared package that are public beside its `__init__`, with the reason."""

MODULE_LINES = 300
LONG_MODULES: dict[str, str] = {}
"""Modules that may be longer, with the reason. The list only shrinks."""

SHARED_CLASS_NAMES = {"Settings"}
"""Class names that may exist more than once: every room has its `Settings`."""

TRICKS = {"sys.modules", "sys.meta_path", "sys.path_hooks", "copyreg", "ctypes"}
"""Means by which a module changes the interpreter under all the others."""
TRICKSTERS: dict[str, str] = {}
"""Modules that use such means all the same, with the reason. The list only shrinks."""

CATCH_EVERYTHING = {
    "services/messaging/delivery.py": "whatever a handler raises decides about retry or failure event",
    "services/messaging/restart_policy.py": "a background task is restarted after whatever it raised",
    "services/sandbox/fork_server.py": "whatever a job raises is its outcome",
}


def modules(*packages: str) -> Iterator[Path]:
    """Yield the Python files of these top-level folders, as paths relative to the repository."""
    for package in packages:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield file.relative_to(ROOT)


def parsed(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text())


def imports(module: Path) -> set[str]:
    """Return the dotted names that a module imports; `from a import b` gives both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(module: Path) -> set[str]:
    """Return the top-level folders of ours that a module imports from."""
    return {name.split(".")[0] for name in imports(module)} & {*PRODUCT, "benchmarks", "tests"}


def public_names(package: str) -> set[str]:
    """Return `__all__` of a shared package."""
    for node in parsed(Path("services", package, "__init__.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_contracts_import_nothing_of_ours() -> None:
    for module in modules("contracts"):
        assert ours(module) <= {"contracts"}, module


def test_serving_imports_only_contracts() -> None:
    for module in modules("serving"):
        assert ours(module) <= {"contracts", "serving"}, module


def test_services_import_nothing_of_the_command_line() -> None:
    for module in modules("services"):
        assert ours(module) <= {"contracts", "services", "serving"}, module


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_another(room: str) -> None:
    others = tuple(f"services.{other}" for other in ROOMS if other != room)
    for module in modules(f"services/{room}"):
        found = [name for name in imports(module) if name.startswith(others)]
        assert found == [], f"{module} imports from another room"


@pytest.mark.parametrize("package", SHARED)
def test_a_shared_package_knows_no_room(package: str) -> None:
    rooms = tuple(f"services.{room}" for room in ROOMS)
    for module in modules(f"services/{package}"):
        assert [name for name in imports(module) if name.startswith(rooms)] == [], module


@pytest.mark.parametrize("package", SHARED)
def test_a_shared_package_is_imported_through_its_public_face(package: str) -> None:
    face = f"services.{package}"
    allowed = {face} | {f"{face}.{name}" for name in public_names(package)}
    for module in modules(*PRODUCT, "benchmarks", "docs", "examples"):
        if module.is_relative_to(f"services/{package}"):
            continue
        named = {name for name in imports(module) if name == face or name.startswith(f"{face}.")}
        inner = {name for name in named - allowed if not name.startswith(tuple(SECOND_FACES))}
        assert inner == set(), f"{module} imports what services/{package}/__init__.py does not offer"


def test_every_folder_of_services_is_a_room_or_a_shared_package() -> None:
    folders = {file.parent.name for file in (ROOT / "services").glob("*/__init__.py")}
    assert folders == {*ROOMS, *SHARED}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_the_same_files(room: str) -> None:
    folder = ROOT / "services" / room
    for name in ("__init__.py", "app.py", "domain.py", "settings.py"):
        assert (folder / name).exists(), f"{room} has no {name}"
    assert "→" in (folder / "__init__.py").read_text(), f"{room}/__init__.py does not show its arrow"


@pytest.mark.parametrize("room", ROOMS)
def test_a_domain_is_pure(room: str) -> None:
    impure = {"nats", "faststream", "docker", "httpx", "os", "time", "subprocess", "asyncio", "pydantic_settings"}
    assert {name.split(".")[0] for name in imports(Path("services", room, "domain.py"))} & impure == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_worker_does_not_load_what_only_its_children_need(room: str) -> None:
    # The monitor needs chi² tails, which scipy.special has for 12 MB; scipy.stats would take 48 MB and 1.6 s of CPU.
    heavy = tuple("scipy.stats" if (room, name) == ("monitor", "scipy") else name for name in HEAVY)
    code = f"import sys, services.{room}.app; print(*(name for name in {heavy!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert loaded.stdout.split() == [], f"importing services.{room}.app also imports {loaded.stdout}"


def test_catching_everything_is_left_to_few_modules() -> None:
    def catches_everything(node: ast.AST) -> bool:
        if not isinstance(node, ast.ExceptHandler):
            return False
        return node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")

    found = {str(module) for module in modules(*PRODUCT) if any(map(catches_everything, ast.walk(parsed(module))))}
    assert found == CATCH_EVERYTHING.keys()


def test_a_module_is_not_long() -> None:
    lines = {str(module): len((ROOT / module).read_text().splitlines()) for module in modules(*PRODUCT)}
    found = {module for module, count in lines.items() if count > MODULE_LINES}
    assert found == LONG_MODULES.keys(), "split a module that is new here; take one that is short now off the list"


def test_a_class_name_exists_once() -> None:
    places = defaultdict(list)
    for module in modules(*PRODUCT):
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(module))
    assert {name: files for name, files in places.items() if len(files) > 1 and name not in SHARED_CLASS_NAMES} == {}


def test_no_module_changes_the_interpreter() -> None:
    def tricky(module: Path) -> bool:
        attributes = {ast.unparse(node) for node in ast.walk(parsed(module)) if isinstance(node, ast.Attribute)}
        return bool((attributes | imports(module)) & TRICKS)

    found = {str(module) for module in modules(*PRODUCT) if tricky(module)}
    assert found == TRICKSTERS.keys(), "use ordinary means; take a module that does so now off the list"
