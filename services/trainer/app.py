"""data.pushed, drift.detected → trainer → model.trained, data.rejected, training.failed."""

from collections.abc import Sequence

from contracts.cloudevents import Envelope, version_of
from contracts.events import DataPushed, DataRejected, DriftDetected, Event, TrainingFailed
from services.messaging import from_environment
from services.messaging.worker import Worker, log
from services.sandbox import Environments, Sandbox
from services.storage import ArtifactStore, Project, Registry, open_artifact_store
from services.trainer.domain import UNKNOWN_MODEL, named, newest, replaces, schema_for
from services.trainer.errors import BadProject
from services.trainer.jobs.data_schema import Rejected, Schema
from services.trainer.pipeline import PRELOAD, RETRY_SECONDS, OpenedProject, Training, TrainingRequest
from services.trainer.settings import Settings


def create_app(
    worker: Worker,
    artifacts: ArtifactStore,
    registry: Registry,
    sandbox: Sandbox,
    settings: Settings,
    delays: Sequence[float] = RETRY_SECONDS,
) -> None:
    """Subscribe the trainer's handlers; `delays` are the seconds between attempts to read a remote dataset."""
    training = Training(artifacts, sandbox, settings, delays)

    @worker.on(DataPushed)
    async def push(event: DataPushed, about: Envelope) -> list[Event]:
        known = await registry.project(event.model)
        project = newest(event, about.generation, known)
        if project is None:
            return [_rejected(event, named(event.dataset, None), UNKNOWN_MODEL.format(model=event.model))]
        opened = await training.open(project.archive, event.model)
        if replaces(project, known):
            await registry.put_project(project, known)
        known_schema = schema_for(project, opened.code)
        schema = Schema.model_validate(known_schema) if known_schema else None
        request = TrainingRequest(event.model, _version(about), event.commit or project.commit, event.dataset, schema)
        return await train(request, opened, event, learn=schema is None)

    @worker.on(DriftDetected)
    async def retrain(event: DriftDetected, about: Envelope) -> list[Event]:
        if event.action != "retrain":
            return []
        # The rows that came with the event are those of the version that was watched; another may be live by now.
        watched = await registry.candidate(event.model, event.version)
        if watched is None:
            raise BadProject(f"version {event.version} is not in the registry, so its project cannot be trained again")
        trained = watched.trained
        opened = await training.open(trained.project, event.model)
        dataset = event.dataset or trained.dataset
        request = TrainingRequest(
            event.model, _version(about), trained.commit, dataset, Schema.of(trained.features, trained.target)
        )
        return await train(request, opened, event, learn=False)

    async def train(request: TrainingRequest, opened: OpenedProject, event: Event, *, learn: bool) -> list[Event]:
        try:
            trained, schema = await training.run(request, opened)
        except Rejected as problem:
            log.warning("data rejected", violations=problem.violations)
            return [_rejected(event, named(request.dataset, opened.spec), *problem.violations)]
        if learn:
            await _keep(registry, event.model, opened, schema)
        return [trained]


async def _keep(registry: Registry, model: str, opened: OpenedProject, schema: Schema) -> None:
    """Keep the learned schema, unless another project was pushed meanwhile."""
    newest_now: Project | None = await registry.project(model)
    if newest_now and newest_now.archive.sha256 == opened.archive.sha256:
        learned = {"data_schema": schema.model_dump(), "learned_with": opened.code}
        await registry.put_project(newest_now.model_copy(update=learned), newest_now)


def _rejected(event: Event, dataset: str, *violations: str) -> DataRejected:
    return DataRejected(model=event.model, dataset=dataset, violations=violations)


def _version(about: Envelope) -> str:
    return version_of(about.generation, about.run)


def main() -> None:
    settings = from_environment(Settings)
    worker = Worker("trainer", settings, failed=TrainingFailed)
    artifacts = open_artifact_store(worker.bus, settings)
    sandbox = Sandbox(Environments(settings.envs or settings.home / "envs", artifacts), preload=PRELOAD)
    create_app(worker, artifacts, Registry(worker.bus), sandbox, settings)

    worker.background(sandbox.stay_warm)
    worker.on_close(sandbox.close)
    worker.run()


if __name__ == "__main__":
    main()
