"""Images on the engine: pulled by digest when they are not there, removed when nobody needs them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from docker import DockerClient
from docker.errors import APIError, NotFound

from services.deployer.backends.engine import Engine
from services.deployer.backends.protocol import BackendAway
from services.deployer.domain import StoredImage, images_to_prune
from services.docker_engine.credentials import login
from services.docker_engine.errors import DockerTrouble, StreamError

log = structlog.get_logger()
MODEL, VERSION = "dev.bentobelt.model", "dev.bentobelt.version"
"""Labels of our images and of their containers."""
KEPT = 3
"""Newest images of a model that are kept beside those that containers use: going back to one needs no registry."""


class ImageCache:
    """Images of models.

    Args:
        engine: where they are.
        credentials: file with the line `user:password`; without it what `docker login` has left is used.
    """

    def __init__(self, engine: Engine, credentials: Path | None) -> None:
        self._engine, self._credentials = engine, credentials
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def held(self, image: str) -> Iterator[None]:
        """While held, `image` is not pruned: no container uses it yet."""
        self._held[image] += 1
        try:
            yield
        finally:
            self._held[image] -= 1

    async def fetch(self, image: str) -> None:
        """See to it that the engine has `image` (`registry/name@sha256:…`).

        Raises:
            DockerRefused: credentials refused, or there is no such image.
            DockerTrouble: registry away, no space.
            BackendAway: the engine does not answer.
        """
        if not await self._engine.call(lambda client: _is_there(client, image), f"looking for {image}"):
            auth = await asyncio.to_thread(login, self._credentials, "DEPLOYER_REGISTRY_CREDENTIALS")
            registry = image.partition("/")[0]
            await self._engine.call(lambda client: _pull(client, image, auth), f"pulling {image}", registry)

    async def prune(self, model: str, repository: str) -> None:
        """Remove old images of `model` from `repository`: untagged ones that no container uses, but for the newest.

        What cannot be removed now is removed when the next server ends.
        """
        held, what = frozenset(+self._held), f"removing images of {repository}"
        try:
            removed = await self._engine.call(lambda client: _prune(client, model, repository, held), what)
        except (BackendAway, DockerTrouble) as error:
            log.warning("old images stay", model=model, error=str(error))
            return
        if removed:
            log.info("old images removed", model=model, images=removed)


def _is_there(client: DockerClient, image: str) -> bool:
    try:
        client.api.inspect_image(image)
    except NotFound:
        return False
    return True


def _pull(client: DockerClient, image: str, auth: dict[str, str] | None) -> None:
    repository, _, digest = image.partition("@")
    client.api.reload_config()  # somebody may have logged in since
    for line in client.api.pull(repository, tag=digest, auth_config=auth, stream=True, decode=True):
        if "error" in line:
            raise StreamError(line["error"])


def _prune(client: DockerClient, model: str, repository: str, held: frozenset[str]) -> list[str]:
    used = frozenset(str(container["ImageID"]) for container in client.api.containers(all=True))
    found = client.api.images(filters={"label": f"{MODEL}={model}"})
    removed = []
    for image in images_to_prune([_stored(one, repository) for one in found], used, held, KEPT):
        with contextlib.suppress(APIError):  # taken into use, or removed, meanwhile
            client.api.remove_image(image)
            removed.append(image)
    return removed


def _stored(image: dict[str, Any], repository: str) -> StoredImage:
    return StoredImage(
        id=str(image["Id"]),
        version=str((image["Labels"] or {}).get(VERSION, "")),
        names=tuple(name for name in image["RepoDigests"] or () if name.partition("@")[0] == repository),
        tagged=any(tag != "<none>:<none>" for tag in image["RepoTags"] or ()),
    )
