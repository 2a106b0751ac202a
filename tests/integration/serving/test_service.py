"""The whole of serving/: a Bento that was really built, started with `bentoml serve`, on a real nats-server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import joblib
import nats.errors
from nats.js.errors import NotFoundError
from sklearn.datasets import load_digits

from contracts.cloudevents import read
from contracts.events import Feedback, Predictions
from services.host import free_port
from services.messaging.connection import Bus, connect
from services.messaging.streams import ensure_topology
from tests.conftest import NatsServer
from tests.integration.serving.serving_bento import VERSION
from tests.waiting import eventually, until

DIGITS = load_digits(as_frame=True)
ROWS: list[dict[str, float]] = DIGITS.data.head(300).to_dict("records")
BAD = ROWS[0] | {"pixel_0_0": 666.0}
BIN = Path(sys.executable).parent


@contextmanager
def served(bento: Path, home: Path, nats_url: str, **settings: str) -> Iterator[httpx.Client]:
    port = free_port()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "NATS_URL": nats_url, **settings}
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [BIN / "bentoml", "serve", str(bento), "--port", str(port), "--host", "127.0.0.1"],
            env=environment,
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            until(lambda: is_ready(client), seconds=60)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (home / "serve.log").read_text()[-3000:]


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def predict(client: httpx.Client, *rows: Any, **options: Any) -> httpx.Response:
    return client.post("/predict", json={"rows": rows}, **options)


def feedback(client: httpx.Client, *labels: Any) -> httpx.Response:
    return client.post("/feedback", json={"labels": labels})


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


async def events(bus: Bus, subject: str, stream: str = "PREDICTIONS") -> list[Any]:
    """Everything in the stream on `subject`, read as contracts say (logs: as JSON)."""
    info = await bus.js.stream_info(stream)
    found = []
    for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        try:
            message = await bus.js.get_msg(stream, sequence)
        except NotFoundError:
            continue
        if message.subject == subject:
            body, when = message.data or b"", message.time
            assert when
            found.append(json.loads(body) if stream == "LOGS" else read(subject, message.headers, body, sequence, when))
    return found


async def logged(bus: Bus) -> list[str]:
    """Ids of all predictions on the bus."""
    return [id for event, _ in await events(bus, "predictions.digits") for id in event.id]


async def test_it_answers_logs_and_takes_feedback(bento: Path, home: Path, nats_url: str, bus: Bus) -> None:
    image = "bento+nats://artifacts/abc"
    with served(bento, home, nats_url, BENTOBELT_IMAGE=image) as client:
        answer = predict(client, *ROWS)
        body = answer.json()
        assert answer.headers["X-Model-Version"] == body["version"] == VERSION
        assert_same_as_the_model(bento, body["predictions"])
        ids = [one["id"] for one in body["predictions"]]
        assert len(set(ids)) == len(ids)
        assert all(id.startswith(f"digits.{VERSION}.") for id in ids)
        # Through the gateway the prefix is gone; without it both ways work. The deployer's probe is no traffic.
        assert client.post("/digits/predict", json={"rows": ROWS[:1]}).status_code == 200
        assert predict(client, ROWS[0], headers={"X-Bentobelt-Probe": "1"}).status_code == 200

        await eventually(lambda: has(bus, 301))
        ((event, envelope), *_) = await events(bus, "predictions.digits")
        assert isinstance(event, Predictions)
        assert (event.version, envelope.run, envelope.generation) == (VERSION, "f" * 16, 7)
        assert event.columns["pixel_2_3"][:3] == tuple(row["pixel_2_3"] for row in ROWS[:3])

        truth = [{"id": ids[0], "label": 0}, {"id": f"digits.{VERSION}.unknown", "label": 1}]
        for _ in range(2):  # the same labels twice are taken twice; who joins them tells
            assert feedback(client, *truth).json() == {"accepted": 2}
        taken = [event for event, _ in await events(bus, "feedback.digits")]
        assert [[label.id for label in event.labels] for event in taken if isinstance(event, Feedback)] == [
            [ids[0], f"digits.{VERSION}.unknown"]
        ] * 2

        info = client.get("/info").json()
        assert (info["version"], info["run"], info["image"]) == (VERSION, "f" * 16, image)
        assert info["features"][0] == {"name": "pixel_0_0", "type": "number", "nullable": False}
        for path in ("/readyz", "/livez", "/docs", "/openapi.json", "/metrics", "/digits/info", "/digits/readyz"):
            page = client.get(path)
            assert (page.status_code, page.headers.get("X-Model-Version")) == (200, VERSION), path
        assert_the_index_leads_to_the_docs(client)
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert schemas["Row"]["properties"]["pixel_0_0"]["type"] == "number"
        assert schemas["Label"]["properties"]["label"]["type"] == "integer"
        assert metric(client, "bentobelt_rows_total") == 302
        assert metric(client, "bentobelt_log_dropped_rows_total") == 0


def assert_the_index_leads_to_the_docs(client: httpx.Client) -> None:
    """Also where the gateway has taken the prefix away; nothing of BentoML's index page is shown."""
    gateway, stranger = {"X-Forwarded-Prefix": "/digits"}, {"X-Forwarded-Prefix": "//elsewhere"}
    for path, headers, to in [
        ("/", {}, "docs"),
        ("/", gateway, "/digits/docs"),
        ("/", stranger, "docs"),
        ("/digits", {}, "/digits/docs"),
        ("/digits/", {}, "/digits/docs"),
    ]:
        page = client.get(path, headers=headers)
        redirect = (page.status_code, page.headers["Location"], page.headers["X-Model-Version"])
        assert redirect == (307, to, VERSION), path
        assert client.get(path, follow_redirects=True).status_code == 200
    assert client.get("/static_content/index.js").status_code == 404


