"""Modules of ours that go into a Bento: serving and the contracts it imports."""

import ast
from pathlib import Path

import serving
from services.builder.jobs.build_bento import copy_sources

ROOT = Path(serving.__file__).parents[1]


def imported(file: Path) -> set[str]:
    """Names of our modules that `file` imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name for name in names if name.split(".")[0] in ("contracts", "serving", "services", "belt", "infra")}
    return {name for name in ours if module(name).exists()}


def module(name: str) -> Path:
    return ROOT / f"{name.replace('.', '/')}.py"


def test_serving_imports_the_contracts_that_are_listed_and_nothing_else_of_ours() -> None:
    reached: set[str] = set()
    waiting = {name for file in (ROOT / "serving").rglob("*.py") for name in imported(file)}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= imported(module(name)) - reached
    others = {name for name in reached if not name.startswith("serving.")}
    assert others == {f"contracts.{name}" for name in serving.CONTRACTS}


def test_a_bento_gets_those_files_and_no_others(tmp_path: Path) -> None:
    copied = {str(path.relative_to(tmp_path)) for path in copy_sources(tmp_path).rglob("*") if path.is_file()}
    contracts = {f"contracts/{name}.py" for name in ("__init__", *serving.CONTRACTS)}
    assert copied == contracts | {str(file.relative_to(ROOT)) for file in (ROOT / "serving").rglob("*.py")}
