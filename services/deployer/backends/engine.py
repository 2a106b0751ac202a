"""The Docker engine as a backend of the deployer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from services.deployer.backends.protocol import BackendAway
from services.docker_engine import DockerEngine, EngineAway

T = TypeVar("T")


class ServingEngine(DockerEngine):
    """The engine that runs serving containers. When it does not answer, that is a BackendAway."""

    def __init__(self, credentials: Path | None = None, url: str | None = None) -> None:
        super().__init__("DEPLOYER", credentials, url=url)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        try:
            return await super().in_thread(function, *arguments)
        except EngineAway as error:
            raise BackendAway(str(error)) from error
