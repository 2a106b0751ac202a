"""Images on the engine: pulled by digest when they are not there, removed when nobody needs them."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import structlog
from docker import DockerClient
from docker.errors import APIError

from services.deployer.backends.engine import ServingEngine
from services.deployer.backends.protocol import BackendAway
from services.deployer.domain import StoredImage, images_to_prune
from services.docker_engine import DockerTrouble

log = structlog.get_logger()
MODEL, VERSION = "dev.bentobelt.model", "dev.bentobelt.version"
"""Labels of our images and of their containers."""
KEPT = 3
"""Newest images of a model that are kept beside those that containers use: going back to one needs no registry."""


class ImageCache:
    """Images of models on the engine."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine
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
        """Pull `image` (`registry/name@sha256:…`), unless the engine has it.

        Raises:
            DockerRefused: credentials refused, or there is no such image.
            DockerTrouble: registry away, no space.
            BackendAway: the engine does not answer.
        """
        if await self._engine.in_thread(self._engine.local, image) is None:
            repository, _, digest = image.partition("@")
            await self._engine.in_thread(self._engine.pull, repository, digest)

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
