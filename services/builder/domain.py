"""Labels of Bentos and images, settings of a build, and the event at the end: pure."""

from collections.abc import Mapping
from typing import Any

from contracts.artifact_ref import ArtifactRef
from contracts.events import ImagePushed, ModelApproved
from contracts.model_spec import ModelSpec
from contracts.serve_spec import Serve
from contracts.values import Frozen

ARTIFACT = "artifact"
INDEX = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INSECURE_HOST",
)  # fmt: skip
"""Settings of pip and uv that a build is given."""


class BuiltImage(Frozen):
    """The image of a version, and where it is."""

    image: str
    """registry/name@sha256:…, or bento+<artifact uri>."""
    artifact: ArtifactRef | None = None
    size: int
    """Bytes."""
    sbom: ArtifactRef | None = None
    """The Python packages inside, of a real image."""


def labels(event: ModelApproved, run: str) -> dict[str, str]:
    """Return the labels of model and Bento, by which a person finds the origin of a version."""
    found = {"run": run, "dataset": event.dataset.sha256[:12], "project": event.project.sha256[:12]}
    return found | ({"commit": event.commit[:40]} if event.commit else {})


def image_labels(event: ModelApproved, run: str, base: str, created: str) -> dict[str, str]:
    """Return the labels of an image: those that registries know, and ours.

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
    """Return whether an image with these labels holds exactly this event's model."""
    return labels.get(f"dev.bentobelt.{ARTIFACT}") == event.artifact.sha256


def index_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the package index for a build: pip's and uv's, each from the other if need be.

    Addresses of files are left out: a build does not see the files of this machine.
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
    """Return the requirements of a hash-locked file without the hashes, each `name==version [; marker]`."""
    lines = [line for line in lock.splitlines() if line and not line[0].isspace()]
    return [line.removesuffix("\\").strip() for line in lines if not line.startswith(("#", "-"))]


def docker_options(serve: Serve, python: str) -> dict[str, Any]:
    """Return BentoML's `docker` options, which `bentoml containerize` follows."""
    base = {"base_image": serve.base_image} if serve.base_image else {"python_version": minor(python)}
    return base | ({"system_packages": list(serve.system_packages)} if serve.system_packages else {})


def minor(python: str) -> str:
    """Return a Python version, such as 3.11.7, as base images are tagged with it: 3.11."""
    return ".".join(python.split(".")[:2])


def without_effect(serve: Serve) -> list[str]:
    """Return the keys of `serve` that a packed Bento, which is no image, cannot follow."""
    return [name for name in ("system_packages", "base_image", "dockerfile") if getattr(serve, name)]


def pushed(event: ModelApproved, image: BuiltImage, spec: ModelSpec) -> ImagePushed:
    """Return the event for a version whose image is pushed."""
    return ImagePushed(
        model=event.model,
        version=event.version,
        tag=event.tag,
        image=image.image,
        artifact=image.artifact,
        size=image.size,
        sbom=image.sbom,
        limits=spec.serve.limits,
        env=spec.env or None,
        environment=event.environment,
        probe=event.probe,
        profile=event.profile,
        promise=event.promise,
    )
