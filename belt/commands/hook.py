"""`belt hook install`: `git push` runs the project's tests and pushes the project onto the belt."""

import sys
from pathlib import Path
from shlex import quote, split
from typing import Annotated

import typer

from belt import git, output, project_check
from belt.output import HOME, Failed, Home, Json

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Push from git: install a hook.")

NAME = "pre-push"
MARK = "# written by `belt hook install`"
BEFORE = "pre-push.before-belt"

PROJECTS = "pre-push.belt"
"""Folder beside the hook with a file for each installed project, called as its model."""

SCRIPT = f"""\
#!/bin/sh
{MARK}: for each project in {PROJECTS}/ that the remote does not have as it is, its tests, then `belt push`.
# `git push --no-verify` goes without it; delete a project's file there to leave it out, or this file to be rid of it.
set -e
refs=$(cat) remote=$1 given=$BENTOBELT_HOME here=$(dirname "$0") changed=
if [ -x "$here/{BEFORE}" ]; then printf '%s\\n' "$refs" | "$here/{BEFORE}" "$@"; fi
# git tells hooks where its repository is; the tests' own calls of git must not hear of it.
unset $(git rev-parse --local-env-vars)

differs() {{
    printf '%s\\n' "$refs" | while read -r _ new _ old; do
        case $new in *[!0]*) ;; *) continue ;; esac  # a branch that is deleted
        case $old in
            *[!0]*) git -C "$1" diff --quiet "$old" "$new" -- . 2>/dev/null || echo yes ;;
            *) git -C "$1" rev-list -1 "$new" --not --remotes="$remote" -- . ;;
        esac
    done
}}

for file in "$here/{PROJECTS}"/*; do
    name=${{file##*/}}
    . "$file"
    if ! [ -e "$project/model.yaml" ]; then echo "belt: $name is not in $project now: left out" >&2
    elif [ -n "$(differs "$project")" ]; then changed="$changed $name"
    else echo "belt: $name is as $remote has it: left out" >&2; fi
done
for name in $changed; do
    . "$here/{PROJECTS}/$name"
    echo "belt: tests of $name" >&2
    BENTOBELT_HOME="${{given:-$home}}" "$python" -m belt.testing "$project"
done
for name in $changed; do
    . "$here/{PROJECTS}/$name"
    BENTOBELT_HOME="${{given:-$home}}" "$python" -m belt.main push "$project" --reason "git push"
done
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

    Further projects of the repository share the hook. A project is pushed when `git push` brings a change to it.

    Example:  belt hook install examples/digits
    """
    try:
        written = write(folder.resolve(), home.resolve(), force)
    except Failed as error:
        output.fail(str(error))
    output.result(json, {"hook": str(written), "project": str(folder.resolve())}, str(written))


def write(folder: Path, home: Path, force: bool) -> Path:
    """Install the hook for the project in `folder`, beside those that are installed; returns its file.

    Raises:
        Failed: no project, no git repository, another folder has this model installed, or someone else's hook is
            there and `force` is not given.
    """
    model = project_check.spec_of(folder).name
    hooks = git.hooks(folder)
    if hooks is None:
        raise Failed(f"{folder} is not in a git repository; `git init` makes one")
    entry = hooks / PROJECTS / model
    _refuse_another(entry, model, folder)
    entry.parent.mkdir(parents=True, exist_ok=True)
    file = hooks / NAME
    if file.exists() and MARK not in file.read_text(errors="replace"):
        _set_aside(file, force)
    entry.write_text(variables(folder, home, Path(sys.executable)))
    file.write_text(SCRIPT)
    file.chmod(0o755)
    return file


def variables(folder: Path, home: Path, python: Path) -> str:
    """What the hook has to know of a project, as a shell reads it."""
    return f"python={quote(str(python))}\nproject={quote(str(folder))}\nhome={quote(str(home))}\n"


def _refuse_another(entry: Path, model: str, folder: Path) -> None:
    if not entry.exists():
        return
    known = dict(word.split("=", 1) for word in split(entry.read_text()))
    if known["project"] != str(folder) and (Path(known["project"]) / "model.yaml").exists():
        raise Failed(
            f"the hook has {model} from {known['project']} already: give one of them another name, or delete {entry}"
        )


def _set_aside(file: Path, force: bool) -> None:
    aside = file.with_name(BEFORE)
    if not force:
        raise Failed(f"{file} is not ours; --force keeps it as {BEFORE} and runs it first")
    if aside.exists():
        raise Failed(f"{aside} is there already: merge it and {file.name} by hand first")
    file.rename(aside)
