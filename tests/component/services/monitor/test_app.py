"""News reach whoever follows the model; a follower turns a loss into one `drift.detected`."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from contracts.artifact_ref import ArtifactRef
from contracts.events import DataRejected, DriftDetected, Feedback, Predictions
from contracts.profiles import Profile
from services.messaging.leases import Leases
from services.messaging.worker import Worker
from services.monitor.alerts.drift_event import Page
from services.monitor.app import create_app
from services.monitor.detection.error_bursts import ErrorBursts
from services.monitor.detection.rules import Rules
from services.monitor.domain import Incident
from services.monitor.ingest.consumer import Gap
from services.monitor.ingest.followers import ModelReaders
from services.monitor.ingest.model_reader import ModelReader
from services.monitor.ingest.payloads import parse_feedback, parse_predictions
from services.monitor.settings import Settings
from services.monitor.state.label_join import RowPositions
from services.monitor.state.model_traffic import TrafficMessage
from tests.fakes import MemoryInbox, MemoryRegistry, deliver
from tests.unit.services.monitor.monitored import VERSION, Stream, candidate, deployed, live, messages
from tests.waiting import eventually

ARTIFACT = ArtifactRef(uri="memory://a", sha256="0" * 64, size=1, media_type="text/plain")


class MemoryStore:
    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.told: dict[tuple[str, str], dict[str, Any]] = {}

    async def load(self, model: str) -> bytes | None:
        return self.states.get(model)

    async def save(self, model: str, state: bytes) -> None:
        self.states[model] = state

    async def tell(self, model: str, name: str, news: Mapping[str, Any]) -> None:
        self.told[model, name] = dict(news)

    async def news(self, model: str) -> dict[str, dict[str, Any]]:
        return {name: item for (about, name), item in sorted(self.told.items()) if about == model}

    async def forget(self, model: str, names: Iterable[str]) -> None:
        for name in names:
            self.told.pop((model, name), None)


class MemoryStream:
    """A list of messages; `acked` says up to where."""

    def __init__(self) -> None:
        self.messages: list[TrafficMessage] = []
        self.at = self.acked = 0

    def publish(self, *events: Predictions | Feedback) -> None:
        for event in events:
            body = event.model_dump_json().encode()
            content = parse_predictions(body) if isinstance(event, Predictions) else parse_feedback(body)
            self.messages.append(TrafficMessage(len(self.messages) + 1, content))

    async def open(self, position: int) -> int:
        self.at = position
        return position

    async def fetch(self, seconds: float) -> list[TrafficMessage]:
        new, self.at = self.messages[self.at : self.at + 20], min(len(self.messages), self.at + 20)
        return new

    async def ack(self) -> None:
        self.acked = self.at

    async def close(self) -> None:
        return

    async def columns(self, rows: RowPositions) -> dict[str, list[Any]]:
        return {}


class PlainTeller:
    def __init__(self) -> None:
        self.pages: list[RowPositions] = []
        self.given: list[Page | None] = []

    async def page(
        self, model: str, version: str, moved: tuple[str, ...], rows: RowPositions, profile: Profile, recent: object
    ) -> ArtifactRef | None:
        self.pages.append(rows)
        return ARTIFACT

    async def event(self, incident: Incident, rows: RowPositions, recent: object, page: Page | None) -> DriftDetected:
        self.given.append(page)
        return DriftDetected(
            model=incident.model, version=incident.version, kind=incident.kind, action=incident.action,
            window=incident.window, evidence={"rows": float(len(rows.sequence))}, dataset=ARTIFACT,
        )  # fmt: skip


class Room:
    """The monitor with everything in memory."""

    def __init__(self) -> None:
        self.store, self.stream, self.registry = MemoryStore(), MemoryStream(), MemoryRegistry()
        self.raised: list[tuple[str, DriftDetected]] = []
        self.now = 1000.0
        self.teller = PlainTeller()
        self.worker = Worker("monitor", Settings(), inbox=MemoryInbox())
        followers = ModelReaders(self.follower, Leases(self.worker.bus), self.registry)  # type: ignore[arg-type]
        create_app(self.worker, self.store, followers, self.registry, ErrorBursts(2))  # type: ignore[arg-type]

    def follower(self, model: str = "digits") -> ModelReader:
        async def emit(event: DriftDetected, id: str) -> None:
            self.raised.append((id, event))

        registry: Any = self.registry
        return ModelReader(
            model, self.stream, self.store, registry, self.teller, emit, Rules(), 0.0, 0.0, lambda: self.now
        )

    async def approve(self) -> None:
        await self.registry.put_candidate(candidate(ARTIFACT), None)
        await self.registry.put_live(live(), None)

    async def read(self, follower: ModelReader) -> None:
        """Until all traffic is in the state and nothing is left to tell."""

        async def quiet() -> bool:
            await follower.step()
            incident = follower.state.incident
            return self.stream.acked == len(self.stream.messages) and (incident is None or incident.told)

        await eventually(quiet)


async def test_a_loss_is_told_once_and_closed_by_the_end_of_its_run() -> None:
    room, traffic = Room(), Stream(1)
    await room.approve()
    follower = room.follower()
    await follower.begin()
    for _ in range(16):
        room.stream.publish(*messages(traffic, 50, 0.5))
    await room.read(follower)
    kinds = [event.kind for _, event in room.raised]
    assert kinds.count("performance") == 1
    incident = follower.state.incident
    assert incident is not None
    # Another holder takes over: it neither tells it again nor counts anything twice.
    other = room.follower()
    await other.begin()
    await room.read(other)
    assert [event.kind for _, event in room.raised] == kinds
    assert other.state.traffic.versions[VERSION].windows.rows == 800
    await deliver(
        room.worker, DataRejected(model="digits", dataset="d", violations=("x",)), ce_correlationid=incident.run
    )
    await room.read(other)
    assert other.state.incident is None
    assert room.store.told == {}


async def test_an_incident_that_was_saved_but_not_told_is_told_by_the_next_holder() -> None:
    room, traffic = Room(), Stream(2)
    await room.approve()
    first = room.follower()
    await first.begin()
    for _ in range(16):
        room.stream.publish(*messages(traffic, 50, 0.5))
    while first.state.incident is None or first.state.incident.kind != "performance":
        await first.step()
        first._alarms.stop()  # killed before the event is out
    room.raised.clear()
    second = room.follower()
    await second.begin()
    await room.read(second)
    assert [(event.kind, event.action) for _, event in room.raised] == [("performance", "retrain")]
    assert room.raised[0][0] == first.state.incident.id


async def test_the_page_of_a_loss_is_begun_while_labels_are_gathered() -> None:
    room, traffic = Room(), Stream(3)
    await room.approve()
    follower = room.follower()
    await follower.begin()
    for accuracy in (0.95, 0.95, 0.95, 0.95, 0.5, 0.5, 0.5):
        room.stream.publish(*messages(traffic, 50, accuracy))
    await room.read(follower)
    await asyncio.sleep(0)
    assert room.raised == []
    assert follower.state.suspect(room.now) is not None
    for _ in range(12):
        room.stream.publish(*messages(traffic, 50, 0.5))
    await room.read(follower)
    [page] = [page for page, (_, event) in zip(room.teller.given, room.raised, strict=True) if event.dataset]
    assert page is not None
    assert page.result() == ARTIFACT
    # Messages 1 to 8 are from before the loss: a page of those would show nothing.
    assert len(room.teller.pages[0].sequence) >= 50
    assert (room.teller.pages[0].sequence > 8).mean() > 0.75


async def test_a_deployed_model_is_news() -> None:
    room = Room()
    await deliver(room.worker, deployed())
    assert list(await room.store.news("digits")) == ["e000000000000001"]
    follower = room.follower()
    await follower.begin()
    await follower.step()
    assert follower.state.live == {"local": VERSION}


def shown(model: str) -> set[str]:
    """Versions (or none) that Prometheus is told of."""
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    told = [s.labels for s in samples if s.name.startswith("bentobelt_monitor_") and s.labels["model"] == model]
    return {labels.get("version", "") for labels in told}


async def test_after_many_versions_there_is_something_left_of_the_newest_only() -> None:
    room = Room()
    follower = room.follower()
    await follower.begin()
    versions = [f"{generation}-0123abcd" for generation in range(1, 31)]
    for number, version in enumerate(versions):
        await room.store.tell(
            "digits", "e1", {"deployed": deployed(version).model_dump(mode="json"), "sequence": number}
        )
        room.stream.publish(*messages(Stream(number, version=version), 50, 0.95))
        await follower.step()
    assert follower.state.live == {"local": versions[-1]}
    assert set(follower.state.traffic.versions) == set(versions[-Rules().versions :])
    assert shown("digits") & set(versions) == {versions[-1]}


async def test_who_gives_a_model_up_tells_prometheus_of_it_no_more() -> None:
    class Straying(MemoryStream):
        """All that was published, then a gap."""

        async def fetch(self, seconds: float) -> list[TrafficMessage]:
            if self.at < len(self.messages):
                return await super().fetch(seconds)
            assert VERSION in shown("digits")
            raise Gap("went astray")

    room = Room()
    room.stream = Straying()
    await room.approve()
    room.stream.publish(*messages(Stream(1), 50, 0.95))
    with pytest.raises(Gap):
        await room.follower().session()
    assert VERSION not in shown("digits")


async def test_news_of_models_that_are_not_live_are_not_kept() -> None:
    room = Room()
    await deliver(room.worker, DataRejected(model="digits", dataset="d", violations=("x",)))
    assert room.store.told == {}


async def test_errors_of_serving_are_counted_and_other_lines_are_not() -> None:
    quiet, loud = Room(), Room()
    await deliver(quiet.worker, b'{"level":"warning","version":"1-0123abcd","count":9}', "logs.serving.digits")
    assert quiet.store.told == {}
    await deliver(loud.worker, b'{"level":"error","version":"1-0123abcd","time":2.0,"count":2}', "logs.serving.digits")
    [news] = loud.store.told.values()
    assert news == {"version": VERSION, "errors": 2, "start": 2.0, "end": 2.0}


def test_the_worker_itself_imports_nothing_heavy() -> None:
    heavy = ("pandas", "sklearn", "scipy", "evidently", "pyarrow", "bentoml")
    code = f"import sys, services.monitor.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
