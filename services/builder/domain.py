"""What a Bento of an approved version says of itself: pure."""

from collections.abc import Collection, Mapping, Sequence

from contracts.artifact_ref import ArtifactRef
from contracts.events import ImagePushed, ModelApproved
from contracts.runtime import Limits
from contracts.values import Frozen

ARTIFACT = "artifact"
INDEX = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INSECURE_HOST",
)  # fmt: skip
"""Settings of pip and uv that a build is given."""


class BuiltImage(Frozen):
    """Where the Bento of a version can be had, and that it is exactly it."""

    image: str
    """registry/name@sha256:…, or bento+<artifact uri>."""
    artifact: ArtifactRef | None = None
    size: int
    """Bytes."""
    sbom: ArtifactRef | None = None
    """The Python packages inside, of a real image."""


def labels(event: ModelApproved, run: str) -> dict[str, str]:
    """Labels of model and Bento, by which a person finds what a version came from."""
    found = {"run": run, "dataset": event.dataset.sha256[:12], "project": event.project.sha256[:12]}
    return found | ({"commit": event.commit[:40]} if event.commit else {})


def image_labels(event: ModelApproved, run: str, base: str, created: str) -> dict[str, str]:
    """What an image says of itself: in the words that registries know, and in ours.

    Args:
        event: the version.
        run: its run.
        base: name of the image it is based on.
        created: ISO time.
    """
    known = {
        "title": event.model, "version": event.version, "revision": event.commit or "", "created": created,
        "base.name": base,
    }  # fmt: skip
    ours = {
        "model": event.model, "version": event.version, "run": run, "dataset": event.dataset.sha256,
        ARTIFACT: event.artifact.sha256,
    }  # fmt: skip
    labelled = {f"org.opencontainers.image.{name}": value for name, value in known.items() if value}
    return labelled | {f"dev.bentobelt.{name}": value for name, value in ours.items()}


def holds(labels: Mapping[str, str], event: ModelApproved) -> bool:
    """Whether an image with these labels is of exactly this event's model."""
    return labels.get(f"dev.bentobelt.{ARTIFACT}") == event.artifact.sha256


def index_arguments(environ: Mapping[str, str]) -> dict[str, str]:
    """Where packages come from, as arguments for a build: pip's and uv's settings, each from the other if need be.

    Addresses of files are left out: a build does not see this machine's.
    """
    found = {name: _remote(environ[name]) for name in INDEX if _remote(environ.get(name, ""))}
    for pips, uvs in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_EXTRA_INDEX_URL", "UV_INDEX")):
        if known := found.get(uvs) or found.get(pips):
            found = {pips: known, uvs: known} | found
    if (hosts := found.get("PIP_TRUSTED_HOST")) is not None:
        found.setdefault("UV_INSECURE_HOST", hosts)
    return found


def _remote(addresses: str) -> str:
    return " ".join(one for one in addresses.split() if not one.startswith(("file:", "/")))


def pins(lock: str) -> list[str]:
    """The requirements of a hash-locked file without the hashes, each `name==version [; marker]`."""
    lines = [line for line in lock.splitlines() if line and not line[0].isspace()]
    return [line.removesuffix("\\").strip() for line in lines if not line.startswith(("#", "-"))]


def parted(lock: str, parts: Sequence[Collection[str]]) -> list[str]:
    """A hash-locked file as several: a file for the names of each part, and one for the others; options are in all."""
    found = [""] * (len(parts) + 1)
    place = -1
    for line in lock.splitlines(keepends=True):
        if line.startswith("-"):
            found = [part + line for part in found]
            continue
        if line[:1].strip() and not line.startswith("#"):
            name = line.partition("==")[0]
            place = next((number for number, names in enumerate(parts) if name in names), -1)
        found[place] += line
    return found


def pushed(event: ModelApproved, image: BuiltImage, limits: Limits) -> ImagePushed:
    """What to say of a version whose image is there."""
    return ImagePushed(
        model=event.model,
        version=event.version,
        tag=event.tag,
        image=image.image,
        artifact=image.artifact,
        size=image.size,
        sbom=image.sbom,
        limits=limits,
        environment=event.environment,
        probe=event.probe,
        profile=event.profile,
        promise=event.promise,
    )