def assert_same_as_the_model(bento: Path, predictions: list[Any]) -> None:
    """Check that the predictions are those of the judged estimator in this process."""
    (packed,) = (bento / "models" / "digits").glob("*/saved_model.pkl")
    sys.path.insert(0, str(packed.parent / "project"))
    try:
        estimator = joblib.load(packed)
    finally:
        sys.path.pop(0)
    frame = DIGITS.data.head(300)
    assert [one["prediction"] for one in predictions] == estimator.predict(frame).tolist()
    assert [one["probabilities"] for one in predictions] == estimator.predict_proba(frame).tolist()
    assert {type(one["prediction"]) for one in predictions} == {int}


async def has(bus: Bus, rows: int) -> bool:
    try:
        return len(await logged(bus)) == rows
    except nats.errors.TimeoutError:  # asked while this connection was still coming back
        return False


MISSING = {key: value for key, value in ROWS[0].items() if key != "pixel_3_3"}
WRONG: dict[str, tuple[int, str, Callable[[httpx.Client], httpx.Response]]] = {
    "missing feature": (422, "pixel_3_3", lambda client: predict(client, ROWS[0], MISSING)),
    "wrong type": (422, "pixel_3_3", lambda client: predict(client, ROWS[0] | {"pixel_3_3": "9"})),
    "unknown field": (422, "colour", lambda client: predict(client, ROWS[0] | {"colour": 1})),
    "no rows": (422, "rows", lambda client: predict(client)),
    "not rows": (422, "rows", lambda client: client.post("/predict", json={"instances": [ROWS[0]]})),
    "too many rows": (413, "2000", lambda client: predict(client, *[ROWS[0]] * 2001)),
    "10 MB": (413, "bytes", lambda client: client.post("/predict", content=b'{"rows":[' + b" " * 10_000_000 + b"]}")),
    "not JSON": (400, "JSON", lambda client: client.post("/predict", content=b'{"rows": [')),
    "not UTF-8": (400, "JSON", lambda client: client.post("/predict", content=b"\xff\xfe")),
    "empty": (400, "JSON", lambda client: client.post("/predict")),
    "GET": (405, "POST", lambda client: client.get("/predict")),
    "elsewhere": (404, "", lambda client: client.get("/nothing")),
    "the model raises": (500, "no digit has such a pixel", lambda client: predict(client, BAD)),
    "label of a wrong type": (422, "label", lambda c: feedback(c, {"id": f"digits.{VERSION}.a", "label": "three"})),
    "malformed id": (422, "id", lambda client: feedback(client, {"id": "a", "label": 3})),
    "another model's id": (422, "other", lambda c: feedback(c, {"id": f"other.{VERSION}.a", "label": 3})),
    "no labels": (422, "labels", lambda client: feedback(client)),
    "feedback is not JSON": (400, "JSON", lambda client: client.post("/feedback", content=b"[")),
}


