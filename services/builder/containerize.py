"""The image that `bentoml containerize` makes of the same Bento: larger and slower, and known to users of BentoML."""

import sys
from pathlib import Path

from contracts.events import ModelApproved
from contracts.serve_spec import Serve
from services.builder.bento import BuiltBento
from services.builder.commands import CommandRunner
from services.builder.docker_build import failure
from services.docker_engine import DockerEngine, Operation
from services.messaging import Permanent

SBOM_SCRIPT = Path(__file__).with_name("sbom.py")


class UnsupportedServe(Permanent):
    """`bentoml containerize` would ignore a key of `serve`."""


class ContainerizeRecipe:
    """Runs `bentoml containerize`, which needs the docker command with Buildx. The Bento is the one in `store`.

    Its Dockerfile asks no other package index than the usual one: it declares no argument for it.
    """

    base = "python:{python}-slim"

    def __init__(self, engine: DockerEngine, commands: CommandRunner, store: Path, seconds: float) -> None:
        self._engine, self._commands, self._store, self._seconds = engine, commands, store, seconds

    def build(self, name: str, event: ModelApproved, bento: BuiltBento, labels: dict[str, str]) -> None:
        refuse_ignored(bento.spec.serve)
        command = [sys.executable, "-m", "bentoml", "containerize", event.tag, "--image-tag", name]
        command += [f"--label={key}={value}" for key, value in labels.items()]
        variables = {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"}
        operation = Operation(f"bentoml containerize {event.tag}", "", "BUILDER")
        code, lines = self._commands.run(
            command, variables, operation.what, seconds=self._seconds, limit="BUILDER_SECONDS"
        )
        # It prints "successfully built" and ends with exit code 0 even when the engine failed.
        if code or self._engine.local(name) is None:
            raise failure(lines, operation)

    def prepare(self) -> None:
        """Do nothing: its images share no part that could be made before."""

    def package_list(self, image: str, labels: dict[str, str]) -> bytes:
        return self._engine.output(image, ["python", "-c", SBOM_SCRIPT.read_text()])


def refuse_ignored(serve: Serve) -> None:
    """Check that BentoML follows all keys of `serve`.

    Raises:
        UnsupportedServe: it would ignore one of them.
    """
    if serve.dockerfile:
        raise UnsupportedServe(
            "bentoml containerize ignores serve.dockerfile: set BUILDER_IMAGES=docker, or name a finished image in "
            "serve.base_image"
        )
    if serve.base_image and serve.system_packages:
        raise UnsupportedServe(
            "bentoml containerize ignores serve.system_packages beside serve.base_image: set BUILDER_IMAGES=docker, or "
            "install the packages in the base image"
        )
