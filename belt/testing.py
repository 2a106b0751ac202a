"""Runs a project's tests as the trainer does: `python -m belt.testing PROJECT`, for the git hook and CI.

A project with `requirements` gets the environment that the trainer uses, from the same lock and in the same folder.
The first of the two that needs it creates it.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from belt import project_check
from belt.output import HOME, Failed
from services.sandbox import BadRequirements, Environments, IndexTrouble, InstallTimedOut
from services.storage import FsspecArtifactStore

PACKAGES = Path(pytest.__file__).parents[1]
"""The project's environment has no pytest, so the folder with ours is the last entry of its path."""
RUN = f"import sys; sys.path.append({str(PACKAGES)!r}); import pytest; sys.exit(pytest.main())"
CONFIGS = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
NOTHING_COLLECTED = 5
"""Exit code of pytest when there are no tests; it counts as success, as in the trainer."""


def run(folder: Path, envs: Path) -> int:
    """Run the tests of the project in `folder` and return their exit code; 0 when it has none.

    Raises:
        Failed: there is no usable model.yaml, or its requirements cannot be installed.
    """
    spec = project_check.load_spec(folder)
    if not (folder / "tests").is_dir():
        return 0
    python = asyncio.run(interpreter(spec.requirements, envs))
    # Only a configuration inside the project counts: the trainer does not see the folders above it.
    config = next((name for name in CONFIGS if (folder / name).exists()), os.devnull)
    arguments = ("-q", "-p", "no:cacheprovider", "--rootdir=.", "-c", config, "tests")
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"} | os.environ | dict(spec.env)
    code = subprocess.run([python, "-c", RUN, *arguments], cwd=folder, env=environ, check=False).returncode
    return 0 if code == NOTHING_COLLECTED else code


async def interpreter(requirements: tuple[str, ...], envs: Path) -> Path:
    """Return the Python that has these packages and those of serving; create its environment under `envs` if missing.

    Raises:
        Failed: no versions fit together, or they cannot be installed.
    """
    if not requirements:
        return Path(sys.executable)
    with TemporaryDirectory(prefix="belt-") as scratch:
        (cache := Path(scratch) / "cache").mkdir()
        environments = Environments(envs, FsspecArtifactStore(f"file://{scratch}/store", cache))
        try:
            return await environments.python(await environments.resolve(requirements))
        except (BadRequirements, IndexTrouble, InstallTimedOut) as error:
            raise Failed(f"cannot install the project's requirements: {error}") from None


def main() -> None:
    home = Path(os.environ.get("BENTOBELT_HOME") or HOME)
    try:
        sys.exit(run(Path(sys.argv[1]), Path(os.environ.get("BENTOBELT_ENVS") or home / "envs")))
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
