import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from belt.commands import ci, hook
from belt.main import app
from belt.output import Failed

runner = CliRunner()
SPEC = "name: toy\ntarget: y\n"


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    return subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, env=clean)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder with a space in its name, in a repository with a remote."""
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(tmp_path, "init", "-q", "-b", "main", "repo")
    folder = tmp_path / "repo" / "my model"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC)
    git(folder, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def stand_in(folder: Path, exit_code: int = 0) -> Path:
    """A python that writes down how it is called."""
    file = folder / "python stand-in"
    file.write_text(
        f'#!/bin/sh\necho "$PWD: $@ home=$BENTOBELT_HOME git=$GIT_DIR" >> "{folder}/calls"\nexit {exit_code}\n'
    )
    file.chmod(0o755)
    return file


def install(project: Path, python: Path, force: bool = False) -> Path:
    file = hook.write(project, project.parent / ".belt", force)
    for entry in (file.parent / hook.PROJECTS).iterdir():
        entry.write_text(entry.read_text().replace(sys.executable, f"'{python}'"))
    return file


def test_git_push_runs_the_tests_and_then_belt_push(project: Path, tmp_path: Path) -> None:
    install(project, stand_in(tmp_path))
    assert git(project, "push", "-q", "origin", "main").returncode == 0
    tests, push = (tmp_path / "calls").read_text().splitlines()
    home = f"home={project.parent}/.belt git="
    assert tests.endswith(f": -m belt.testing {project} {home}")
    assert push.endswith(f": -m belt.main push {project} --reason git push {home}")


def test_all_projects_of_a_repository_are_pushed_when_they_changed(project: Path, tmp_path: Path) -> None:
    (other := project.parent / "other").mkdir()
    (other / "model.yaml").write_text(SPEC.replace("toy", "other"))
    git(project.parent, "add", ".")
    git(project.parent, "commit", "-qm", "another model")
    install(project, stand_in(tmp_path))
    install(other, stand_in(tmp_path))

    def pushed(*arguments: str) -> list[str]:
        (tmp_path / "calls").write_text("")
        done = git(project, "push", "-q", "origin", *arguments)
        assert done.returncode == 0, done.stderr
        calls = [call.split(": ", 1)[1].split(" home=")[0] for call in (tmp_path / "calls").read_text().splitlines()]
        return [call.replace(f"{project.parent}/", "") for call in calls]

    def change(file: Path) -> None:
        file.write_text(file.read_text() + "# changed\n")
        git(project.parent, "commit", "-qam", "a change")

    both = [f"-m belt.testing {name}" for name in ("other", "my model")]
    both += [f"-m belt.main push {name} --reason git push" for name in ("other", "my model")]
    assert pushed("main") == both
    change(other / "model.yaml")
    assert pushed("main") == [call for call in both if "other" in call]
    assert pushed("main:refs/heads/copy") == pushed(":copy") == pushed("main") == []
    change(project / "model.yaml")
    assert pushed("main:refs/heads/copy") == [call for call in both if "my model" in call]


def test_one_model_in_two_folders_is_refused_until_one_is_gone(project: Path) -> None:
    copy = project.parent / "copy"
    shutil.copytree(project, copy)
    hook.write(project, project.parent, force=False)
    with pytest.raises(Failed, match=f"the hook already has toy from {project}: rename one of the two models"):
        hook.write(copy, project.parent, force=False)
    shutil.rmtree(project)
    hook.write(copy, project.parent, force=False)


def test_failing_tests_stop_the_git_push(project: Path, tmp_path: Path) -> None:
    install(project, stand_in(tmp_path, exit_code=1))
    assert git(project, "push", "-q", "origin", "main").returncode != 0
    assert git(tmp_path / "remote.git", "rev-parse", "--verify", "main").returncode != 0


def test_a_foreign_hook_is_kept_unless_forced_and_then_runs_first(project: Path, tmp_path: Path) -> None:
    foreign = project.parent / ".git/hooks/pre-push"
    foreign.write_text(f'#!/bin/sh\necho "before $1 $(cat | wc -l)" >> "{tmp_path}/calls"\n')
    foreign.chmod(0o755)
    with pytest.raises(Failed, match="is a hook of another program; --force keeps it"):
        install(project, stand_in(tmp_path))
    install(project, stand_in(tmp_path), force=True)
    assert git(project, "push", "-q", "origin", "main").returncode == 0
    assert (tmp_path / "calls").read_text().splitlines()[0] == "before origin 1"


def test_installing_again_renews_our_own_hook(project: Path, tmp_path: Path) -> None:
    foreign = project.parent / ".git/hooks/pre-push"
    foreign.write_text("#!/bin/sh\n")
    install(project, stand_in(tmp_path), force=True)
    assert install(project, stand_in(tmp_path), force=True) == foreign
    assert (foreign.parent / hook.BEFORE).read_text() == "#!/bin/sh\n"


def test_the_command_installs_and_says_where(project: Path) -> None:
    done = runner.invoke(app, ["hook", "install", str(project), "--json"])
    assert done.exit_code == 0
    file = Path(json.loads(done.stdout)["hook"])
    assert file == project.parent / ".git/hooks/pre-push"
    assert os.access(file, os.X_OK)


def test_outside_of_a_repository_there_is_nothing_to_hook_into(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(SPEC)
    done = runner.invoke(app, ["hook", "install", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not in a git repository" in done.stderr


@pytest.mark.parametrize(("service", "published"), [("github", "github-workflows"), ("gitlab", "gitlab-ci")])
def test_the_printed_workflow_follows_the_published_schema(project: Path, service: str, published: str) -> None:
    done = runner.invoke(app, ["ci", service, str(project)])
    assert done.exit_code == 0
    written = project / "workflow.yml"
    written.write_text(done.stdout)
    command = ["check-jsonschema", "--builtin-schema", f"vendor.{published}", str(written)]
    checked = subprocess.run(command, capture_output=True, text=True, env=with_venv())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert 'python -m belt.testing "my model"' in done.stdout
    assert 'push "my model" --wait' in done.stdout


def test_a_project_at_the_top_of_its_repository_watches_everything() -> None:
    text = ci.workflow(ci.GITHUB, "toy", ".")
    assert yaml.load(text, Loader=yaml.BaseLoader)["on"]["push"]["paths"] == ["**"]


def with_venv() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
