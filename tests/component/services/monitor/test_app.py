"""Notices reach the reader of the model; a reader turns a loss into one `drift.detected`."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from contracts.artifact_ref import ArtifactRef
from contracts.events import DataRejected, DriftDetected, Feedback, Predictions
from services.messaging.leases import Leases
from services.messaging.worker import Worker
from services.monitor.alerts.drift_event import ReportTask
from services.monitor.app import create_app
from services.monitor.detection.error_bursts import ErrorBursts
from services.monitor.detection.rules import Rules
from services.monitor.domain import Incident
from services.monitor.ingest.consumer import DeliveryGap
from services.monitor.ingest.model_reader import ModelReader, ModelReaders
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
        self.left: dict[tuple[str, str], dict[str, Any]] = {}

    async def load(self, model: str) -> bytes | None:
        return self.states.get(model)

    async def save(self, model: str, state: bytes) -> None:
        self.states[model] = state

    async def add_notice(self, model: str, name: str, notice: Mapping[str, Any]) -> None:
        self.left[model, name] = dict(notice)

    async def notices(self, model: str) -> dict[str, dict[str, Any]]:
        return {name: notice for (about, name), notice in sorted(self.left.items()) if about == model}

    async def delete_notices(self, model: str, names: Iterable[str]) -> None:
        for name in names:
            self.left.pop((model, name), None)


class MemoryStream:
    """A list of messages; those before `acked` are acknowledged."""

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

    async def read_rows(self, positions: RowPositions) -> dict[str, list[Any]]:
        return {}


class FakeEvents:
    def __init__(self) -> None:
        self.reports: list[RowPositions] = []
        self.given: list[ReportTask | None] = []

    async def report(
        self, model: str, version: str, suspects: tuple[str, ...], rows: RowPositions, source: object
    ) -> ArtifactRef | None:
        self.reports.append(rows)
        return ARTIFACT

    async def event(
        self, incident: Incident, rows: RowPositions, source: object, report: ReportTask | None
    ) -> DriftDetected:
        self.given.append(report)
        return DriftDetected(
            model=incident.model, version=incident.version, kind=incident.kind, action=incident.action,
            window=incident.window, evidence={"rows": float(len(rows.sequence))}, dataset=ARTIFACT,
        )  # fmt: skip


class Room:
    """The monitor with everything in memory."""

    def __init__(self) -> None:
        self.store, self.stream, self.registry = MemoryStore(), MemoryStream(), MemoryRegistry()
        self.published: list[tuple[str, DriftDetected]] = []
        self.now = 1000.0
        self.events = FakeEvents()
        self.worker = Worker("monitor", Settings(), inbox=MemoryInbox())
        readers = ModelReaders(self.reader, Leases(self.worker.bus), self.registry)  # type: ignore[arg-type]
        create_app(self.worker, self.store, readers, self.registry, ErrorBursts(2))  # type: ignore[arg-type]

    def reader(self, model: str = "digits") -> ModelReader:
        async def emit(event: DriftDetected, id: str) -> None:
            self.published.append((id, event))

        registry: Any = self.registry
        settings = Settings(save_seconds=0.0)
        return ModelReader(model, self.stream, self.store, registry, self.events, emit, settings, lambda: self.now)

    async def approve(self) -> None:
        await self.registry.put_candidate(candidate(ARTIFACT), None)
        await self.registry.put_live(live(), None)

    async def read(self, reader: ModelReader) -> None:
        """Read until all traffic is in the state and the incident is published."""

        async def quiet() -> bool:
            await reader.step()
            incident = reader.state.incident
            return self.stream.acked == len(self.stream.messages) and (incident is None or incident.published)

        await eventually(quiet)


async def test_a_loss_is_published_once_and_closed_by_the_end_of_its_run() -> None:
    room, traffic = Room(), Stream(1)
    await room.approve()
    reader = room.reader()
    await reader.open()
    for _ in range(16):
        room.stream.publish(*messages(traffic, 50, 0.5))
    await room.read(reader)
    kinds = [event.kind for _, event in room.published]
    assert kinds.count("performance") == 1
    incident = reader.state.incident
    assert incident is not None
    # Another holder takes over: it neither publishes it again nor counts anything twice.
    other = room.reader()
    await other.open()
    await room.read(other)
    assert [event.kind for _, event in room.published] == kinds
    assert other.state.traffic.versions[VERSION].windows.rows == 800
    await deliver(
        room.worker, DataRejected(model="digits", dataset="d", violations=("x",)), ce_correlationid=incident.run
    )
    await room.read(other)
    assert other.state.incident is None
    assert room.store.left == {}


async def test_an_incident_that_was_saved_but_not_published_is_published_by_the_next_holder() -> None:
    room, traffic = Room(), Stream(2)
    await room.approve()
    first = room.reader()
    await first.open()
    for _ in range(16):
        room.stream.publish(*messages(traffic, 50, 0.5))
    while first.state.incident is None or first.state.incident.kind != "performance":
        await first.step()
        first._alerts.stop()  # killed before the event is out
    room.published.clear()
    second = room.reader()
    await second.open()
    await room.read(second)
    assert [(event.kind, event.action) for _, event in room.published] == [("performance", "retrain")]
    assert room.published[0][0] == first.state.incident.id


async def test_the_report_of_a_loss_is_started_while_labels_are_collected() -> None:
    room, traffic = Room(), Stream(3)
    await room.approve()
    reader = room.reader()
    await reader.open()
    for accuracy in (0.95, 0.95, 0.95, 0.95, 0.5, 0.5, 0.5):
        room.stream.publish(*messages(traffic, 50, accuracy))
    await room.read(reader)
    await asyncio.sleep(0)
    assert room.published == []
    assert reader.state.version_below_target(room.now) is not None
    for _ in range(12):
        room.stream.publish(*messages(traffic, 50, 0.5))
    await room.read(reader)
    [report] = [report for report, (_, event) in zip(room.events.given, room.published, strict=True) if event.dataset]
    assert report is not None
    assert report.result() == ARTIFACT
    # Messages 1 to 8 are from before the loss: a report on those would show nothing.
    assert len(room.events.reports[0].sequence) >= 50
    assert (room.events.reports[0].sequence > 8).mean() > 0.75


async def test_a_deployed_model_is_a_notice() -> None:
    room = Room()
    await deliver(room.worker, deployed())
    assert list(await room.store.notices("digits")) == ["e000000000000001"]
    reader = room.reader()
    await reader.open()
    await reader.step()
    assert reader.state.live == {"local": VERSION}


def with_gauges(model: str) -> set[str]:
    """Versions (or none) that have gauges."""
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    labels_of_samples = [
        s.labels for s in samples if s.name.startswith("bentobelt_monitor_") and s.labels["model"] == model
    ]
    return {labels.get("version", "") for labels in labels_of_samples}


async def test_after_many_versions_there_is_something_left_of_the_newest_only() -> None:
    room = Room()
    reader = room.reader()
    await reader.open()
    versions = [f"{generation}-0123abcd" for generation in range(1, 31)]
    for number, version in enumerate(versions):
        await room.store.add_notice(
            "digits", "e1", {"deployed": deployed(version).model_dump(mode="json"), "sequence": number}
        )
        room.stream.publish(*messages(Stream(number, version=version), 50, 0.95))
        await reader.step()
    assert reader.state.live == {"local": versions[-1]}
    assert set(reader.state.traffic.versions) == set(versions[-Rules().versions :])
    assert with_gauges("digits") & set(versions) == {versions[-1]}


async def test_a_reader_that_stops_removes_the_gauges_of_its_model() -> None:
    class Gapped(MemoryStream):
        """All that was published, then a gap."""

        async def fetch(self, seconds: float) -> list[TrafficMessage]:
            if self.at < len(self.messages):
                return await super().fetch(seconds)
            assert VERSION in with_gauges("digits")
            raise DeliveryGap("a delivery was lost")

    room = Room()
    room.stream = Gapped()
    await room.approve()
    room.stream.publish(*messages(Stream(1), 50, 0.95))
    with pytest.raises(DeliveryGap):
        await room.reader().session()
    assert VERSION not in with_gauges("digits")


async def test_there_are_no_notices_for_models_that_are_not_live() -> None:
    room = Room()
    await deliver(room.worker, DataRejected(model="digits", dataset="d", violations=("x",)))
    assert room.store.left == {}


async def test_errors_of_serving_are_counted_and_other_lines_are_not() -> None:
    quiet, loud = Room(), Room()
    await deliver(quiet.worker, b'{"level":"warning","version":"1-0123abcd","count":9}', "logs.serving.digits")
    assert quiet.store.left == {}
    await deliver(loud.worker, b'{"level":"error","version":"1-0123abcd","time":2.0,"count":2}', "logs.serving.digits")
    [notice] = loud.store.left.values()
    assert notice == {"version": VERSION, "errors": 2, "start": 2.0, "end": 2.0}


def test_the_worker_itself_imports_nothing_heavy() -> None:
    heavy = ("pandas", "sklearn", "scipy.stats", "evidently", "pyarrow", "bentoml")
    code = f"import sys, services.monitor.app; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
