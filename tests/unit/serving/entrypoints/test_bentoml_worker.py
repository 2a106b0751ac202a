"""Parts of BentoML that serving uses beside its public API. These tests fail when a release moves or renames one."""

import ast
import importlib
import inspect
from importlib.metadata import version
from pathlib import Path

import bentoml
import click
import pytest

from serving.entrypoints import bentoml_worker

SERVING = Path(bentoml_worker.__file__).parents[1]
ADAPT = (
    f"BentoML {version('bentoml')} has changed: {{}}. Look for what `bentoml serve` starts behind its supervisor, and "
    "adapt serving/entrypoints/bentoml_worker.py"
)


def worker() -> click.Command:
    try:
        module = importlib.import_module("_bentoml_impl.worker.service")
    except ImportError as error:
        pytest.fail(ADAPT.format(error))
    command = getattr(module, "main", None)
    if not isinstance(command, click.Command):
        pytest.fail(ADAPT.format("_bentoml_impl.worker.service.main is no click command"))
    return command


def test_the_worker_takes_the_arguments_that_it_is_given() -> None:
    try:
        parsed = worker().make_context("worker", bentoml_worker.arguments(Path("/bento"), 7, 60.0)).params
    except click.ClickException as error:
        pytest.fail(ADAPT.format(error.format_message()))
    expected = {"bento_identifier": "/bento", "fd": 7, "worker_id": 1, "timeout_graceful_shutdown": 60}
    assert parsed.items() >= expected.items(), ADAPT.format("an option has another name or type")


@pytest.mark.parametrize("library", bentoml_worker.LIBRARIES)
def test_a_server_on_standby_finds_the_libraries_it_imports(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.fail(ADAPT.format(f"there is no module {library}"))


def test_the_asgi_app_of_a_service_is_made_by_the_method_that_serving_overrides() -> None:
    parameters = list(inspect.signature(bentoml.Service.to_asgi).parameters)
    assert parameters == ["self", "is_main"], (
        f"BentoML {version('bentoml')} has changed Service.to_asgi: adapt serving/service.py"
    )


def test_one_module_alone_uses_private_modules_of_bentoml() -> None:
    users = set()
    for file in SERVING.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [module]
            if any(name.startswith(("_bentoml", "bentoml._internal")) for name in names):
                users.add(file.name)
    assert users == {"bentoml_worker.py"}
