"""Digest of a project's code: when it changes, the data schema is learned anew."""

from pathlib import Path

import pytest

from services.trainer.pipeline import digest_of_code


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    for name, content in {"model.yaml": "name: a", "pipeline.py": "x = 1", "features/one.py": "y = 2"}.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize("name", ["notes.md", "labels.csv", "data.parquet", "__pycache__/pipeline.py"])
def test_a_file_that_is_no_code_changes_nothing(project: Path, name: str) -> None:
    before = digest_of_code(project)
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text("n/k")
    assert digest_of_code(project) == before


@pytest.mark.parametrize("name", ["model.yaml", "pipeline.py", "features/one.py", "features/two.py"])
def test_code_and_configuration_do(project: Path, name: str) -> None:
    before = digest_of_code(project)
    (project / name).write_text("name: b")
    assert digest_of_code(project) != before


def test_a_folder_that_is_called_like_a_module_is_none(project: Path) -> None:
    before = digest_of_code(project)
    (project / "odd.py").mkdir()
    assert digest_of_code(project) == before


def test_a_module_that_moves_is_another(project: Path) -> None:
    before = digest_of_code(project)
    (project / "features" / "one.py").rename(project / "one.py")
    assert digest_of_code(project) != before
