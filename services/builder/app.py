"""Wiring of the builder: read, build, push, say where."""

from pathlib import Path

from contracts.cloudevents import Envelope
from contracts.events import BuildFailed, ImagePushed, ModelApproved
from services.builder.bento import JOB, BentoBuilder, Bentos, store, use_store
from services.builder.domain import pushed
from services.builder.packed import ImageBuilder, PackedBentos
from services.builder.settings import Settings
from services.messaging import from_environment
from services.messaging.worker import Worker
from services.sandbox import Environments, Sandbox
from services.storage import ArtifactStore, open_artifact_store


def create_app(worker: Worker, bentos: Bentos, images: ImageBuilder) -> None:
    """Subscribe the builder's handler."""

    @worker.on(ModelApproved)
    async def build(event: ModelApproved, about: Envelope) -> list[ImagePushed]:
        image = await images.find(event)
        if image is None:
            async with bentos.build(event, about.run) as bento:
                image = await images.make(event, about.run, bento)
        return [pushed(event, image, await bentos.limits(event))]


def open_images(settings: Settings, artifacts: ArtifactStore, folder: Path) -> ImageBuilder:
    """Where the settings say that images go.

    Raises:
        SystemExit: what makes them is not installed.
    """
    if settings.images == "packed":
        return PackedBentos(artifacts, folder)
    # The Docker SDK takes 20 MB, which the embedded default need not pay.
    from services.builder.containerize import Plain, require_docker_command
    from services.builder.images import PushedImages, Recipe
    from services.builder.layered import Layered
    from services.docker_engine.client import Engine

    engine = Engine(settings.registry, settings.registry_credentials, settings.seconds)
    recipe: Recipe
    if settings.images == "containerize":
        require_docker_command()
        recipe = Plain(engine, store(folder), settings.seconds)
    else:
        recipe = Layered(engine, settings.base_image, folder)
    return PushedImages(engine, recipe, artifacts, settings.keep)


def main() -> None:
    settings = from_environment(Settings)
    folder = settings.home / "builds"
    use_store(folder)
    worker = Worker("builder", settings, failed=BuildFailed)
    artifacts = open_artifact_store(worker.bus, settings)
    forks = Sandbox(Environments(settings.envs or settings.home / "envs", artifacts), [JOB])
    bentos = BentoBuilder(forks, artifacts, folder, seconds=settings.seconds, keep=settings.keep)
    images = open_images(settings, artifacts, folder)
    create_app(worker, bentos, images)

    worker.background(forks.stay_warm)
    worker.background(images.stay_ready)
    worker.on_close(images.close)
    worker.on_close(forks.close)
    worker.run()


if __name__ == "__main__":
    main()
