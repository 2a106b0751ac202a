"""Images of versions, built from `infra/docker/serving.Dockerfile`: a runtime per lock, then code, then the model."""

import hashlib
import os
import platform
import shlex
import tempfile
import threading
from pathlib import Path

import structlog

from contracts.events import ModelApproved
from contracts.serve_spec import Serve
from services.builder.bento import BuiltBento
from services.builder.docker_build import DockerBuild, ImageBuild
from services.builder.domain import index_settings, minor
from services.docker_engine import (
    DockerEngine,
    DockerRefused,
    DockerTrouble,
    ImageMissing,
    RegistryAway,
    Unauthorized,
)
from services.sandbox import BASE_LOCK

log = structlog.get_logger()
ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "infra" / "docker" / "serving.Dockerfile"
OURS = ("requirements/uv.txt", "services/builder/sbom.py")
"""Files of this checkout that the steps of a runtime read."""
LOCK = Path("env/python/requirements.txt")
"""The hash-locked requirements inside a Bento."""
RUNTIME = "dev.bentobelt.runtime"
RUNTIMES, BASES = "bentobelt-runtime", "bentobelt-base"
SBOM_FILE = "/opt/serving/sbom.cdx.json"
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class DockerfileRecipe:
    """Builds the image of a version on a runtime image, which is made and pushed once per lock, base and packages.

    Args:
        engine: Docker engine.
        builds: builds in that engine.
        registry: prefix of image names.
        base: name of the image that runtimes are based on, with {python} in it.
    """

    def __init__(self, engine: DockerEngine, builds: DockerBuild, registry: str, base: str) -> None:
        self._engine, self._builds, self._registry, self.base = engine, builds, registry, base
        self._one = threading.Lock()
        self._package_lists: dict[str, bytes] = {}

    def build(self, name: str, event: ModelApproved, bento: BuiltBento, labels: dict[str, str]) -> None:
        if self._one.locked():  # it is being made since the start, most likely
            _report_runtime()
        runtime = self.provide(bento.folder, bento.spec.serve, event.environment.python, bento.project)
        self._builds.run(
            ImageBuild(name, DOCKERFILE, bento.folder, "version", arguments={"RUNTIME": runtime}, labels=labels)
        )

    def prepare(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder) / LOCK
            lock.parent.mkdir(parents=True)
            lock.write_bytes(BASE_LOCK.read_bytes())
            self.provide(Path(folder), Serve(), platform.python_version(), None)

    def package_list(self, image: str, labels: dict[str, str]) -> bytes:
        key = labels.get(RUNTIME, "")
        if key not in self._package_lists:
            self._package_lists[key] = self._engine.output(image, ["cat", SBOM_FILE])
        return self._package_lists[key]

    def provide(self, context: Path, serve: Serve, python: str, project: Path | None) -> str:
        """Return the name of a runtime image: one in the engine, in the registry, or made and pushed now.

        Args:
            context: folder with the lock, as in a Bento.
            serve: base image and system packages.
            python: version of Python.
            project: folder that holds `serve.dockerfile`.
        """
        with self._one:
            base, identity = self._base(serve, python, project)
            key = runtime_key((context / LOCK).read_bytes(), f"{identity} {minor(python)}", serve.system_packages)
            name = f"{self._registry}/{RUNTIMES}"
            image = f"{name}:{key}"
            if self._engine.local(image) is None and not self._engine.try_pull(name, key):
                self._make(image, key, context, base, serve, python)
            found = self._engine.local(image)
            if found is None:
                raise DockerTrouble(f"{image} was removed from the engine while the builder read it")
            if not any(digest.startswith(f"{name}@") for digest in found.digests):
                self._engine.push(name, key)  # made by this process, or by one that was killed before it could push
            return image

    def _make(self, image: str, key: str, context: Path, base: str, serve: Serve, python: str) -> None:
        _report_runtime()
        if not serve.dockerfile:
            self._need(base, "serve.base_image in model.yaml" if serve.base_image else "BUILDER_BASE_IMAGE")
        arguments = {"BASE": base, "PYTHON": minor(python), "SYSTEM_PACKAGES": " ".join(serve.system_packages)}
        runtime = ImageBuild(
            image,
            DOCKERFILE,
            context,
            "runtime",
            contexts={"bentobelt": ROOT},
            arguments=arguments,
            labels={RUNTIME: key},
            secrets=secrets(),
        )
        self._builds.run(runtime, lambda step: log.info("progress", step=f"runtime image: {step}"))

    def _base(self, serve: Serve, python: str, project: Path | None) -> tuple[str, str]:
        """Return name and identity of the base image; a Dockerfile of the project is built for it."""
        if serve.dockerfile is None or project is None:
            named = serve.base_image or self.base.format(python=minor(python))
            return named, named
        name = f"{BASES}:{project.name[:16]}"  # a digest: projects are kept by their content
        self._builds.run(ImageBuild(name, project / serve.dockerfile, project, secrets=secrets()))
        found = self._engine.local(name)
        if found is None:
            raise DockerTrouble(f"{name} was removed from the engine while the builder read it")
        return name, found.id  # the same steps give the same image, however the rest of the project has changed

    def _need(self, base: str, setting: str) -> None:
        try:
            self._engine.need(base)
        except (ImageMissing, Unauthorized) as error:
            raise DockerRefused(
                f"{error.args[0]}. The image that runtimes are based on cannot be pulled: {setting} names it"
            ) from error
        except RegistryAway as error:
            raise RegistryAway(f"{error}; {base} is needed, which {setting} names") from error


def runtime_key(lock: bytes, base: str, system_packages: tuple[str, ...]) -> str:
    """Return the tag of a runtime image: a digest of everything that it is made from."""
    parts = [lock, base.encode(), " ".join(system_packages).encode(), DOCKERFILE.read_bytes()]
    made_of = hashlib.sha256()
    for part in (*parts, *((ROOT / name).read_bytes() for name in OURS)):
        made_of.update(f"{len(part)}\n".encode() + part)
    return made_of.hexdigest()[:16]


def secrets() -> dict[str, Path | str]:
    """Return how a build reaches the package index: a script of settings, and the file of trusted certificates."""
    settings = index_settings(os.environ)
    found = next((Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name)), None)
    certificates: dict[str, Path | str] = {}
    if found is not None and found.is_file():
        certificates = {"certificates": found}
        settings |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT"), "/run/secrets/certificates")
    return {
        "index": "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    } | certificates


def _report_runtime() -> None:
    log.info("progress", step="runtime image, once per set of packages")
