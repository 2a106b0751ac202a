"""`belt hook install`: `git push` runs the project's tests and then `belt push`."""

import sys
from pathlib import Path
from shlex import quote, split
from typing import Annotated

import typer

from belt import git, output, project_check
from belt.output import HOME, Failed, Home, Json, Project

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich")

NAME = "pre-push"
MARK = "# written by `belt hook install`"
BEFORE = "pre-push.before-belt"

PROJECTS = "pre-push.belt"
"""Folder beside the hook with one file per installed project, named after its model."""

SCRIPT = f"""\
#!/bin/sh
{MARK}: for each project in {PROJECTS}/ that differs from the remote, run its tests, then `belt push`.
# `git push --no-verify` skips this hook. To remove a project delete its file there; to remove the hook, this file.
set -e
refs=$(cat) remote=$1 given=$BENTOBELT_HOME here=$(dirname "$0") changed=
if [ -x "$here/{BEFORE}" ]; then printf '%s\\n' "$refs" | "$here/{BEFORE}" "$@"; fi
# git sets GIT_DIR and others for its hooks; git commands inside the tests must not see them.
unset $(git rev-parse --local-env-vars)

differs() {{
    printf '%s\\n' "$refs" | while read -r _ new _ old; do
        case $new in *[!0]*) ;; *) continue ;; esac  # a branch that is being deleted
        case $old in
            *[!0]*) git -C "$1" diff --quiet "$old" "$new" -- . 2>/dev/null || echo yes ;;
            *) git -C "$1" rev-list -1 "$new" --not --remotes="$remote" -- . ;;
        esac
    done
}}

for file in "$here/{PROJECTS}"/*; do
    name=${{file##*/}}
    . "$file"
    if ! [ -e "$project/model.yaml" ]; then echo "belt: skipped $name: there is no model.yaml in $project any more" >&2
    elif [ -n "$(differs "$project")" ]; then changed="$changed $name"
    else echo "belt: skipped $name: $remote already has it" >&2; fi
done
for name in $changed; do
    . "$here/{PROJECTS}/$name"
    echo "belt: running the tests of $name" >&2
    BENTOBELT_HOME="${{given:-$home}}" "$python" -m belt.testing "$project"
done
for name in $changed; do
    . "$here/{PROJECTS}/$name"
    BENTOBELT_HOME="${{given:-$home}}" "$python" -m belt.main push "$project" --reason "git push"
done
"""


@app.callback()
def hook() -> None:
    """Install a git hook that pushes the project.

    Example:  belt hook install examples/digits
    """


@app.command()
def install(
    folder: Project = Path(),
    force: Annotated[bool, typer.Option(help="Keep an existing hook and run it first.")] = False,
    home: Home = HOME,
    json: Json = False,
) -> None:
    """Install a pre-push hook: `git push` stops when the project's tests or `belt push` fail.

    All projects of a repository share the hook.
    It pushes a project when `git push` contains a change in its folder.

    Example:  belt hook install examples/digits
    """
    written = write(folder.resolve(), home.resolve(), force)
    output.result(json, {"hook": str(written), "project": str(folder.resolve())}, str(written))


def write(folder: Path, home: Path, force: bool) -> Path:
    """Install the hook for the project in `folder` and return the hook's file; other projects stay installed.

    Raises:
        Failed: there is no project or no git repository; the hook has this model from another folder; or there is a
            hook of another program and `force` is not given.
    """
    model = project_check.load_spec(folder).name
    hooks = git.hooks(folder)
    if hooks is None:
        raise Failed(f"{folder} is not in a git repository; create one with `git init`")
    entry = hooks / PROJECTS / model
    _refuse_another(entry, model, folder)
    entry.parent.mkdir(parents=True, exist_ok=True)
    file = hooks / NAME
    if file.exists() and MARK not in file.read_text(errors="replace"):
        _set_aside(file, force)
    entry.write_text(f"python={quote(sys.executable)}\nproject={quote(str(folder))}\nhome={quote(str(home))}\n")
    file.write_text(SCRIPT)
    file.chmod(0o755)
    return file


def _refuse_another(entry: Path, model: str, folder: Path) -> None:
    if not entry.exists():
        return
    known = dict(word.split("=", 1) for word in split(entry.read_text()))
    if known["project"] != str(folder) and (Path(known["project"]) / "model.yaml").exists():
        raise Failed(
            f"the hook already has {model} from {known['project']}: rename one of the two models, or delete {entry}"
        )


def _set_aside(file: Path, force: bool) -> None:
    aside = file.with_name(BEFORE)
    if not force:
        raise Failed(f"{file} is a hook of another program; --force keeps it as {BEFORE} and runs it first")
    if aside.exists():
        raise Failed(f"{aside} already exists: merge it and {file.name} by hand first")
    file.rename(aside)
