"""The plain way: what `bentoml containerize` makes of the same Bento. Larger, slower, nobody has to explain it."""

import os
import subprocess
import sys
from pathlib import Path

from contracts.events import ModelApproved
from services.builder.domain import index_arguments
from services.builder.engine import Engine
from services.docker_errors import Doing, StreamError, explain

BILL = Path(__file__).with_name("bill.py")
TAIL = 4000


class Plain:
    """Runs `bentoml containerize`, which needs the docker command with Buildx. The Bento is the one in `store`."""

    base = "python:{python}-slim"

    def __init__(self, engine: Engine, store: Path, seconds: float) -> None:
        self._engine, self._store, self._seconds = engine, store, seconds

    def build(self, name: str, event: ModelApproved, bento: Path, labels: dict[str, str]) -> None:
        options = [f"--label={key}={value}" for key, value in labels.items()]
        options += [f"--build-arg={key}={value}" for key, value in index_arguments(os.environ).items()]
        done = subprocess.run(
            [sys.executable, "-m", "bentoml", "containerize", event.tag, "--image-tag", name, *options],
            env=os.environ | {"BENTOML_HOME": str(self._store), "BENTOML_DO_NOT_TRACK": "True"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=self._seconds, check=False,
        )  # fmt: skip
        # It says "successfully built" with exit code 0 whatever the engine said.
        if done.returncode or self._engine.local(name) is None:
            doing = Doing(f"bentoml containerize {event.tag}", self._engine.registry, "BUILDER")
            raise explain(StreamError(done.stdout[-TAIL:]), doing)

    def prepare(self) -> None:
        """There is nothing that its images have in common."""

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        return self._engine.output(image, ["python", "-c", BILL.read_text()])
