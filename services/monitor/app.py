"""Wiring of the monitor. Handlers leave notices for the replica that reads the model; readers count the traffic."""

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from contracts.cloudevents import Envelope
from contracts.events import (
    BuildFailed,
    DataRejected,
    DeploymentFailed,
    EvaluationFailed,
    Event,
    ModelDeployed,
    ModelRejected,
    TrainingFailed,
    Version,
)
from services.messaging import Leases, from_environment
from services.messaging.worker import Permanent, RawMessage, Worker
from services.monitor.alerts.drift_event import DriftEventBuilder
from services.monitor.detection.error_bursts import ErrorBursts
from services.monitor.ingest.consumer import TrafficStream
from services.monitor.ingest.model_reader import ModelReader, ModelReaders
from services.monitor.settings import Settings
from services.monitor.state.store import KvStateStore, StateStore
from services.sandbox import Environments, Sandbox
from services.storage import Registry, open_artifact_store

RUN_ENDED: tuple[type[Event], ...] = (
    ModelRejected, DataRejected, TrainingFailed, EvaluationFailed, BuildFailed, DeploymentFailed,
)  # fmt: skip
"""Events that end a run without a new version."""


class ServingLogLine(BaseModel):
    """The fields of a line of `logs.serving.<model>` that the monitor reads."""

    level: str
    version: Version | None = None
    time: FiniteFloat | None = None
    count: int = Field(default=1, ge=0, le=10**9)


def create_app(
    worker: Worker, store: StateStore, readers: ModelReaders, registry: Registry, bursts: ErrorBursts
) -> None:
    """Subscribe the monitor's handlers."""

    @worker.on(ModelDeployed)
    async def version_deployed(event: ModelDeployed, about: Envelope) -> list[Event]:
        notice = {"deployed": event.model_dump(mode="json"), "sequence": about.sequence}
        await store.add_notice(event.model, f"e{about.sequence:015}", notice)
        readers.add(event.model)
        return []

    async def run_ended(event: Event, about: Envelope) -> list[Event]:
        if event.model in {live.model for live in await registry.lives()}:  # Only a live model can have an incident.
            await store.add_notice(event.model, f"e{about.sequence:015}", {"ended": about.run})
        return []

    for ended in RUN_ENDED:
        worker.on(ended)(run_ended)

    @worker.on_raw("logs.serving.*")
    async def count_errors(raw: RawMessage, about: Envelope) -> list[Event]:
        model, line = raw.subject.split(".", 2)[2], _line(raw.body)
        if line.level == "error" and line.version:
            burst = bursts.add(model, line.version, line.time or raw.time.timestamp(), line.count)
            if burst:
                await store.add_notice(model, f"l{about.sequence:015}", burst._asdict())
        return []


def _line(body: bytes) -> ServingLogLine:
    try:
        return ServingLogLine.model_validate_json(body)
    except ValidationError as error:
        raise Permanent(f"not a line of the serving log: {error.errors()[0]['msg']}") from None


def main() -> None:
    settings = from_environment(Settings)
    worker = Worker("monitor", settings)
    registry, artifacts = Registry(worker.bus), open_artifact_store(worker.bus, settings)
    sandbox = Sandbox(Environments(settings.envs or settings.home / "envs", artifacts), preload=())
    events = DriftEventBuilder(registry, artifacts, sandbox, settings)
    store = KvStateStore(worker.bus)

    def make_reader(model: str) -> ModelReader:
        stream = TrafficStream(worker.bus, model)
        return ModelReader(model, stream, store, registry, events, worker.emit_root, settings)

    readers = ModelReaders(make_reader, Leases(worker.bus), registry, settings.scan_seconds)
    create_app(worker, store, readers, registry, ErrorBursts(settings.error_burst))
    worker.background(readers.run)
    worker.on_health(lambda: readers.failing)
    worker.on_close(sandbox.close)
    worker.run()


if __name__ == "__main__":
    main()
