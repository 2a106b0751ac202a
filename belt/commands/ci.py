"""`belt ci`: prints a workflow for a CI service that runs a project's tests and pushes the project."""

from pathlib import Path

import typer

from belt import git, output, project_check
from belt.output import Json, Project
from contracts.events import ModelName

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")

GITHUB = """\
# Tests the model project and, on the default branch, pushes it to Bentobelt.
# Settings of the repository: secret NATS_URL (the bus), variable BENTOBELT_REPO (git URL of Bentobelt).
# The runner has to reach the bus. By default the bus listens on 127.0.0.1: use a self-hosted runner on its machine.
name: "belt: {model}"
on:
  push:
    paths: ["{paths}"]
  pull_request:
    paths: ["{paths}"]
permissions:
  contents: read
jobs:
  push:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - name: Install Bentobelt
        run: |
          git clone --depth 1 "$BENTOBELT_REPO" .bentobelt
          make -C .bentobelt setup
        env:
          BENTOBELT_REPO: ${{{{ vars.BENTOBELT_REPO }}}}
      - name: Test the project
        run: .bentobelt/.venv/bin/python -m belt.testing "{folder}"
      - name: Push it and wait until it is deployed
        if: github.ref_name == github.event.repository.default_branch
        run: .bentobelt/.venv/bin/belt push "{folder}" --wait --reason "$GITHUB_SHA"
        env:
          NATS_URL: ${{{{ secrets.NATS_URL }}}}
"""

GITLAB = """\
# Tests the model project and, on the default branch, pushes it to Bentobelt.
# CI/CD variables: NATS_URL (the bus, masked), BENTOBELT_REPO (git URL of Bentobelt).
"belt {model}":
  image: python:3.11
  timeout: 1h
  rules:
    - changes: ["{paths}"]
  before_script:
    - git clone --depth 1 "$BENTOBELT_REPO" .bentobelt
    - make -C .bentobelt setup
  script:
    - .bentobelt/.venv/bin/python -m belt.testing "{folder}"
    - |
      if [ "$CI_COMMIT_BRANCH" = "$CI_DEFAULT_BRANCH" ]; then
        .bentobelt/.venv/bin/belt push "{folder}" --wait --reason "$CI_COMMIT_SHA"
      fi
"""


@app.callback()
def ci() -> None:
    """Print a CI workflow that tests and pushes a project.

    Example:  belt ci github .
    """


@app.command()
def github(folder: Project = Path(), json: Json = False) -> None:
    """Print a GitHub Actions workflow.

    Example:  belt ci github examples/digits > .github/workflows/digits.yml
    """
    _print(GITHUB, folder, json)


@app.command()
def gitlab(folder: Project = Path(), json: Json = False) -> None:
    """Print a GitLab CI job.

    Example:  belt ci gitlab examples/digits > .gitlab-ci.yml
    """
    _print(GITLAB, folder, json)


def workflow(template: str, model: ModelName, folder: str) -> str:
    """Return the text of a workflow for the project in `folder`, a path from the top of its repository."""
    paths = "**" if folder == "." else f"{folder}/**"
    return template.format(model=model, folder=folder, paths=paths)


def _print(template: str, folder: Path, json: bool) -> None:
    folder, spec = folder.resolve(), project_check.load_spec(folder)
    top = git.root(folder)
    text = workflow(template, spec.name, folder.relative_to(top.resolve()).as_posix() if top else ".")
    if json:
        output.result(True, {"workflow": text}, "")
    else:
        print(text, end="")
