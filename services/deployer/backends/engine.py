"""The Docker engine: called in threads, connected when first needed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import docker
from docker import DockerClient

from services.deployer.backends.protocol import BackendAway
from services.docker_engine import errors
from services.docker_engine.errors import Doing, explained

T = TypeVar("T")
THREADS = 16
"""Not the loop's own few threads: a pull takes minutes, a stop its grace, and a look must not wait for them."""


class Engine:
    """The engine at `url`; default: the one that DOCKER_HOST names, or this machine's."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._client: DockerClient | None = None
        self._connecting = Lock()
        self._threads = ThreadPoolExecutor(THREADS, "engine")

    async def call(self, action: Callable[[DockerClient], T], what: str, registry: str = "") -> T:
        """What `action` returns, called with the client in a thread.

        Args:
            action: the call.
            what: what is being done, for messages: "looking for containers".
            registry: address of the one it needs.

        Raises:
            BackendAway: the engine does not answer.
            DockerTrouble, DockerRefused: it answered that it cannot, or will not.
        """
        doing = Doing(what, registry, "DEPLOYER")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, action, doing)

    def _run(self, action: Callable[[DockerClient], T], doing: Doing) -> T:
        try:
            with explained(doing):
                return action(self._connected())
        except errors.EngineAway as error:
            raise BackendAway(str(error)) from error

    def _connected(self) -> DockerClient:
        with self._connecting:
            if self._client is None:
                self._client = DockerClient(self._url) if self._url else docker.from_env()
            return self._client
