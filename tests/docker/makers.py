"""A builder's parts, put together as its app does it, without a bus."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from contracts.events import ModelApproved
from services.builder.app import open_images
from services.builder.bento import JOB, BentoBuilder, use_store
from services.builder.domain import BuiltImage
from services.builder.settings import Settings
from services.sandbox.client import Sandbox
from services.sandbox.environments import Environments
from services.storage.artifact_store import FsspecArtifactStore
from tests.docker.approvals import example


class Maker:
    """Builds Bentos and images in `home`.

    Args:
        home: for everything.
        registry: where images go.
        way: BUILDER_IMAGES.
        more: other settings.
    """

    def __init__(
        self, home: Path, registry: str, way: Literal["docker", "containerize"] = "docker", **more: str
    ) -> None:
        (home / "cache").mkdir(exist_ok=True)
        self.artifacts = FsspecArtifactStore(f"file://{home}/store", home / "cache")
        environments = Environments(home / "envs", self.artifacts)
        self.base, self._environments = environments.base, environments
        folder = home / "builds"
        folder.mkdir(exist_ok=True)
        use_store(folder)
        settings = Settings.model_validate({"home": home, "images": way, "registry": registry, "keep": 2, **more})
        self._forks = Sandbox(environments, [JOB])
        self.bentos = BentoBuilder(self._forks, self.artifacts, folder, seconds=120, keep=5)
        self.images = open_images(settings, self.artifacts, folder)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._forks.close()

    async def example(
        self, name: str, number: int, *, trees: int | None = None, requirements: Sequence[str] = ()
    ) -> ModelApproved:
        """An approved version of an example, in the environment that these extra requirements make."""
        environment = await self._environments.resolve(requirements)
        return await example(self.artifacts, environment, name, number, trees=trees)

    async def make(self, event: ModelApproved) -> BuiltImage:
        """Its image."""
        run = f"run{event.version.split('-')[0]}"
        async with self.bentos.build(event, run) as bento:
            return await self.images.make(event, run, bento)
