"""Facts that git knows about a folder: its commit, the user's name, the folder for hooks."""

import getpass
import subprocess
from pathlib import Path


def commit(folder: Path) -> str | None:
    """Return the commit of `folder`, with `-dirty` when files differ from it; None outside of a repository."""
    head = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git(folder, "status", "--porcelain", "--", ".") else head


def person(folder: Path) -> str:
    """Return the user's name: git's user.name, else the login name."""
    return _git(folder, "config", "user.name") or getpass.getuser()


def root(folder: Path) -> Path | None:
    """Return the top folder of the repository that contains `folder`; None outside of a repository."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def hooks(folder: Path) -> Path | None:
    """Return the hooks folder of the repository; `core.hooksPath` and worktrees are considered."""
    found = _git(folder, "rev-parse", "--git-path", "hooks")
    return (folder / found).resolve() if found else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None
