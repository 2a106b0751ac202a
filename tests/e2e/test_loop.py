"""The whole belt, used as a person uses it."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.cloudevents import run_of
from services.messaging.connection import Bus
from tests.belts import ROOT, Belt

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("belt")]
DIGITS = pd.read_parquet(ROOT / "examples" / "digits" / "data" / "digits.parquet")
ROWS = DIGITS.drop(columns="digit").head(20).to_dict(orient="records")


def test_a_push_is_live_and_answers(belt: Belt, live: str) -> None:
    response = belt.http.post("/digits/predict", json={"rows": ROWS})
    assert response.status_code == 200
    assert response.headers["X-Model-Version"] == belt.version("digits") == live
    answers = response.json()["predictions"]
    right = [a["prediction"] == digit for a, digit in zip(answers, DIGITS["digit"], strict=False)]
    assert np.mean(right) > 0.9
    assert answers[0]["id"].startswith(f"digits.{live}.")
    assert belt.http.get("/digits/readyz").status_code == 200
    assert belt.http.get("/digits/docs").status_code == 200
    assert b"bentobelt" in belt.http.get("/digits/metrics").content


def test_any_answer_leads_back_to_its_origin(belt: Belt, live: str) -> None:
    id = belt.http.post("/digits/predict", json={"rows": ROWS[:1]}).json()["predictions"][0]["id"]
    traced = json.dumps(belt.json("trace", id))
    for part in (live, "bento+", "accuracy"):
        assert part in traced
    assert json.loads(traced)["version"] == live


async def test_a_bare_message_of_any_client_is_enough(belt: Belt, live: str, bus: Bus) -> None:
    ack = await bus.js.publish("data.pushed", b'{"model":"digits"}')
    told = belt.finished(run_of("nats", f"EVENTS:{ack.seq}", "digits"))
    assert told["outcome"] == "deployed"
    assert belt.version("digits") == told["version"] != live


def test_rollback_and_back_again(belt: Belt, live: str) -> None:
    newer = belt.push("examples/digits")["version"]
    assert belt.version("digits") == newer
    [before] = [d for d in belt.json("deployments") if d["model"] == "digits"]
    belt.run("rollback", "digits", "--reason", "a test")
    assert belt.version("digits") == before["previous"]
    again = belt.push("examples/digits")["version"]
    assert belt.version("digits") == again


def test_regression(belt: Belt) -> None:
    told = belt.push("examples/diabetes")
    assert told["outcome"] == "deployed", told
    assert belt.version("diabetes") == told["version"]


def test_git_push_tests_and_pushes_a_project_with_an_extra_requirement(
    belt: Belt, project: Callable[..., Path], tmp_path: Path
) -> None:
    folder = project("cancer")

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=ada", "-c", "user.email=ada@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=folder, env=belt.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    git("init", "-q", "-b", "main", ".")
    git("init", "-q", "--bare", str(tmp_path / "remote.git"))
    git("remote", "add", "origin", str(tmp_path / "remote.git"))
    git("add", ".")
    git("commit", "-qm", "first")
    belt.run("hook", "install", str(folder))
    said = git("push", "-q", "origin", "main")
    assert "1 passed" in said
    run = re.search(r"^[0-9a-f]{16}$", said, re.MULTILINE)
    assert run, said
    told = belt.finished(run[0])
    assert told["outcome"] == "deployed", told
    assert belt.version("cancer") == told["version"]


def test_the_gate_sends_a_poor_model_to_a_person_who_decides(
    belt: Belt, live: str, project: Callable[..., Path]
) -> None:
    poor = (
        "from sklearn.dummy import DummyClassifier\n\n\n"
        "def build() -> DummyClassifier:\n    return DummyClassifier(strategy='most_frequent')\n"
    )
    told = belt.push(project(pipeline_py=poor, tests__test_pipeline_py="def test_ok():\n    pass\n"))
    assert told["outcome"] == "review", told
    waiting = belt.json("review", "list")
    assert told["version"] in [entry["version"] for entry in waiting]
    belt.run("review", "reject", "digits", told["version"], "--reason", "it guesses", "--by", "ada")
    assert told["version"] not in [entry["version"] for entry in belt.json("review", "list")]
