"""The same task by hand, without Bentobelt: train.py, `bentoml build`, `bentoml serve` (or an image), one request."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from services.host import free_port

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


BENTOML = str(Path(sys.executable).with_name("bentoml"))


def write(folder: Path, data: Path) -> None:
    """Put the script's files into `folder`/work; BentoML's home lies beside it, or it would be packed into itself."""
    work = folder / "work"
    work.mkdir(parents=True)
    for name, content in {"train.py": TRAIN, "service.py": SERVICE, "bentofile.yaml": BENTOFILE}.items():
        (work / name).write_text(content)
    (work / "digits.parquet").write_bytes(data.read_bytes())


def run(folder: Path, row: dict[str, float]) -> dict[str, float]:
    """Run the script once; seconds per step, the last step ending with the first answer."""
    environ = _environ(folder)
    steps = {
        "train": _spent([sys.executable, "train.py"], folder, environ),
        "build": _spent([BENTOML, "build"], folder, environ),
    }
    started = time.perf_counter()
    port = free_port()
    server = subprocess.Popen(
        [BENTOML, "serve", "plain:latest", "--port", str(port), "--host", "127.0.0.1"],
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


def run_in_docker(folder: Path, row: dict[str, float], registry: str, *options: str) -> dict[str, float]:
    """The same with an image in a registry; `options` are for the engine's build."""
    environ, image, port = _environ(folder), f"{registry}/plain:{time.time_ns()}", free_port()
    containerize = [BENTOML, "containerize", "plain:latest", "--image-tag", image]
    for option in options:
        containerize += ["--opt", option]
    steps = {
        "train": _spent([sys.executable, "train.py"], folder, environ),
        "build": _spent([BENTOML, "build"], folder, environ),
        "containerize": _spent(containerize, folder, environ),
        "push": _spent(["docker", "push", "-q", image], folder, environ),
    }
    started = time.perf_counter()
    name = f"plain-{port}"
    run = ["docker", "run", "--rm", "--detach", "--name", name, "--publish", f"127.0.0.1:{port}:3000", image]
    _spent(run, folder, environ)
    try:
        _first_answer(f"http://127.0.0.1:{port}/predict", row)
        steps["run"] = time.perf_counter() - started
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)
        subprocess.run(["docker", "rmi", "--force", image], check=True, capture_output=True)
    return steps


def _environ(folder: Path) -> dict[str, str]:
    return os.environ | {"BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}


def _spent(command: list[str], folder: Path, environ: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder / "work", env=environ, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr[-3000:]}")
    return time.perf_counter() - started


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
