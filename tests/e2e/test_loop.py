"""The whole belt, used as a person uses it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.e2e.conftest import ROOT, Belt

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("belt")]
DIGITS = pd.read_parquet(ROOT / "examples" / "digits" / "data" / "digits.parquet")
ROWS = DIGITS.drop(columns="digit").head(20).to_dict(orient="records")


@pytest.fixture(scope="module")
def live(belt: Belt) -> str:
    """The version of `digits` that a good push made live."""
    told = belt.push("examples/digits")
    assert told["outcome"] == "deployed", told
    return str(told["version"])


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


def test_a_bare_message_of_any_client_is_enough(belt: Belt, live: str) -> None:
    import asyncio

    from services.bus import connect

    async def publish() -> int:
        bus = await connect((belt.home / "nats.url").read_text().strip())
        ack = await bus.js.publish("data.pushed", b'{"model":"digits"}')
        await bus.close()
        return int(ack.seq)

    from contracts.envelope import run_of
    from tests.waiting import until

    run = run_of("nats", f"EVENTS:{asyncio.run(publish())}", "digits")
    told = until(lambda: belt._over(run), seconds=90)
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


def test_regression_and_an_extra_requirement(belt: Belt) -> None:
    for example in ("diabetes", "cancer"):
        told = belt.push(f"examples/{example}")
        assert told["outcome"] == "deployed", told
        assert belt.version(example) == told["version"]


BAD_PROJECTS = {
    "unknown key": ({"model_yaml": "name: digits\ntarget: digit\nfoo: 1\n"}, "unknown key 'foo'"),
    "unknown metric": (
        {"model_yaml": "name: digits\ntarget: digit\ngate: {conditions: [glory > 1]}\n"},
        "no metric 'glory'",
    ),
    "raises": ({"pipeline_py": "def build():\n    raise ValueError('no idea')\n"}, "no idea"),
    "no estimator": ({"pipeline_py": "def build():\n    return 42\n"}, "estimator"),
    "kills itself": (
        {"pipeline_py": "import os, signal\n\ndef build():\n    os.kill(os.getpid(), signal.SIGKILL)\n"},
        "signal 9",
    ),
    "exits": ({"pipeline_py": "import sys\n\ndef build():\n    sys.exit(0)\n"}, "SystemExit"),
    "failing tests": ({"tests__test_pipeline_py": "def test_no():\n    assert 1 == 2\n"}, "1 == 2"),
}


@pytest.mark.parametrize("kind", BAD_PROJECTS)
def test_a_bad_project_fails_with_its_reason_and_the_live_version_answers(
    belt: Belt, live: str, project: Callable[..., Path], kind: str
) -> None:
    files, says = BAD_PROJECTS[kind]
    before = belt.version("digits")
    folder = project(**files)
    if kind.startswith("unknown"):
        assert says in belt.run("push", str(folder), code=1).stderr
    else:
        told = belt.push(folder)
        assert told["outcome"] == "failed", told
        assert says in json.dumps(told), told
    assert belt.version("digits") == before
    assert belt.http.post("/digits/predict", json={"rows": ROWS}).status_code == 200


def _text(frame: pd.DataFrame, to: Path) -> None:
    frame = frame.astype({"pixel_0_1": object})
    frame.loc[3, "pixel_0_1"] = "dark"
    frame.to_csv(to, index=False)


BAD_DATA = {
    "empty": (lambda frame, to: to.write_bytes(b""), "empty"),
    "lacks the target": (lambda frame, to: frame.drop(columns="digit").to_csv(to, index=False), "digit"),
    "text for numbers": (_text, "pixel_0_1"),
    "all missing": (lambda frame, to: frame.assign(pixel_0_1=np.nan).to_csv(to, index=False), "pixel_0_1"),
    "truncated parquet": (lambda frame, to: to.write_bytes(_cut(frame)), "parquet"),
}


def _cut(frame: pd.DataFrame) -> bytes:
    return frame.to_parquet()[:2000]


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_rejected_with_its_reason(belt: Belt, live: str, tmp_path: Path, kind: str) -> None:
    write, says = BAD_DATA[kind]
    before = belt.version("digits")
    file = tmp_path / ("data.parquet" if "parquet" in kind else "data.csv")
    write(DIGITS.copy(), file)
    told = belt.push("examples/digits", "--data", str(file))
    assert told["outcome"] == "failed", told
    assert says in json.dumps(told).lower(), told
    assert belt.version("digits") == before


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


def test_nobody_knows_this_model(belt: Belt) -> None:
    assert belt.http.post("/nobody/predict", json={"rows": []}).status_code == 404
