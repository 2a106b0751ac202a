"""Real images: made by an engine, pushed to a registry, named by the digest that the registry gave."""

import asyncio
import threading
from datetime import UTC, datetime
from typing import Protocol

import structlog

from contracts.artifact_ref import CYCLONEDX
from contracts.events import ModelApproved
from services.builder.bento import BuiltBento
from services.builder.commands import CommandRunner
from services.builder.domain import BuiltImage, holds, image_labels, minor
from services.docker_engine import DockerEngine, DockerRefused, DockerTrouble
from services.storage import ArtifactStore

log = structlog.get_logger()


class ImageRecipe(Protocol):
    """Makes an image of a Bento: `serving_image.DockerfileRecipe` or `containerize.ContainerizeRecipe`. Both block."""

    base: str
    """Name of the image that images are based on, with {python} in it."""

    def build(self, name: str, event: ModelApproved, bento: BuiltBento, labels: dict[str, str]) -> None:
        """Make the image `name` in the engine."""
        ...

    def prepare(self) -> None:
        """Make and push the part that images of the base environment share, unless it is there."""
        ...

    def package_list(self, image: str, labels: dict[str, str]) -> bytes:
        """Return the Python packages inside an image, as CycloneDX."""
        ...


class PushedImages:
    """Makes images and pushes them as `<registry>/<model>:<version>`.

    The tag is looked up first, so that no image is built or pushed twice, whoever did it: this process, one that was
    killed before it could publish the event, or another builder.

    Args:
        engine: Docker engine.
        registry: prefix of image names.
        recipe: makes the images.
        commands: commands that `close` ends.
        artifacts: store of the lists of packages.
        keep: newest images of a model that the engine keeps.
    """

    def __init__(
        self,
        engine: DockerEngine,
        registry: str,
        recipe: ImageRecipe,
        commands: CommandRunner,
        artifacts: ArtifactStore,
        keep: int,
    ) -> None:
        self._engine, self._registry, self._recipe, self._commands = engine, registry, recipe, commands
        self._artifacts, self._keep = artifacts, keep
        self._made: asyncio.Queue[str] = asyncio.Queue()
        """Repositories with a new image."""

    async def stay_ready(self) -> None:
        """Prepare for the first version, and remove old images after each new one: nobody waits for either.

        A preparation that fails is repeated by the first version.
        """
        # A daemon: the process does not wait for it when it is stopped.
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()
        while True:
            await asyncio.to_thread(self._prune, await self._made.get())

    async def close(self) -> None:
        self._commands.close()

    async def find(self, event: ModelApproved) -> BuiltImage | None:
        digest = await asyncio.to_thread(self._find, event)
        return await self._described(event, digest) if digest else None

    async def make(self, event: ModelApproved, run: str, bento: BuiltBento) -> BuiltImage:
        digest = await asyncio.to_thread(self._make, event, run, bento)
        image = await self._described(event, digest)
        self._made.put_nowait(self._name(event))
        return image

    def _prepare(self) -> None:
        try:
            self._recipe.prepare()
        except (DockerTrouble, DockerRefused) as error:
            log.warning("the runtime image is not prepared; the first build makes it", error=str(error))

    def _find(self, event: ModelApproved) -> str | None:
        name = self._name(event)
        digest = self._engine.digest(name, event.version)
        if digest is None:
            return None
        there = self._engine.local(f"{name}@{digest}")
        if there is None and self._engine.try_pull(name, digest):
            there = self._engine.local(f"{name}@{digest}")
        # A tag is only a name: its image may hold another model with the same version.
        return digest if there is not None and holds(there.labels, event) else None

    def _make(self, event: ModelApproved, run: str, bento: BuiltBento) -> str:
        name = self._name(event)
        there = self._engine.local(f"{name}:{event.version}")
        if there is None or not holds(there.labels, event):  # else: built, and not pushed before something failed
            serve = bento.spec.serve
            base = (
                serve.dockerfile or serve.base_image or self._recipe.base.format(python=minor(event.environment.python))
            )
            created = datetime.fromtimestamp(event.trained, UTC).isoformat()
            self._recipe.build(f"{name}:{event.version}", event, bento, image_labels(event, run, base, created))
        return self._engine.push(name, event.version)

    async def _described(self, event: ModelApproved, digest: str) -> BuiltImage:
        name = f"{self._name(event)}@{digest}"
        size, packages = await asyncio.to_thread(self._look, name)
        return BuiltImage(image=name, size=size, sbom=await self._artifacts.put(packages, CYCLONEDX))

    def _look(self, name: str) -> tuple[int, bytes]:
        local = self._engine.local(name)
        if local is None:
            raise DockerTrouble(f"{name} was removed from the engine while the builder read it")
        return local.size, self._recipe.package_list(name, dict(local.labels))

    def _prune(self, name: str) -> None:
        try:
            self._engine.prune(name, self._keep)
        except (DockerTrouble, DockerRefused) as error:
            log.warning("old images stay", error=str(error))

    def _name(self, event: ModelApproved) -> str:
        return f"{self._registry}/{event.model}"
