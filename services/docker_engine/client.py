"""The one client of the Docker engine: connected at the first call, used from many threads."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import docker
from docker import DockerClient
from docker.auth import resolve_repository_name
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag

from services.docker_engine.credentials import login
from services.docker_engine.errors import ImageMissing, Operation, StreamError, Unauthorized, explained

T = TypeVar("T")
THREADS = 16
"""More than the event loop's own few threads: a pull takes minutes, and a short call must not wait for it."""


@dataclass(frozen=True)
class LocalImage:
    """An image that the engine has. `digests` are its names in the registries it was pushed to or pulled from."""

    id: str
    size: int
    labels: Mapping[str, str]
    digests: Sequence[str]


class DockerEngine:
    """The engine that DOCKER_HOST names, or the one of this machine.

    Every method raises one of the kinds of `services.docker_engine.errors`: DockerTrouble may pass, DockerRefused
    needs a person.

    Args:
        service: prefix of the service's settings, such as BUILDER, for messages.
        credentials: file with `user:password` for the registry; None leaves that to Docker's own configuration.
        seconds: how long the engine may be silent.
        url: address of another engine.
    """

    def __init__(
        self, service: str, credentials: Path | None = None, *, seconds: float = 60.0, url: str | None = None
    ) -> None:
        self._service, self._credentials, self._seconds, self._url = service, credentials, seconds, url
        self._client: DockerClient | None = None
        self._connecting = Lock()
        self._threads = ThreadPoolExecutor(THREADS, "engine")

    @contextlib.contextmanager
    def calling(self, what: str, registry: str = "") -> Iterator[DockerClient]:
        """Lend the client, and sort the errors that it raises.

        Args:
            what: description for messages, such as "pushing 127.0.0.1:5000/digits:7-0a1b2c3d".
            registry: address of the registry that takes part.
        """
        with explained(Operation(what, registry, self._service)):
            client = self._connected()
            client.api.reload_config()  # somebody may have run `docker login` since
            yield client

    async def call(self, action: Callable[[DockerClient], T], what: str) -> T:
        """Return the result of `action`, called with the client in a thread."""

        def run() -> T:
            with self.calling(what) as client:
                return action(client)

        return await self.in_thread(run)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a method of this class, called in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    def local(self, image: str) -> LocalImage | None:
        """Return the image as the engine has it."""
        with self.calling(f"looking for {image}") as client:
            try:
                found = client.api.inspect_image(image)
            except ImageNotFound:
                return None
            labels = found["Config"].get("Labels") or {}
            return LocalImage(found["Id"], found["Size"], labels, found.get("RepoDigests") or ())

    def digest(self, name: str, tag: str) -> str | None:
        """Return the digest that the registry gives an image; None when it has no such image."""
        with _missing_is_none(), self.calling(f"looking for {name}:{tag} in the registry", _registry(name)) as client:
            found = client.images.get_registry_data(f"{name}:{tag}", auth_config=self._auth())
            return str(found.id)
        return None

    def pull(self, name: str, reference: str) -> None:
        """Pull an image by tag or digest, with the registry's credentials."""
        with self.calling(f"pulling {name}:{reference}", _registry(name)) as client:
            _follow(client.api.pull(name, tag=reference, stream=True, decode=True, auth_config=self._auth()))

    def try_pull(self, name: str, reference: str) -> bool:
        """Pull an image, and return whether the registry has it."""
        with _missing_is_none():
            self.pull(name, reference)
            return True
        return False

    def need(self, image: str) -> None:
        """Pull an image of any registry, as Docker's own configuration allows, unless the engine has it."""
        if self.local(image) is None:
            name, tag = parse_repository_tag(image)
            with self.calling(f"pulling {image}", _registry(name)) as client:
                _follow(client.api.pull(name, tag=tag or "latest", stream=True, decode=True))

    def push(self, name: str, tag: str) -> str:
        """Push an image, and return the digest that the registry gave it."""
        with self.calling(f"pushing {name}:{tag}", _registry(name)) as client:
            lines = client.api.push(name, tag, stream=True, decode=True, auth_config=self._auth())
            digests = [aux["Digest"] for line in _follow(lines) if "Digest" in (aux := line.get("aux", {}))]
            if not digests:
                raise StreamError("the registry gave no digest")
            return str(digests[-1])

    def output(self, image: str, command: Sequence[str]) -> bytes:
        """Return the standard output of a program of an image; it reaches no network."""
        with self.calling(f"running {command[0]} in {image}") as client:
            printed: bytes = client.containers.run(
                image, list(command[1:]), entrypoint=command[0], network_mode="none", remove=True
            )
            return printed

    def prune(self, name: str, keep: int) -> None:
        """Remove all but the newest images of a repository; an image that a container uses stays."""
        with self.calling(f"removing old images of {name}") as client:
            # Not `client.images.list`, which fails when someone removes one meanwhile.
            found = sorted(client.api.images(name), key=lambda image: _created(client, image["Id"]))[:-keep]
            used = {container["ImageID"] for container in client.api.containers(all=True)} if found else set()
            for image in found:
                for tag in (image["RepoTags"] or ()) if image["Id"] not in used else ():
                    with contextlib.suppress(APIError):  # someone uses it since, or was faster
                        client.api.remove_image(tag)

    def _connected(self) -> DockerClient:
        with self._connecting:
            if self._client is None:
                seconds = self._seconds
                self._client = (
                    DockerClient(self._url, timeout=seconds) if self._url else docker.from_env(timeout=seconds)
                )
            return self._client

    def _auth(self) -> dict[str, str] | None:
        return login(self._credentials, f"{self._service}_REGISTRY_CREDENTIALS")


def _registry(name: str) -> str:
    """Return the address of the registry in the name of an image."""
    return str(resolve_repository_name(name)[0])


def _created(client: DockerClient, image: str) -> str:
    """Return the time at which an image was made. Lists have whole seconds, in which a builder may make two."""
    try:
        return str(client.api.inspect_image(image)["Created"])
    except ImageNotFound:
        return ""


@contextlib.contextmanager
def _missing_is_none() -> Iterator[None]:
    """Pass over a missing image. Docker Hub and others answer "denied" for one even to their users."""
    try:
        yield
    except ImageMissing:
        return
    except Unauthorized as error:
        if "denied" not in str(error):
            raise


def _follow(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read a stream to its end.

    Raises:
        StreamError: there is an error in it.
    """
    read: list[dict[str, Any]] = []
    for line in lines:
        if "error" in line:
            raise StreamError(str(line["error"]))
        read.append(line)
    return read
