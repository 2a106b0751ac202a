"""`belt hook install`: `git push` runs the project's tests and pushes the project onto the belt."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from belt import git, project, say
from belt.say import HOME, Failed, Home, Json

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Push from git: install a hook.")

NAME = "pre-push"
MARK = "# written by `belt hook install`"
BEFORE = "pre-push.before-belt"

SCRIPT = """\
#!/bin/sh
{mark}: runs the project's tests, then `belt push`.
# `git push --no-verify` goes without it; delete this file to be rid of it.
set -e
refs=$(cat)
before="$(dirname "$0")/{before}"
if [ -x "$before" ]; then printf '%s\\n' "$refs" | "$before" "$@"; fi
# git tells hooks where its repository is; the tests' own calls of git must not hear of it.
unset $(git rev-parse --local-env-vars)
python={python}
project={project}
export BENTOBELT_HOME="${{BENTOBELT_HOME:-{home}}}"
"$python" -m belt.testing "$project"
"$python" -m belt.main push "$project" --reason "git push"
"""


@app.callback()
def hook() -> None:
    """Push from git: install a hook."""


@app.command()
def install(
    folder: Annotated[
        Path, typer.Argument(metavar="[PROJECT]", exists=True, file_okay=False, help="The model project.")
    ] = Path(),
    force: Annotated[bool, typer.Option(help="Keep a hook that is there already and run it first.")] = False,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Write a pre-push hook: the project's tests have to pass and the push to the belt has to be taken.

    Example:  belt hook install examples/digits
    """
    try:
        written = write(folder.resolve(), home.resolve(), force)
    except Failed as error:
        say.fail(str(error))
    say.answer(json, {"hook": str(written), "project": str(folder.resolve())}, str(written))


def write(folder: Path, home: Path, force: bool) -> Path:
    """Install the hook for the project in `folder`; returns its file.

    Raises:
        Failed: no project, no git repository, or someone else's hook is there and `force` is not given.
    """
    project.spec_of(folder)
    hooks = git.hooks(folder)
    if hooks is None:
        raise Failed(f"{folder} is not in a git repository; `git init` makes one")
    hooks.mkdir(parents=True, exist_ok=True)
    file = hooks / NAME
    if file.exists() and MARK not in file.read_text(errors="replace"):
        _set_aside(file, force)
    file.write_text(script(folder, home, Path(sys.executable)))
    file.chmod(0o755)
    return file


def script(folder: Path, home: Path, python: Path) -> str:
    """The text of the hook."""
    return SCRIPT.format(
        mark=MARK,
        before=BEFORE,
        python=shlex.quote(str(python)),
        project=shlex.quote(str(folder)),
        home=str(home).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`"),
    )


def _set_aside(file: Path, force: bool) -> None:
    aside = file.with_name(BEFORE)
    if not force:
        raise Failed(f"{file} is not ours; --force keeps it as {BEFORE} and runs it first")
    if aside.exists():
        raise Failed(f"{aside} is there already: merge it and {file.name} by hand first")
    file.rename(aside)
