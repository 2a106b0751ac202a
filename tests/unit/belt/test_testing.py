from pathlib import Path

import pytest

from belt import testing
from belt.output import Failed

SPEC = "name: toy\ntarget: y\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "tests").mkdir(parents=True)
    (folder / "model.yaml").write_text(SPEC)
    (folder / "pipeline.py").write_text("ANSWER = 42\n")
    return folder


@pytest.mark.parametrize(("expected", "code"), [(42, 0), (43, 1)])
def test_the_projects_tests_decide(project: Path, expected: int, code: int) -> None:
    (project / "tests" / "test_it.py").write_text(
        f"import pipeline\n\n\ndef test_it():\n    assert pipeline.ANSWER == {expected}\n"
    )
    assert testing.run(project, project / "envs") == code


def test_variables_of_the_project_are_set(project: Path) -> None:
    (project / "model.yaml").write_text(f"{SPEC}env: {{SCORING_MODE: fast}}\n")
    (project / "tests" / "test_it.py").write_text(
        "import os\n\n\ndef test_it():\n    assert os.environ['SCORING_MODE'] == 'fast'\n"
    )
    assert testing.run(project, project / "envs") == 0


def test_what_lies_above_the_project_does_not_count(project: Path) -> None:
    (project.parent / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--no-such-option'\n")
    (project / "tests" / "test_it.py").write_text("def test_it():\n    pass\n")
    assert testing.run(project, project / "envs") == 0


def test_no_tests_are_no_failure(project: Path) -> None:
    assert testing.run(project, project / "envs") == 0
    (project / "tests").rmdir()
    assert testing.run(project, project / "envs") == 0


def test_what_is_no_project_is_said(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="is not a model project"):
        testing.run(tmp_path, tmp_path / "envs")


def test_requirements_that_cannot_be_had_are_named(project: Path) -> None:
    (project / "model.yaml").write_text(SPEC + "requirements: ['numpy<1']\n")
    with pytest.raises(Failed, match="the project's requirements: uv could not lock"):
        testing.run(project, project / "envs")
