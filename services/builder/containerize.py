"""The plain way: what `bentoml containerize` makes of the same Bento. Larger, slower, nobody has to explain it."""

import os
import subprocess
import sys
from pathlib import Path

from contracts.events import ModelApproved
from services.docker_engine.client import Engine
from services.docker_engine.errors import DockerTrouble, Doing, StreamError, explain

BILL = Path(__file__).with_name("sbom.py")
TAIL = 4000
TOOL_SECONDS = 10


def require_docker_command() -> None:
    """See to it that `bentoml containerize` will find what it calls; whether an engine answers is another matter.

    Raises:
        SystemExit: there is no docker command with Buildx.
    """
    try:
        subprocess.run(["docker", "buildx", "version"], capture_output=True, check=True, timeout=TOOL_SECONDS)
    except (OSError, subprocess.SubprocessError):
        sys.exit(
            "BUILDER_IMAGES=containerize needs the docker command with Buildx on the PATH of the builder: install both "
            "(in containers: in an image of your own), or set BUILDER_IMAGES=docker, which needs neither"
        )


class Plain:
    """Runs `bentoml containerize`, which needs the docker command with Buildx. The Bento is the one in `store`.

    Its Dockerfile asks no other package index than the usual one: it declares no argument for it.
    """

    base = "python:{python}-slim"

    def __init__(self, engine: Engine, store: Path, seconds: float) -> None:
        self._engine, self._store, self._seconds = engine, store, seconds

    def build(self, name: str, event: ModelApproved, bento: Path, labels: dict[str, str]) -> None:
        options = [f"--label={key}={value}" for key, value in labels.items()]
        doing = Doing(f"bentoml containerize {event.tag}", self._engine.registry, "BUILDER")
        try:
            done = self._containerize(event, name, options)
        except subprocess.TimeoutExpired:
            raise DockerTrouble(f"{doing.what} took longer than {self._seconds:g} s (BUILDER_SECONDS)") from None
        # It says "successfully built" with exit code 0 whatever the engine said.
        if done.returncode or self._engine.local(name) is None:
            raise explain(StreamError(done.stdout[-TAIL:]), doing)

    def _containerize(self, event: ModelApproved, name: str, options: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bentoml", "containerize", event.tag, "--image-tag", name, *options],
            env=os.environ | {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=self._seconds, check=False,
        )  # fmt: skip

    def prepare(self) -> None:
        """There is nothing that its images have in common."""

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        return self._engine.output(image, ["python", "-c", BILL.read_text()])
