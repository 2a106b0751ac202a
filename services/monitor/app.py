"""Wiring of the monitor: news are left for whoever follows the model; followers read the traffic."""

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from contracts.cloudevents import Envelope
from contracts.events import (
    BuildFailed,
    DataRejected,
    DeploymentFailed,
    DriftDetected,
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
from services.monitor.alerts.report_page import ReportPages
from services.monitor.detection.error_bursts import ErrorBursts
from services.monitor.ingest.consumer import TrafficStream
from services.monitor.ingest.followers import ModelReaders
from services.monitor.ingest.model_reader import ModelReader
from services.monitor.settings import Settings
from services.monitor.state.store import KvStore, Store
from services.sandbox import Environments, Sandbox
from services.storage import Registry, open_artifact_store

ENDINGS: tuple[type[Event], ...] = (
    ModelRejected, DataRejected, TrainingFailed, EvaluationFailed, BuildFailed, DeploymentFailed,
)  # fmt: skip
"""What ends a run without a new version."""


class ServingLogLine(BaseModel):
    """What the monitor reads of a line of `logs.serving.<model>`."""

    level: str
    version: Version | None = None
    time: FiniteFloat | None = None
    count: int = Field(default=1, ge=0, le=10**9)


def create_app(worker: Worker, store: Store, followers: ModelReaders, registry: Registry, bursts: ErrorBursts) -> None:
    """Subscribe the monitor's handlers."""

    @worker.on(ModelDeployed)
    async def watch(event: ModelDeployed, about: Envelope) -> list[Event]:
        news = {"deployed": event.model_dump(mode="json"), "sequence": about.sequence}
        await store.tell(event.model, f"e{about.sequence:015}", news)
        followers.follow(event.model)
        return []

    async def close(event: Event, about: Envelope) -> list[Event]:
        if event.model in {live.model for live in await registry.lives()}:  # no other has an incident
            await store.tell(event.model, f"e{about.sequence:015}", {"ended": about.run})
        return []

    for ending in ENDINGS:
        worker.on(ending)(close)

    @worker.on_raw("logs.serving.*")
    async def count(raw: RawMessage, about: Envelope) -> list[Event]:
        model, line = raw.subject.split(".", 2)[2], _line(raw.body)
        if line.level == "error" and line.version:
            burst = bursts.add(model, line.version, line.time or raw.time.timestamp(), line.count)
            if burst:
                await store.tell(model, f"l{about.sequence:015}", burst._asdict())
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
    forks = Sandbox(Environments(settings.envs or settings.home / "envs", artifacts), preload=())
    scratch = settings.home / "monitor"
    alert, retrain = settings.report_seconds, settings.retrain_report_seconds
    pages = ReportPages(registry, artifacts, forks, scratch, settings.dataset_seconds if alert or retrain else 0.0)
    telling = DriftEventBuilder(registry, artifacts, forks, pages, scratch, settings.dataset_seconds, alert, retrain)
    store = KvStore(worker.bus)

    async def emit(event: DriftDetected, id: str) -> None:
        await worker.emit_root(event, id=id)

    def follower(model: str) -> ModelReader:
        stream = TrafficStream(worker.bus, model)
        rules, poll, save = settings.rules, settings.poll_seconds, settings.save_seconds
        return ModelReader(model, stream, store, registry, telling, emit, rules, poll, save)

    followers = ModelReaders(follower, Leases(worker.bus), registry, settings.scan_seconds)
    create_app(worker, store, followers, registry, ErrorBursts(settings.error_burst))
    worker.background(followers.run)
    worker.on_health(lambda: followers.failing)
    worker.on_close(forks.close)
    worker.run()


if __name__ == "__main__":
    main()
