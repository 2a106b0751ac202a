"""Real images: made by an engine, pushed to a registry, named by the digest that the registry gave."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from contracts.artifact_ref import CYCLONEDX
from contracts.events import ModelApproved
from services.builder.domain import BuiltImage, holds, image_labels
from services.docker_engine.client import Engine
from services.docker_engine.errors import DockerRefused, DockerTrouble
from services.storage import ArtifactStore

log = structlog.get_logger()


class Recipe(Protocol):
    """How an image is made of a Bento: `layered.Layered`, or `plain.Plain`. Both block."""

    base: str
    """Name of what images are based on, with {python} in it."""

    def build(self, name: str, event: ModelApproved, bento: Path, labels: dict[str, str]) -> None:
        """Make the image `name` in the engine."""
        ...

    def prepare(self) -> None:
        """Make and push what images of the base environment have in common, unless it is there."""
        ...

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        """The Python packages inside an image made so, as CycloneDX."""
        ...


class PushedImages:
    """Makes images and pushes them as `<registry>/<model>:<version>`.

    The tag is looked for first, so that nothing is built or pushed twice, whoever did it: this process, one that was
    killed before it could say so, or another builder.
    """

    def __init__(self, engine: Engine, recipe: Recipe, artifacts: ArtifactStore, keep: int) -> None:
        self._engine, self._recipe, self._artifacts, self._keep = engine, recipe, artifacts, keep
        self._made: asyncio.Queue[str] = asyncio.Queue()
        """Repositories with a new image."""

    async def stay_ready(self) -> None:
        """Make what the first version will need while nobody waits for it; what fails is left to the first version.

        And forget old images after each new one, which nobody waits for either.
        """
        # A daemon: the process does not wait for it when it is stopped.
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()
        while True:
            await asyncio.to_thread(self._prune, await self._made.get())

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.close)

    async def find(self, event: ModelApproved) -> BuiltImage | None:
        digest = await asyncio.to_thread(self._find, event)
        return await self._described(event, digest) if digest else None

    async def make(self, event: ModelApproved, run: str, bento: Path) -> BuiltImage:
        digest = await asyncio.to_thread(self._make, event, run, bento)
        image = await self._described(event, digest)
        self._made.put_nowait(self._name(event))
        return image

    def _prepare(self) -> None:
        try:
            self._recipe.prepare()
        except (DockerTrouble, DockerRefused) as error:
            log.warning("nothing is prepared; the first build does it", error=str(error))

    def _find(self, event: ModelApproved) -> str | None:
        name = self._name(event)
        digest = self._engine.digest(name, event.version)
        if digest is None:
            return None
        there = self._engine.local(f"{name}@{digest}")
        if there is None and self._engine.pull(name, digest):
            there = self._engine.local(f"{name}@{digest}")
        # A tag is only a name: what it stands for may be of another model with the same version.
        return digest if there is not None and holds(there.labels, event) else None

    def _make(self, event: ModelApproved, run: str, bento: Path) -> str:
        name = self._name(event)
        there = self._engine.local(f"{name}:{event.version}")
        if there is None or not holds(there.labels, event):  # else: built, and not pushed before something failed
            base = self._recipe.base.format(python=minor(event.environment.python))
            created = datetime.fromtimestamp(event.trained, UTC).isoformat()
            self._recipe.build(f"{name}:{event.version}", event, bento, image_labels(event, run, base, created))
        return self._engine.push(name, event.version)

    async def _described(self, event: ModelApproved, digest: str) -> BuiltImage:
        name = f"{self._name(event)}@{digest}"
        size, bill = await asyncio.to_thread(self._look, name)
        return BuiltImage(image=name, size=size, sbom=await self._artifacts.put(bill, CYCLONEDX))

    def _look(self, name: str) -> tuple[int, bytes]:
        local = self._engine.local(name)
        if local is None:
            raise DockerTrouble(f"{name} was removed from the engine while it was looked at")
        return local.size, self._recipe.bill(name, dict(local.labels))

    def _prune(self, name: str) -> None:
        try:
            self._engine.prune(name, self._keep)
        except (DockerTrouble, DockerRefused) as error:
            log.warning("old images stay", error=str(error))

    def _name(self, event: ModelApproved) -> str:
        return f"{self._engine.registry}/{event.model}"


def minor(python: str) -> str:
    """A Python version, such as 3.11.7, as images are tagged with: 3.11."""
    return ".".join(python.split(".")[:2])
