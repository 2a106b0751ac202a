"""What a Bento of an approved version says of itself: pure."""

from contracts.artifact import ArtifactRef
from contracts.data import Frozen
from contracts.events import ImagePushed, ModelApproved
from contracts.manifest import Manifest


class Image(Frozen):
    """Where the Bento of a version can be had, and that it is exactly it."""

    image: str
    """registry/name@sha256:…, or bento+<artifact uri>."""
    artifact: ArtifactRef | None = None
    size: int
    """Bytes."""


def manifest(event: ModelApproved, run: str, max_rows: int) -> Manifest:
    """What serving needs to know beside the estimator."""
    return Manifest(
        model=event.model,
        version=event.version,
        run=run,
        task=event.task,
        features=event.features,
        target=event.target,
        classes=event.classes,
        promise=event.promise,
        max_rows=max_rows,
        trained=event.trained,
        dataset=event.dataset.sha256,
        commit=event.commit,
    )


def labels(event: ModelApproved, run: str) -> dict[str, str]:
    """Labels of model and Bento, by which a person finds what a version came from."""
    found = {"run": run, "dataset": event.dataset.sha256[:12], "project": event.project.sha256[:12]}
    return found | ({"commit": event.commit[:40]} if event.commit else {})


def pins(lock: str) -> list[str]:
    """The requirements of a hash-locked file without the hashes, each `name==version [; marker]`."""
    lines = [line for line in lock.splitlines() if line and not line[0].isspace()]
    return [line.removesuffix("\\").strip() for line in lines if not line.startswith(("#", "-"))]


def pushed(event: ModelApproved, image: Image) -> ImagePushed:
    """What to say of a version whose image is there."""
    return ImagePushed(
        model=event.model,
        version=event.version,
        tag=event.tag,
        image=image.image,
        artifact=image.artifact,
        size=image.size,
        environment=event.environment,
        probe=event.probe,
        profile=event.profile,
        promise=event.promise,
    )
