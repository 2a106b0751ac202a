"""Helpers that the tests of builder and deployer share: approved versions of a tiny real model, and a gateway."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import socket
import string
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from contracts import cloudevents
from contracts.artifact_ref import JOBLIB, PARQUET, TAR_GZ, ArtifactRef
from contracts.events import Event, ModelApproved, subject_of
from contracts.features import Feature, Probe
from contracts.profiles import ColumnProfile, Profile
from contracts.runtime import Environment
from contracts.values import Value
from contracts.verdicts import PerformanceTarget, Verdict
from services.host import free_port
from services.messaging.connection import Bus
from services.storage.artifact_store import ArtifactStore
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[4]
ROW: dict[str, Value] = {"a": 0.2, "b": 0.3}
NO_REF = ArtifactRef(uri="nowhere", sha256="0" * 64, size=0, media_type=PARQUET)


def version(number: int) -> str:
    """A version of generation `number`."""
    return cloudevents.version_of(number, f"run{number}")


async def approved(
    artifacts: ArtifactStore,
    environment: Environment,
    number: int,
    *,
    task: str = "classification",
    files: dict[str, str] | None = None,
) -> ModelApproved:
    """An approved version of a model of two columns; `files` go into its project beside model.yaml."""
    rows = pd.DataFrame({"a": np.linspace(0, 1, 20), "b": np.linspace(number, -number, 20)})
    estimator = LogisticRegression().fit(rows, (rows["a"] > 0.5).astype(int))
    written = io.BytesIO()
    joblib.dump(estimator, written)
    probe = Probe(
        rows=({"a": 0.1, "b": 1.0}, {"a": 0.9, "b": -1.0}),
        predictions=tuple(int(x) for x in estimator.predict(pd.DataFrame({"a": [0.1, 0.9], "b": [1.0, -1.0]}))),
    )
    return ModelApproved(
        model="tiny",
        version=version(number),
        tag=f"tiny:{version(number)}",
        task="classification",
        artifact=await artifacts.put(written.getvalue(), JOBLIB),
        project=await artifacts.put(_project(files or {}), TAR_GZ),
        features=(Feature(name="a", type="number"), Feature(name="b", type="number")),
        target=Feature(name="y", type="integer"),
        classes=(0, 1),
        environment=environment,
        profile=Profile(rows=20, columns=(), prediction=ColumnProfile(name="y", counts=())),
        probe=probe,
        promise=PerformanceTarget(metric="accuracy", value=1.0),
        verdict=Verdict(outcome="pass", confidence=0.95, conditions=()),
        approved_by="gate",
        dataset=NO_REF,
        trained=1_700_000_000.0 + number,
    )


def _project(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in {"model.yaml": "name: tiny\ntarget: y\n", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


async def publish(bus: Bus, event: Event, *, id: str, generation: int | None = None) -> None:
    """Publish an event as another room would; without a generation the stream's sequence decides."""
    headers = cloudevents.headers(
        event, id=id, source="test", run=f"run-{id}", generation=generation or 0, time=datetime.now(UTC)
    )
    if generation is None:
        del headers["ce-generation"]
    await bus.js.publish(subject_of(event), cloudevents.body(event), headers=headers)


async def await_event(bus: Bus, subject: str, count: int = 1, seconds: float = 60.0) -> list[Event]:
    """The first `count` events on `subject`."""
    subscription = await bus.js.subscribe(subject, ordered_consumer=True)
    found: list[Event] = []
    try:
        async with asyncio.timeout(seconds):
            while len(found) < count:
                message = await subscription.next_msg(timeout=seconds)
                found.append(cloudevents.read(subject, message.headers, message.data, 1, datetime.now(UTC))[0])
    finally:
        await subscription.unsubscribe()
    return found


@contextlib.contextmanager
def traefik(folder: Path, routes: Path) -> Iterator[str]:
    """A real Traefik with the configuration that `belt up` gives it; its URL."""
    binary = shutil.which("traefik", path=str(Path(sys.executable).parent))
    assert binary, "traefik is not installed: run `make setup`"
    routes.mkdir(parents=True, exist_ok=True)
    entry, ping = free_port(), free_port()
    values = {"ENTRY": f"127.0.0.1:{entry}", "PING": f"127.0.0.1:{ping}", "ROUTES": str(routes)}
    config = folder / "traefik.yml"
    config.write_text(string.Template((ROOT / "infra" / "traefik" / "traefik.yml").read_text()).substitute(values))
    with (folder / "traefik.log").open("wb") as log:
        process = subprocess.Popen([binary, f"--configfile={config}"], stdout=log, stderr=log)
    try:
        until(lambda: _listens(entry), seconds=20)
        yield f"http://127.0.0.1:{entry}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def worker(room: str, home: Path, nats_url: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker process; ended by its id."""
    home.mkdir(parents=True, exist_ok=True)
    own = {"NATS_URL": nats_url, "BENTOBELT_HOME": str(home), "PYTHONPATH": str(ROOT), **environ}
    with (home / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{room}.app"], env=os.environ | own, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Traffic:
    """Clients that ask for predictions all the time, and what they got."""

    url: str
    clients: int = 4
    model: str = "tiny"
    row: dict[str, Value] = field(default_factory=lambda: dict(ROW))
    answered: dict[str, int] = field(default_factory=dict)
    """Version → answers."""
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Traffic":
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                got = predict(self.url, self.model, self.row)
                self.answered[got] = self.answered.get(got, 0) + 1
            except OSError as error:
                self.failures.append(f"{time.time():.3f} {error}")


def predict(url: str, model: str = "tiny", row: dict[str, Value] = ROW) -> str:
    """Ask for a prediction through the gateway; the version that answered."""
    request = urllib.request.Request(
        f"{url}/{model}/predict", json.dumps({"rows": [row]}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["X-Model-Version"])


def serves(url: str, model: str = "tiny", row: dict[str, Value] = ROW) -> str | None:
    """The version that answers now, None when none does."""
    try:
        return predict(url, model, row)
    except (urllib.error.URLError, OSError):
        return None
