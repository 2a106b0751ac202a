"""Bad input of every kind: it is named, the live version keeps answering, and the next good push goes through."""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from belt.local.home import Home
from contracts import cloudevents
from contracts.artifact_ref import TAR_GZ
from contracts.cloudevents import run_of
from contracts.events import DataPushed
from services.messaging.connection import Bus
from services.storage.artifact_store import NatsArtifactStore
from tests.belts import ROOT, Belt
from tests.waiting import eventually, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("belt")]
DIGITS = pd.read_parquet(ROOT / "examples" / "digits" / "data" / "digits.parquet")
ROWS: list[dict[str, Any]] = json.loads(DIGITS.drop(columns="digit").head(20).to_json(orient="records"))


@pytest.fixture(autouse=True)
def unharmed(belt: Belt, live: str) -> Any:
    """Whatever comes, the version that is live keeps answering."""
    yield
    answer = belt.http.post("/digits/predict", json={"rows": ROWS})
    assert (answer.status_code, answer.headers["X-Model-Version"]) == (200, live)


# -- projects ------------------------------------------------------------------------------------------------

BAD_SPECS = {
    "unknown key": ("name: digits\ntarget: digit\nfoo: 1\n", "unknown key 'foo'"),
    "unknown metric": ("name: digits\ntarget: digit\ngate: {conditions: [glory > 1]}\n", "no metric 'glory'"),
}
BAD_ARCHIVES: dict[str, tuple[Mapping[str, str | bytes], str]] = {
    **{kind: ({"model.yaml": text}, says) for kind, (text, says) in BAD_SPECS.items()},
    "no model.yaml": ({"deeper/model.yaml": "name: digits\ntarget: digit\n"}, "no model.yaml at its top"),
    "an empty model.yaml": ({"model.yaml": ""}, "model.yaml is empty"),
    "not YAML": ({"model.yaml": "name: [digits\n"}, "model.yaml is not YAML"),
    "no such date": ({"model.yaml": "name: digits\ntarget: 2026-13-45\n"}, "month must be in 1..12"),
    "brackets without end": ({"model.yaml": "[" * 5000}, "model.yaml is not YAML"),
    "not UTF-8": ({"model.yaml": b"name: digits\ntarget: \xff\n"}, "model.yaml is not UTF-8: byte 21"),
    "another model's": ({"model.yaml": "name: cancer\ntarget: digit\n"}, "but the event is about model 'digits'"),
    "a member outside": (
        {"model.yaml": "name: digits\ntarget: digit\n", "../../escaped.txt": "here"},
        "would write outside its folder",
    ),
}
"""Projects that a client other than `belt` may publish, and the reason in the report of their failure."""
BAD_CODE = {
    "raises": ("def build():\n    raise ValueError('no idea')\n", "no idea"),
    "returns no estimator": ("def build():\n    return 42\n", "estimator pipeline:build returned"),
    "kills its process": ("import os, signal\n\ndef build():\n    os.kill(os.getpid(), signal.SIGKILL)\n", "signal 9"),
    "exits": ("import sys\n\ndef build():\n    sys.exit(0)\n", "SystemExit"),
    "never ends": ("import time\n\ndef build():\n    time.sleep(3600)\n", "did not end within 15 s"),
    "eats memory": (
        "def build():\n    hoard = []\n    while True:\n        hoard.append(bytearray(64 * 1024**2))\n",
        "wanted more than 2048 MiB of memory",
    ),
}
NO_TESTS = "def test_nothing():\n    pass\n"


@pytest.mark.parametrize("kind", BAD_SPECS)
def test_a_bad_model_yaml_is_not_even_pushed(belt: Belt, project: Callable[..., Path], kind: str) -> None:
    text, says = BAD_SPECS[kind]
    assert says in belt.run("push", str(project(model_yaml=text)), code=1).stderr


@pytest.mark.parametrize("kind", BAD_CODE)
def test_a_bad_pipeline_fails_with_its_reason(belt: Belt, project: Callable[..., Path], kind: str) -> None:
    code, says = BAD_CODE[kind]
    told = belt.push(project(pipeline_py=code, tests__test_pipeline_py=NO_TESTS))
    assert told["outcome"] == "failed", told
    assert says in json.dumps(told), told


def test_tests_that_fail_are_shown(belt: Belt, project: Callable[..., Path]) -> None:
    told = belt.push(project(tests__test_pipeline_py="def test_no():\n    assert 1 == 2\n"))
    assert told["outcome"] == "failed", told
    assert "ProjectTestsFailed" in told["why"]
    assert "assert 1 == 2" in belt.run("logs", told["run"], "--json").stdout


