"""The image that `bentoml containerize` makes of the same Bento: larger and slower, and known to users of BentoML."""

import os
import subprocess
import sys
from pathlib import Path

from contracts.events import ModelApproved
from services.builder.bento import BuiltBento
from services.docker_engine import DockerEngine, DockerTrouble, Doing, StreamError, explain

BILL = Path(__file__).with_name("sbom.py")
TAIL = 4000


class ContainerizeRecipe:
    """Runs `bentoml containerize`, which needs the docker command with Buildx. The Bento is the one in `store`.

    Its Dockerfile asks no other package index than the usual one: it declares no argument for it.
    """

    base = "python:{python}-slim"

    def __init__(self, engine: DockerEngine, store: Path, seconds: float) -> None:
        self._engine, self._store, self._seconds = engine, store, seconds

    def build(self, name: str, event: ModelApproved, bento: BuiltBento, labels: dict[str, str]) -> None:
        options = [f"--label={key}={value}" for key, value in labels.items()]
        doing = Doing(f"bentoml containerize {event.tag}", "", "BUILDER")
        try:
            done = self._containerize(event, name, options)
        except subprocess.TimeoutExpired:
            raise DockerTrouble(f"{doing.what} took longer than {self._seconds:g} s (BUILDER_SECONDS)") from None
        # It prints "successfully built" and ends with exit code 0 even when the engine failed.
        if done.returncode or self._engine.local(name) is None:
            raise explain(StreamError(done.stdout[-TAIL:]), doing)

    def _containerize(self, event: ModelApproved, name: str, options: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bentoml", "containerize", event.tag, "--image-tag", name, *options],
            env=os.environ | {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=self._seconds, check=False,
        )  # fmt: skip

    def prepare(self) -> None:
        """Do nothing: its images share no part that could be made before."""

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        return self._engine.output(image, ["python", "-c", BILL.read_text()])
