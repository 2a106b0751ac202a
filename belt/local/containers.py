"""Serving containers of a home. They are children of the Docker engine, so `belt up` finds and ends them by a label.

The file `run/containers` exists as long as there may be some. After a `belt up` that was killed the next one finds the
file and ends them, even if it runs with other settings. Without file and setting, Docker is not used at all.
"""

import hashlib
import os
from collections.abc import Callable

from belt.local.home import Home


def label(home: Home) -> str:
    """Return the label of this home's containers; other homes may use the same engine."""
    return f"up-{hashlib.sha256(str(home.root).encode()).hexdigest()[:16]}"


def expect(home: Home) -> None:
    """Record that there may be containers, if the deployer is set to start them."""
    if _are_enabled():
        (home.run / "containers").touch()


def end(home: Home, grace: float, report: Callable[[str], None]) -> None:
    """End all serving containers of a home; they get `grace` seconds to finish their requests.

    `report` is called with a sentence when they cannot be ended; the next `belt up` tries again.
    """
    record = home.run / "containers"
    if not record.exists() and not _are_enabled():
        return
    # Imported here, because the Docker client is slow to import and only needed with an engine.
    from services.deployer.backends.containers import remove_all
    from services.docker_engine import DockerRefused, DockerTrouble

    try:
        remove_all(label(home), grace)
    except (DockerTrouble, DockerRefused) as error:
        report(f"serving containers may still run; the next `belt up` on this home ends them: {error}")
        return
    record.unlink(missing_ok=True)


def _are_enabled() -> bool:
    return os.environ.get("DEPLOYER_SERVERS") == "containers"