@pytest.mark.parametrize("kind", BAD_ARCHIVES)
async def test_a_bad_project_of_any_client_fails_with_its_reason(
    belt: Belt, bus: Bus, tmp_path: Path, kind: str
) -> None:
    files, says = BAD_ARCHIVES[kind]
    archive = await NatsArtifactStore(bus, tmp_path).put(archive_of(files), TAR_GZ)
    run = await publish(bus, cloudevents.body(DataPushed(model="digits", project=archive)))
    failed = json.loads((await said(bus, "training.failed", run)).data or b"")
    assert failed["error"] == ("BadArchive" if "outside" in kind else "BadProject")
    assert failed["attempts"] == 1
    assert says in failed["message"]
    assert list(belt.home.rglob("escaped.txt")) == []


def archive_of(files: Mapping[str, str | bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()


# -- data ----------------------------------------------------------------------------------------------------


def _text(frame: pd.DataFrame, to: Path) -> None:
    frame = frame.astype({"pixel_0_1": object})
    frame.loc[3, "pixel_0_1"] = "dark"
    frame.to_csv(to, index=False)


BAD_DATA: dict[str, tuple[Callable[[pd.DataFrame, Path], object], str]] = {
    "empty": (lambda frame, to: to.write_bytes(b""), "empty"),
    "lacks the target": (lambda frame, to: frame.drop(columns="digit").to_csv(to, index=False), "digit"),
    "text for numbers": (_text, "pixel_0_1"),
    "all missing": (lambda frame, to: frame.assign(pixel_0_1=np.nan).to_csv(to, index=False), "pixel_0_1"),
    "truncated parquet": (lambda frame, to: to.write_bytes(frame.to_parquet()[:2000]), "parquet"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_is_rejected_with_its_reason(belt: Belt, tmp_path: Path, kind: str) -> None:
    write, says = BAD_DATA[kind]
    file = tmp_path / ("data.parquet" if "parquet" in kind else "data.csv")
    write(DIGITS.copy(), file)
    told = belt.push("examples/digits", "--data", str(file))
    assert told["outcome"] == "failed", told
    assert told["why"].startswith("data rejected")
    assert says in told["why"].lower()


async def test_data_that_does_not_exist(belt: Belt, bus: Bus) -> None:
    assert "no such file: nowhere.csv" in belt.run("push", "examples/digits", "--data", "nowhere.csv", code=1).stderr
    run = await publish(bus, b'{"model": "digits", "dataset": "/nowhere/rows.csv"}')
    rejected = json.loads((await said(bus, "data.rejected", run)).data or b"")
    assert rejected["violations"] == ["dataset /nowhere/rows.csv does not exist"]


# -- payloads on the bus -------------------------------------------------------------------------------------

UNREADABLE = {
    "not JSON": (b"{model", "the payload is not JSON"),
    "not UTF-8": (b'{"model": "\xff"}', "the payload is not UTF-8"),
    "empty": (b"", "the payload is empty"),
    "an array": (b'[{"model": "digits"}]', "the payload is a JSON list"),
    "of the wrong schema": (b'{"modell": "digits"}', "not a data.pushed: model: Field required"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_an_unreadable_payload_is_kept_and_somebody_is_told(bus: Bus, kind: str) -> None:
    body, says = UNREADABLE[kind]
    sequence = (await bus.js.publish("data.pushed", body)).seq

    async def kept() -> RawStreamMsg | None:
        letter = await last(bus, "DLQ", "dlq.trainer-data-pushed.data.pushed")
        return letter if letter and (letter.headers or {})["Dead-Sequence"] == str(sequence) else None

    letter = await eventually(kept)
    assert letter is not None
    assert (letter.data or b"") == body
    assert says in (letter.headers or {})["Dead-Reason"]

    async def told() -> dict[str, Any] | None:
        raised = await last(bus, "EVENTS", "alert.raised")
        found: dict[str, Any] = json.loads(raised.data or b"{}") if raised else {}
        return found if found.get("about") == f"DLQ:{letter.seq}" else None

    alert = await eventually(told)
    assert alert is not None
    assert says in alert["body"]
    assert alert["command"] == "belt schema data.pushed"


async def test_a_model_nobody_knows(belt: Belt, bus: Bus) -> None:
    run = await publish(bus, b'{"model": "nobody"}', "nobody")
    rejected = json.loads((await said(bus, "data.rejected", run)).data or b"")
    assert "nobody has pushed a project for model 'nobody' yet" in rejected["violations"][0]
    assert belt.http.post("/nobody/predict", json={"rows": []}).status_code == 404


async def publish(bus: Bus, body: bytes, model: str = "digits") -> str:
    """The run that a bare message starts."""
    return run_of("nats", f"EVENTS:{(await bus.js.publish('data.pushed', body)).seq}", model)


async def said(bus: Bus, subject: str, run: str) -> RawStreamMsg:
    """The last event of a run on a subject, as soon as it is there."""

    async def there() -> RawStreamMsg | None:
        message = await last(bus, "EVENTS", subject)
        return message if message and (message.headers or {}).get("ce-correlationid") == run else None

    found = await eventually(there)
    assert found is not None
    return found


async def last(bus: Bus, stream: str, subject: str) -> RawStreamMsg | None:
    try:
        return await bus.js.get_last_msg(stream, subject)
    except NotFoundError:
        return None


# -- requests through the gateway ----------------------------------------------------------------------------


def rows(*changed: dict[str, Any]) -> bytes:
    return json.dumps({"rows": changed}).encode()


BAD_ROWS: dict[str, tuple[bytes, int, str]] = {
    "a missing feature": (
        rows({name: value for name, value in ROWS[0].items() if name != "pixel_0_1"}),
        422,
        "row 0: 'pixel_0_1' is missing",
    ),
    "a wrong type": (rows(ROWS[0], ROWS[1] | {"pixel_0_1": "dark"}), 422, "row 1: 'pixel_0_1' must be "),
    "an unknown feature": (rows(ROWS[0] | {"pixel_9_9": 1.0}), 422, "row 0: 'pixel_9_9' is unknown"),
    "no rows": (rows(), 422, "'rows' must be a list with at least one object"),
    "10 MB of rows": (rows(*ROWS * (10_000_000 // len(rows(*ROWS)) + 1)), 413, "the body is larger than "),
    "invalid JSON": (b'{"rows": [{', 400, "the body is not JSON"),
    "nothing": (b"", 400, "the body is not JSON"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_request_that_cannot_be_answered_is_told_why(belt: Belt, kind: str) -> None:
    body, status, says = BAD_ROWS[kind]
    answer = belt.http.post("/digits/predict", content=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_10_mb_are_10_mb() -> None:
    assert len(BAD_ROWS["10 MB of rows"][0]) > 10_000_000


BAD_LABELS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "an id that is none": ([{"id": "whatever", "label": 3}], "label 0: 'id' 'whatever' is not a prediction id"),
    "another model's id": ([{"id": "cancer.1-0a1b2c3d.0", "label": 3}], "is of model 'cancer'"),
    "a wrong type": ([{"id": "digits.1-0a1b2c3d.0", "label": "three"}], "label 0: 'label' must be an integer"),
    "no labels": ([], "'labels' must be a list with at least one object"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_feedback_that_makes_no_sense_is_told_why(belt: Belt, kind: str) -> None:
    labels, says = BAD_LABELS[kind]
    answer = belt.http.post("/digits/feedback", json={"labels": labels})
    assert answer.status_code == 422
    assert says in answer.json()["error"]


async def test_feedback_given_twice_or_for_an_id_long_forgotten_is_taken_and_counts_once(
    belt: Belt, bus: Bus, live: str
) -> None:
    # Labels come late and senders try again: serving cannot know what was joined already, the monitor does.
    joined, unmatched = f'bentobelt_monitor_labels{{model="digits",version="{live}"}}', "bentobelt_monitor_unmatched"
    before = counted(belt)
    id = belt.http.post("/digits/predict", json={"rows": ROWS[:1]}).json()["predictions"][0]["id"]
    forgotten = "digits.1-0a1b2c3d.000000000000"
    for known in (id, id, forgotten, forgotten):
        answer = belt.http.post("/digits/feedback", json={"labels": [{"id": known, "label": 0}]})
        assert (answer.status_code, answer.json()) == (200, {"accepted": 1})
    taken = await last(bus, "PREDICTIONS", "feedback.digits")
    assert taken is not None
    sequence = taken.seq or 0
    assert json.loads(taken.data or b"")["labels"][0]["id"] == forgotten

    def all_counted() -> dict[str, float] | None:
        now = counted(belt)
        through = now.get('bentobelt_monitor_position{model="digits"}', 0) >= sequence
        return now if through and now.get(joined, 0) > before.get(joined, 0) else None

    after = until(all_counted)
    assert after is not None
    for name in (joined, f'{unmatched}{{model="digits"}}'):
        assert after[name] - before.get(name, 0) == 1


def counted(belt: Belt) -> dict[str, float]:
    """Return the monitor's own metrics, by the name and labels of each sample."""
    running = Home(belt.home).running()
    assert running is not None
    told = httpx.get(f"http://127.0.0.1:{running.processes['monitor'].port}/metrics", follow_redirects=True)
    samples = (line.rpartition(" ") for line in told.raise_for_status().text.splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in samples}


# -- and then ------------------------------------------------------------------------------------------------


class TestAfterwards:
    """Last in this file on purpose: everything above has happened to this belt."""

    @pytest.fixture(autouse=True)
    def unharmed(self) -> None:
        """This time another version is to be live afterwards."""

    def test_the_next_good_push_goes_through(self, belt: Belt, live: str) -> None:
        told = belt.push("examples/digits")
        assert told["outcome"] == "deployed", told
        assert belt.version("digits") == told["version"] != live
        answers = belt.http.post("/digits/predict", json={"rows": ROWS}).json()["predictions"]
        right = [a["prediction"] == digit for a, digit in zip(answers, DIGITS["digit"], strict=False)]
        assert np.mean(right) > 0.9
