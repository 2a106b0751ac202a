"""The Bento of a version, built by `jobs.build_bento` in a child process of the version's environment."""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from contracts import model_spec
from contracts.artifact_ref import TEXT, ArtifactRef
from contracts.events import ModelApproved
from contracts.model_spec import ModelSpec
from contracts.packaged_model import Manifest
from contracts.runtime import Environment
from services.builder.domain import docker_options, labels
from services.messaging import Permanent
from services.sandbox import BASE_LOCK, Sandbox, explained
from services.storage import ArtifactStore

log = structlog.get_logger()
JOB = "services.builder.jobs.build_bento"


@dataclass(frozen=True)
class BuiltBento:
    """A Bento on disk.

    Attributes:
        folder: the Bento.
        tar: the same, as an uncompressed tar: equal content gives equal bytes.
        project: folder of the model's project.
        spec: the project's model.yaml.
    """

    folder: Path
    tar: Path
    project: Path
    spec: ModelSpec


class Bentos(Protocol):
    """Builds Bentos."""

    def build(self, event: ModelApproved, run: str) -> contextlib.AbstractAsyncContextManager[BuiltBento]:
        """Build the Bento of a version; it lives as long as the context.

        Raises:
            BuildRefused: BentoML refuses to build it.
            TimedOut, OutOfMemory, ChildKilled: the build was ended.
        """
        ...

    async def spec(self, event: ModelApproved) -> ModelSpec:
        """Return the model.yaml of the version's project."""
        ...


class BuildRefused(Permanent):
    """BentoML refuses to build the Bento."""


class BentoBuilder:
    """Builds Bentos in child processes, in a BentoML store of its own under `folder`."""

    def __init__(self, sandbox: Sandbox, artifacts: ArtifactStore, folder: Path, *, seconds: float, keep: int) -> None:
        self._sandbox, self._artifacts = sandbox, artifacts
        self._folder, self._seconds, self._keep = folder.resolve(), seconds, keep

    @contextlib.asynccontextmanager
    async def build(self, event: ModelApproved, run: str) -> AsyncIterator[BuiltBento]:
        self._folder.mkdir(parents=True, exist_ok=True)
        source, spec = await self._project(event)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".build-") as scratch:
            argument = {
                "store": str(store(self._folder)),
                "scratch": scratch,
                "tag": event.tag,
                "model_file": str(await self._artifacts.fetch(event.artifact)),
                "project": str(source),
                "manifest": Manifest.of(event, run, spec.serve.max_rows).model_dump(mode="json"),
                "labels": labels(event, run),
                "lock": str(await self._lock(event.environment)),
                "python": event.environment.python,
                "created": datetime.fromtimestamp(event.trained, UTC).isoformat(),
                "keep": self._keep,
                "environ": spec.env,
                "docker": docker_options(spec.serve, event.environment.python),
            }
            with explained("the build", BuildRefused, seconds="BUILDER_SECONDS"):
                done = await self._sandbox.run(event.environment, f"{JOB}:build", argument, seconds=self._seconds)
            log.info("built", seconds=done["seconds"])
            yield BuiltBento(Path(done["folder"]), Path(done["bento"]), source, spec)

    async def spec(self, event: ModelApproved) -> ModelSpec:
        return (await self._project(event))[1]

    async def _project(self, event: ModelApproved) -> tuple[Path, ModelSpec]:
        source = await self._artifacts.fetch_folder(event.project)
        return source, model_spec.parse((source / "model.yaml").read_text())

    async def _lock(self, environment: Environment) -> Path:
        if environment.locked is None:
            return BASE_LOCK
        ref = ArtifactRef(uri=environment.locked, sha256=environment.lock, size=0, media_type=TEXT)
        return await self._artifacts.fetch(ref)


def store(folder: Path) -> Path:
    """The builder's own BENTOML_HOME: outside any build context, which would be copied into itself."""
    return folder / "bentoml"


def use_store(folder: Path) -> None:
    """Make children of this process use the builder's store; BentoML reads this once, when it is imported.

    They find our uv too: BentoML looks for one on the PATH, and else runs pip, which an environment of ours has not.
    """
    from uv import find_uv_bin

    os.environ["BENTOML_HOME"] = str(store(folder.resolve()))
    os.environ["PATH"] = os.pathsep.join([str(Path(find_uv_bin()).parent), os.environ.get("PATH", os.defpath)])
