"""Wiring of the builder: build the Bento, make the image, push it, publish the event."""

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
        return [pushed(event, image, await bentos.spec(event))]


def open_images(settings: Settings, artifacts: ArtifactStore, folder: Path) -> ImageBuilder:
    """Return the maker of images that the settings name.

    Raises:
        SystemExit: the docker command is not installed, and it is needed.
    """
    if settings.images == "packed":
        return PackedBentos(artifacts, folder)
    # The Docker SDK takes 20 MB, which the embedded default need not pay.
    from services.builder.commands import CommandRunner
    from services.builder.containerize import ContainerizeRecipe
    from services.builder.docker_build import DockerBuild, require_docker_command
    from services.builder.images import ImageRecipe, PushedImages
    from services.builder.serving_image import DockerfileRecipe
    from services.docker_engine import DockerEngine

    require_docker_command(settings.images)
    engine = DockerEngine("BUILDER", settings.registry_credentials, seconds=settings.seconds)
    commands = CommandRunner()
    recipe: ImageRecipe
    if settings.images == "containerize":
        recipe = ContainerizeRecipe(engine, commands, store(folder), settings.seconds)
    else:
        # A runtime image takes longer than the other steps: all packages are fetched and compiled.
        builds = DockerBuild(commands, folder, 3 * settings.seconds)
        recipe = DockerfileRecipe(engine, builds, settings.registry, settings.base_image)
    return PushedImages(engine, settings.registry, recipe, commands, artifacts, settings.keep)


def main() -> None:
    settings = from_environment(Settings)
    folder = settings.home / "builds"
    use_store(folder)
    worker = Worker("builder", settings, failed=BuildFailed)
    artifacts = open_artifact_store(worker.bus, settings)
    sandbox = Sandbox(Environments(settings.envs or settings.home / "envs", artifacts), [JOB])
    bentos = BentoBuilder(sandbox, artifacts, folder, seconds=settings.seconds, keep=settings.keep)
    images = open_images(settings, artifacts, folder)
    create_app(worker, bentos, images)

    worker.background(sandbox.stay_warm)
    worker.background(images.stay_ready)
    worker.on_close(images.close)
    worker.on_close(sandbox.close)
    worker.run()


if __name__ == "__main__":
    main()
