"""The evaluator as a process on a real bus: a trained model in, a verdict out."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts import cloudevents
from contracts.events import Event, ModelApproved, ModelRejected, ReviewDecided, subject_of
from services.messaging.connection import Bus
from services.sandbox.environments import Environments
from services.storage.artifact_store import NatsArtifactStore
from services.storage.registry import Registry
from tests.evaluations import OTHER, VERSION, classifier
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def evaluator(nats_url: str, home: Path) -> Iterator[None]:
    environ = {**os.environ, "NATS_URL": nats_url, "BENTOBELT_HOME": str(home), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "services.evaluator.app"], env=environ, cwd=home)
    yield
    process.terminate()
    assert process.wait(20) == 0


async def publish(bus: Bus, event: Event, id: str, run: str, generation: int) -> int:
    headers = cloudevents.headers(event, id=id, source="test", run=run, generation=generation, time=datetime.now(UTC))
    return (await bus.js.publish(subject_of(event), cloudevents.body(event), headers=headers)).seq


async def said(bus: Bus, subject: str) -> tuple[Event, cloudevents.Envelope]:
    """The last event on a subject, once there is one."""

    async def last() -> tuple[Event, cloudevents.Envelope] | None:
        state = await bus.js.stream_info("EVENTS", subjects_filter=subject)
        if not (state.state.subjects or {}).get(subject):
            return None
        message = await bus.js.get_last_msg("EVENTS", subject)
        assert message.data is not None
        return cloudevents.read(subject, message.headers, message.data, message.seq or 0, datetime.now(UTC))

    found = await eventually(last, seconds=90)
    assert found
    return found


async def test_a_version_waits_for_a_person_and_is_approved(bus: Bus, evaluator: None, home: Path) -> None:
    cache = home / "test-artifacts"
    cache.mkdir()
    artifacts = NatsArtifactStore(bus, cache)
    base = Environments(home / "envs", artifacts).base
    good = await classifier(artifacts, base, "accuracy > 0.8", version=OTHER)
    await publish(bus, good, "t1", "run1", 5)
    approved, about = await said(bus, "model.approved")
    assert isinstance(approved, ModelApproved)
    assert (approved.version, about.run, about.generation) == (OTHER, "run1", 5)
    assert (home / "bentoml" / "models" / "flowers" / OTHER / "saved_model.pkl").exists()

    strict = await classifier(artifacts, base, "accuracy > 0.999", version=VERSION)
    await publish(bus, strict, "t2", "run2", 7)
    rejected, _ = await said(bus, "model.rejected")
    assert isinstance(rejected, ModelRejected)
    assert rejected.report is not None
    assert VERSION in (await artifacts.fetch(rejected.report)).read_text()  # a small page

    review = ReviewDecided(model="flowers", version=VERSION, decision="approve", by="Ada", reason="good enough")
    sequence = await publish(bus, review, "r1", "", 0)

    async def by_hand() -> tuple[ModelApproved, cloudevents.Envelope] | None:
        event, about = await said(bus, "model.approved")
        assert isinstance(event, ModelApproved)
        return (event, about) if event.version == VERSION else None

    found = await eventually(by_hand)
    assert found
    assert (found[0].approved_by, found[1].run, found[1].generation) == ("Ada", "run2", sequence)
    record = await Registry(bus).candidate("flowers", VERSION)
    assert record is not None
    assert record.status == "approved"
