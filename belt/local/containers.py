"""Serving containers of a home. They are the engine's, no children of `belt up`, so it ends them by their label.

`run/containers` is there while there may be some: a `belt up` that was killed leaves it to the next one, which may run
with other settings. Without it, and without the setting, Docker is not even looked for.
"""

import hashlib
import os
from collections.abc import Callable

from belt.local.home import Home


def label(home: Home) -> str:
    """What its deployer labels them with: other belts may use the same engine."""
    return f"up-{hashlib.sha256(str(home.root).encode()).hexdigest()[:16]}"


def expect(home: Home) -> None:
    """Note that there will be some, if the deployer is set to containers."""
    if _are_set():
        (home.run / "containers").touch()


def end(home: Home, grace: float, say: Callable[[str], None]) -> None:
    """End them all.

    Args:
        home: whose they are.
        grace: seconds they may finish their requests.
        say: told when they cannot be ended; the next `belt up` tries again.
    """
    noted = home.run / "containers"
    if not noted.exists() and not _are_set():
        return
    # Heavy, and only for those who have an engine.
    from services.deployer.backends.containers import remove_all
    from services.docker_engine.errors import DockerRefused, DockerTrouble

    try:
        remove_all(label(home), grace)
    except (DockerTrouble, DockerRefused) as error:
        say(f"serving containers may go on, until the next `belt up` here: {error}")
        return
    noted.unlink(missing_ok=True)


def _are_set() -> bool:
    return os.environ.get("DEPLOYER_SERVERS") == "containers"
