"""The project's own tests, as the trainer will run them: `python -m belt.testing PROJECT`, for the git hook and CI.

A project with `requirements` gets the environment that the trainer makes for it, from the same lock and in the same
folder, so that whoever is first makes it for both.
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
"""A project's environment has what serving needs, and pytest is not among it: ours comes last on its path."""
RUN = f"import sys; sys.path.append({str(PACKAGES)!r}); import pytest; sys.exit(pytest.main())"
CONFIGS = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")
NOTHING_COLLECTED = 5
"""Exit code of pytest; the trainer lets it pass, too."""


def run(folder: Path, envs: Path) -> int:
    """Exit code of the tests of the project in `folder`; 0 when it has none.

    Raises:
        Failed: there is no usable model.yaml, or its requirements cannot be installed.
    """
    spec = project_check.spec_of(folder)
    if not (folder / "tests").is_dir():
        return 0
    python = asyncio.run(interpreter(spec.requirements, envs))
    # Never one of the folders above, which the trainer does not get to see.
    config = next((name for name in CONFIGS if (folder / name).exists()), os.devnull)
    arguments = ("-q", "-p", "no:cacheprovider", "--rootdir=.", "-c", config, "tests")
    environ = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"} | os.environ
    code = subprocess.run([python, "-c", RUN, *arguments], cwd=folder, env=environ, check=False).returncode
    return 0 if code == NOTHING_COLLECTED else code


async def interpreter(requirements: tuple[str, ...], envs: Path) -> Path:
    """The Python that has these packages beside those of serving, made under `envs` when it is missing.

    Raises:
        Failed: no versions fit, or they cannot be had.
    """
    if not requirements:
        return Path(sys.executable)
    with TemporaryDirectory(prefix="belt-") as scratch:
        (cache := Path(scratch) / "cache").mkdir()
        environments = Environments(envs, FsspecArtifactStore(f"file://{scratch}/store", cache))
        try:
            return await environments.python(await environments.resolve(requirements))
        except (BadRequirements, IndexTrouble, InstallTimedOut) as error:
            raise Failed(f"the project's requirements: {error}") from None


def main() -> None:
    home = Path(os.environ.get("BENTOBELT_HOME") or HOME)
    try:
        sys.exit(run(Path(sys.argv[1]), Path(os.environ.get("BENTOBELT_ENVS") or home / "envs")))
    except Failed as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
