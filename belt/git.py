"""What git knows of a folder: the commit, the person, where hooks belong."""

import getpass
import subprocess
from pathlib import Path


def commit(folder: Path) -> str | None:
    """The commit that `folder` is at, `-dirty` when it differs from it; None outside of a repository."""
    head = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        return None
    return f"{head}-dirty" if _git(folder, "status", "--porcelain", "--", ".") else head


def person(folder: Path) -> str:
    """Who decides here: git's user.name, else the login name."""
    return _git(folder, "config", "user.name") or getpass.getuser()


def root(folder: Path) -> Path | None:
    """The top of the repository that `folder` is in."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def hooks(folder: Path) -> Path | None:
    """Where git looks for the hooks of the repository, `core.hooksPath` and worktrees considered."""
    found = _git(folder, "rev-parse", "--git-path", "hooks")
    return (folder / found).resolve() if found else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git here
        return None
    return done.stdout.strip() if done.returncode == 0 else None
