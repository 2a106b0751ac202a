"""What a person would write without Bentobelt: train.py, `bentoml build`, `bentoml serve`, and the first answer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from benchmarks.servers import free_port

TRAIN = """\
import bentoml
import pandas as pd
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split

frame = pd.read_parquet("digits.parquet")
train, test = train_test_split(frame, test_size=0.2, random_state=0)
model = ExtraTreesClassifier(n_estimators=200, random_state=0)
model.fit(train.drop(columns="digit"), train["digit"])
print("accuracy", accuracy_score(test["digit"], model.predict(test.drop(columns="digit"))))
bentoml.sklearn.save_model("plain", model)
"""

SERVICE = """\
import bentoml

with bentoml.importing():
    import pandas as pd


@bentoml.service
class Plain:
    model = bentoml.models.BentoModel("plain:latest")

    def __init__(self) -> None:
        self.estimator = bentoml.sklearn.load_model(self.model)

    @bentoml.api
    def predict(self, rows: list[dict[str, float]]) -> list[int]:
        return [int(digit) for digit in self.estimator.predict(pd.DataFrame(rows))]
"""

BENTOFILE = """\
service: "service:Plain"
include: ["service.py"]
python:
  packages: ["scikit-learn", "pandas"]
  lock_packages: false
"""


def write(folder: Path, data: Path) -> None:
    """Put the script's files into `folder`/work; BentoML's home lies beside it, or it would be packed into itself."""
    work = folder / "work"
    work.mkdir(parents=True)
    for name, content in {"train.py": TRAIN, "service.py": SERVICE, "bentofile.yaml": BENTOFILE}.items():
        (work / name).write_text(content)
    (work / "digits.parquet").write_bytes(data.read_bytes())


def run(folder: Path, row: dict[str, float]) -> dict[str, float]:
    """Run the script once; seconds per step, the last step ending with the first answer."""
    environ = os.environ | {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    steps = {}
    for step, command in {"train": [sys.executable, "train.py"], "build": [bentoml, "build"]}.items():
        started = time.perf_counter()
        subprocess.run(command, cwd=folder / "work", env=environ, check=True, capture_output=True)
        steps[step] = time.perf_counter() - started
    started = time.perf_counter()
    port = free_port()
    server = subprocess.Popen(
        [bentoml, "serve", "plain:latest", "--port", str(port), "--host", "127.0.0.1"],
        cwd=folder / "work",
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _first_answer(f"http://127.0.0.1:{port}/predict", row)
        steps["serve"] = time.perf_counter() - started
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    return steps


def _first_answer(url: str, row: dict[str, float], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    with httpx.Client() as http:
        while time.monotonic() < deadline:
            try:
                if http.post(url, json={"rows": [row]}, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                time.sleep(0.02)
    raise SystemExit(f"{url} did not answer within {seconds:g} s")
