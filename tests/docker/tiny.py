"""A tiny image that keeps the container contract, in every way that a version can go well or wrong."""

import io
import tarfile
from pathlib import Path

import docker

from contracts.events import ImagePushed
from contracts.features import Probe
from contracts.profiles import Profile
from contracts.runtime import Environment, Limits
from contracts.verdicts import PerformanceTarget
from tests.docker.registries import PASSWORD, USER, Registry
from tests.integration.services.deployer.rollouts import version

MODEL = "tiny"
MIB = 1024 * 1024
SERVER = (Path(__file__).parent / "tiny_server.py").read_text()


def push(engine: docker.DockerClient, registry: Registry, number: int, mode: str = "good") -> ImagePushed:
    """Build and push version `number`, as `mode` of tiny_server.py says; afterwards the engine has it no more."""
    name = f"{registry.address}/{MODEL}"
    tag = f"{name}:{version(number)}"
    image, _ = engine.images.build(fileobj=_context(number, mode), custom_context=True, tag=tag, rm=True)
    login = {"username": USER, "password": PASSWORD} if registry.private else None
    for line in engine.api.push(tag, stream=True, decode=True, auth_config=login):
        assert "error" not in line, line
    remove(engine, image.id)
    digest = registry.digest(MODEL, version(number))
    return pushed(number, f"{name}@{digest}")


def pushed(number: int, image: str, **fields: object) -> ImagePushed:
    """The event of version `number`."""
    event = ImagePushed(
        model=MODEL, version=version(number), tag=f"{MODEL}:{version(number)}", image=image, size=1,
        environment=Environment(python="3.11.7", lock="0" * 64),
        probe=Probe(rows=({"a": 0.1, "b": 0.2}, {"a": 0.9, "b": 0.2}), predictions=(0, 1)),
        profile=Profile(rows=0, columns=(), prediction={"name": "y", "counts": ()}),  # type: ignore[arg-type]
        promise=PerformanceTarget(metric="accuracy", value=0.9),
        limits=Limits(memory=256 * MIB, cpus=0.5),
    )  # fmt: skip
    return event.model_copy(update=fields)


def remove(engine: docker.DockerClient, image: str) -> None:
    """Take an image from the engine, with all its names."""
    try:
        engine.images.remove(image, force=True)
    except docker.errors.ImageNotFound:
        return


def has(engine: docker.DockerClient, image: str) -> bool:
    """Return whether the engine has the image."""
    try:
        engine.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


def _context(number: int, mode: str) -> io.BytesIO:
    dockerfile = f"""\
FROM python:3.11-slim
LABEL dev.bentobelt.model={MODEL} dev.bentobelt.version={version(number)}
COPY tiny_server.py /
ENV HOST=0.0.0.0 PORT=3000 VERSION={version(number)} MODE={mode} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1034:1034
ENTRYPOINT ["python3", "-I", "/tiny_server.py"]
"""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in {"Dockerfile": dockerfile, "tiny_server.py": SERVER}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    packed.seek(0)
    return packed