async def test_wrong_input_is_named_and_hurts_nobody_else(bento: Path, home: Path, nats_url: str, bus: Bus) -> None:
    with served(bento, home, nats_url) as client:
        for name, (status, named, send) in WRONG.items():
            answer = send(client)
            assert answer.status_code == status, (name, answer.text[:300])
            assert named in answer.text, (name, answer.text[:300])
            assert answer.headers["X-Model-Version"] == VERSION, name
            assert predict(client, ROWS[0]).status_code == 200, f"after {name}"
        assert predict(client, ROWS[0], MISSING).json()["details"][0]["row"] == 1

        async def error_lines() -> list[Any]:
            return await events(bus, "logs.serving.digits", "LOGS")

        (line,) = await eventually(error_lines)
        assert (line["level"], line["event"], line["version"]) == ("error", "predict.failed", VERSION)
        assert "no digit has such a pixel" in line["error"]
        await eventually(lambda: has(bus, len(WRONG)))
        assert metric(client, "bentobelt_errors_total") == 1


async def test_the_bus_may_be_away_at_the_start_and_later(bento: Path, home: Path, nats_server: NatsServer) -> None:
    nats_server.kill()
    label = {"id": f"digits.{VERSION}.a", "label": 3}
    with served(bento, home, nats_server.url) as client:
        first = predict(client, *ROWS[:5])
        assert first.status_code == 200
        refused = feedback(client, label)
        assert (refused.status_code, refused.headers["X-Model-Version"]) == (503, VERSION)
        nats_server.start()
        bus = await connect(nats_server.url, name="test")
        await ensure_topology(bus)
        await eventually(lambda: has(bus, 5))
        until(lambda: feedback(client, label).status_code == 200)

        nats_server.kill()
        until(lambda: feedback(client, label).status_code == 503)
        second = predict(client, *ROWS[:7])
        assert second.status_code == 200
        nats_server.start()
        await eventually(lambda: has(bus, 12))
        ids = [one["id"] for answer in (first, second) for one in answer.json()["predictions"]]
        assert sorted(await logged(bus)) == sorted(ids)
        assert metric(client, "bentobelt_log_dropped_rows_total") == 0
        await bus.close()


async def test_what_finds_no_room_is_counted(bento: Path, home: Path, nats_server: NatsServer) -> None:
    nats_server.kill()
    with served(bento, home, nats_server.url, SERVING_LOG_BYTES="20000", SERVING_STOP_SECONDS="0.2") as client:

        def some_dropped() -> bool:
            assert predict(client, *ROWS[:10]).status_code == 200
            return metric(client, "bentobelt_log_dropped_rows_total") > 0

        until(some_dropped)
        nats_server.start()
        bus = await connect(nats_server.url, name="test")
        await ensure_topology(bus)
        answered = metric(client, "bentobelt_rows_total")

        async def all_accounted_for() -> bool:
            return len(await logged(bus)) + metric(client, "bentobelt_log_dropped_rows_total") == answered

        await eventually(all_accounted_for)
        await bus.close()


async def test_a_stop_empties_the_log_first(bento: Path, home: Path, nats_url: str, bus: Bus) -> None:
    with served(bento, home, nats_url, SERVING_LOG_SECONDS="3600") as client:
        assert predict(client, *ROWS[:9]).status_code == 200
        assert await logged(bus) == []
    assert len(await logged(bus)) == 9
