"""Images of the embedded default: the Bento as a tar in the artifact store, named by its digest."""

import asyncio
from pathlib import Path
from typing import Protocol

import structlog

from contracts.artifact_ref import BENTO
from contracts.events import ModelApproved
from services.builder.bento import BuiltBento
from services.builder.domain import BuiltImage, without_effect
from services.host import write_atomically
from services.storage import ArtifactCorrupt, ArtifactMissing, ArtifactStore

log = structlog.get_logger()


class ImageBuilder(Protocol):
    """Makes images: `PackedBentos`, or `services.builder.images.PushedImages`."""

    async def stay_ready(self) -> None:
        """Prepare for images, in the background; returns never."""
        ...

    async def close(self) -> None:
        """End the builds that run."""
        ...

    async def find(self, event: ModelApproved) -> BuiltImage | None:
        """Return the image of a version that was made before."""
        ...

    async def make(self, event: ModelApproved, run: str, bento: BuiltBento) -> BuiltImage:
        """Make the image from a Bento and push it."""
        ...


class PackedBentos:
    """Puts the Bento itself into the store.

    Args:
        folder: folder of the records, one for each version that was made.
    """

    def __init__(self, artifacts: ArtifactStore, folder: Path) -> None:
        self._artifacts, self._folder = artifacts, folder

    async def stay_ready(self) -> None:
        await asyncio.Event().wait()  # they need nothing

    async def close(self) -> None:
        return

    async def find(self, event: ModelApproved) -> BuiltImage | None:
        try:
            image = BuiltImage.model_validate_json(self._record_file(event).read_bytes())
            return image if await self._is_stored(image) else None
        except FileNotFoundError:
            return None

    async def make(self, event: ModelApproved, run: str, bento: BuiltBento) -> BuiltImage:
        if keys := without_effect(bento.spec.serve):
            log.warning(
                "without effect: a packed Bento is no image (BUILDER_IMAGES)", keys=[f"serve.{key}" for key in keys]
            )
        ref = await self._artifacts.put(bento.tar, BENTO)
        image = BuiltImage(image=f"bento+{ref.uri}", artifact=ref, size=ref.size)
        write_atomically(self._record_file(event), image.model_dump_json())
        return image

    async def _is_stored(self, image: BuiltImage) -> bool:
        """Return whether the store has the image: the record is only on this machine."""
        if image.artifact is None:
            return False
        try:
            # Put again: what the store has lost and the local cache still has goes back, else nothing happens.
            await self._artifacts.put(await self._artifacts.fetch(image.artifact), BENTO)
        except (ArtifactMissing, ArtifactCorrupt):
            return False
        return True

    def _record_file(self, event: ModelApproved) -> Path:
        # The artifact is part of the name: a version approved again after a changed event is not the same image.
        return self._folder / event.model / f"{event.version}-{event.artifact.sha256[:16]}.json"
