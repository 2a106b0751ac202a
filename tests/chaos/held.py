"""A tiny model project that stops in the middle of a stage for as long as a test wants it to."""

from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from tests.waiting import until

MODEL = "tiny"
ROW = {"a": 0.9, "b": 0.1}
PIPELINE = """\
import os
import time
from pathlib import Path

from sklearn.linear_model import LogisticRegression

HOLD = Path("{folder}")


def stop_here():
    room = Path(os.environ.get("BENTOBELT_HOME", "nowhere")).name
    if (HOLD / room).exists():
        (HOLD / f".{{room}}").write_text(str(os.getpid()))
        (HOLD / f".{{room}}").rename(HOLD / f"{{room}}.reached")
    while (HOLD / room).exists():
        time.sleep(0.01)


class Held(LogisticRegression):
    def fit(self, X, y):
        stop_here()
        return super().fit(X, y)

    def __setstate__(self, state):
        stop_here()
        super().__setstate__(state)


def build():
    return Held()
"""


class Held:
    """The project and its brakes: the trainer stops in `fit`, others (evaluator, deployer) where they load a model.

    Which room the code runs in it learns from the home folder, which jobs and servers inherit from their worker.
    """

    def __init__(self, folder: Path) -> None:
        self.project, self._brakes = folder / "project", folder / "brakes"
        for made in (self.project, self._brakes):
            made.mkdir(parents=True)
        (self.project / "model.yaml").write_text(f"name: {MODEL}\ntarget: y\ndataset: rows.csv\n")
        (self.project / "model.yaml").open("a").write("estimator: pipeline:build\n")
        (self.project / "pipeline.py").write_text(PIPELINE.format(folder=self._brakes))
        rng = np.random.default_rng(0)
        rows = pd.DataFrame({"a": rng.uniform(size=2000), "b": rng.uniform(size=2000)})
        rows[(rows["a"] - 0.5).abs() > 0.05].assign(y=lambda frame: (frame["a"] > 0.5).astype(int)).to_csv(
            self.project / "rows.csv", index=False
        )

    def hold(self, room: str) -> None:
        """From now on work of this room stops where it is reached."""
        (self._brakes / f"{room}.reached").unlink(missing_ok=True)
        (self._brakes / room).touch()

    def reached(self, room: str, seconds: float = 60.0) -> psutil.Process:
        """The process that stopped, once one has."""
        file = self._brakes / f"{room}.reached"
        until(file.exists, seconds)
        return psutil.Process(int(file.read_text()))

    def release(self, room: str) -> None:
        (self._brakes / room).unlink(missing_ok=True)

    def release_all(self) -> None:
        for brake in self._brakes.iterdir():
            brake.unlink()
