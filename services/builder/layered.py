"""Images of few layers: a runtime per lock, then the code that serves, then the model."""

import contextlib
import hashlib
import os
import platform
import shlex
import threading
import uuid
from pathlib import Path
from typing import IO

import structlog
from uv import find_uv_bin

from contracts.events import ModelApproved
from services.builder import layers
from services.builder.domain import index_arguments, parted
from services.builder.images import minor
from services.docker_engine.client import Engine, Making
from services.docker_engine.errors import DockerRefused, DockerTrouble, ImageMissing, RegistryAway, Unauthorized
from services.sandbox import BASE_LOCK

log = structlog.get_logger()
HERE = Path(__file__).parent
SCRIPT = HERE / "runtime.sh"
UV = Path(find_uv_bin())
UV_LOCK = HERE.parents[1] / "requirements" / "uv.txt"
RUNTIME = "dev.bentobelt.runtime"
NAME, SERVED = "bentobelt-runtime", "bentobelt-served"
BILL = "/opt/serving/sbom.cdx.json"
PARTS = {
    "first": ("aiohttp", "numpy", "pyarrow", "pydantic-core", "pygments", "uvloop"),
    "second": ("pandas", "scikit-learn", "scipy"),
    "third": ("anyio", "bentoml", "fsspec", "joblib", "narwhals", "pydantic", "pyyaml", "pyzmq", "rich", "tornado"),
}
LAST = "last"
"""Packages of each layer; all others are in the last one. A layer is pushed while the next one is made, and nothing is
made during the last push: what is big comes first.
"""
SERVED_KEPT = 3
"""Runtimes with code on them that an engine keeps."""
SETTINGS = """\
ENV PATH=/opt/serving/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HOST=0.0.0.0 PORT=3000
ENV BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True PROMETHEUS_MULTIPROC_DIR=/tmp/metrics
WORKDIR /bento
USER 1034:1034
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/serving/bin/python", "-I", "-S", "/bento/src/serving/entrypoints/healthcheck.py"]
ENTRYPOINT ["/opt/serving/bin/python", "-P", "/bento/src/serving/entrypoints/container.py"]
"""
"""How a runtime image is run."""
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class Layered:
    """Puts Bentos on runtime images, which it makes and pushes once.

    Args:
        engine: where images are made.
        base: name of the image that runtimes are based on, with {python} in it.
        folder: for the layers of a version while they are put together.
    """

    def __init__(self, engine: Engine, base: str, folder: Path) -> None:
        self._engine, self.base, self._folder = engine, base, folder
        self._one = threading.Lock()
        self._bills: dict[str, bytes] = {}

    def build(self, name: str, event: ModelApproved, bento: Path, labels: dict[str, str]) -> None:
        runtime = Runtime(
            layers.lock_of(bento),
            self.base.format(python=minor(event.environment.python)),
            "\n".join(event.environment.requirements),
        )
        if self._one.locked():  # it is being made since the start, most likely
            _tell_of_runtime()
        image = self.provide(runtime)
        code, model = layers.split(bento, self._folder)
        with code, model:
            self._engine.layer(self._with_code(image, runtime.key, code), name, model, labels)

    def _with_code(self, image: str, key: str, code: IO[bytes]) -> str:
        """Name of a runtime with the code that serves on it: made once, and pushed as a part of versions only."""
        digest = hashlib.sha256(image.encode() + code.read()).hexdigest()
        served = f"{self._engine.registry}/{SERVED}"
        with self._one:
            if self._engine.local(f"{served}:{digest[:16]}") is None:
                code.seek(0)
                self._engine.layer(image, f"{served}:{digest[:16]}", code, {RUNTIME: key})
                with contextlib.suppress(DockerTrouble, DockerRefused):  # old ones that stay are no failure of a build
                    self._engine.prune(served, SERVED_KEPT)
        return f"{served}:{digest[:16]}"

    def prepare(self) -> None:
        self._engine.tidy()
        base = self.base.format(python=minor(platform.python_version()))
        self.provide(Runtime(BASE_LOCK.read_bytes(), base, ""))

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        key = labels.get(RUNTIME, "")
        if key not in self._bills:
            self._bills[key] = self._engine.read(image, BILL)
        return self._bills[key]

    def provide(self, runtime: "Runtime") -> str:
        """Id of the runtime image: one that is here, in the registry, or made and pushed now."""
        with self._one:
            return self._provide(runtime)

    def _provide(self, runtime: "Runtime") -> str:
        name = f"{self._engine.registry}/{NAME}"
        image = f"{name}:{runtime.key}"
        local = self._engine.local(image)
        # One of another registry will do: its name tells what is in it.
        elsewhere = [f"*/{NAME}:{runtime.key}", f"*/*/{NAME}:{runtime.key}"]
        if local is None and not (
            self._engine.pull(name, runtime.key) or self._engine.rename(elsewhere, name, runtime.key)
        ):
            self._make(runtime, image)
        local = local or self._engine.local(image)
        if local is None:
            raise DockerTrouble(f"{image} was removed from the engine while it was looked at")
        if not any(digest.startswith(f"{name}@") for digest in local.digests):
            self._engine.push(name, runtime.key)  # made, by this process or one that was killed before it could push
        return local.id

    def _make(self, runtime: "Runtime", image: str) -> None:
        making = uuid.uuid4().hex[:8]  # another builder may make the same: neither takes the other's parts away
        begun = f"{image}-begun-{making}"
        names = {part: f"{begun}-{part}" for part in ("base", *PARTS)} | {LAST: image}
        pushing: list[threading.Thread] = []

        def push_ahead(name: str) -> None:
            # A daemon: a process that is stopped does not wait for it.
            pushing.append(threading.Thread(target=self._push, args=(name,), daemon=True))
            pushing[-1].start()

        _tell_of_runtime()
        try:
            self._need_base(runtime.base)
            self._engine.name(runtime.base, begun)
            push_ahead(begun)
            self._engine.extend(begun, runtime.making(), names, push_ahead)
            for push in pushing:
                push.join()
        finally:
            self._engine.clear()

    def _need_base(self, base: str) -> None:
        try:
            self._engine.need(base)
        except (ImageMissing, Unauthorized) as error:
            raise DockerRefused(
                f"{error.args[0]}. The image that runtimes are based on is not to be had: BUILDER_BASE_IMAGE names it"
            ) from error
        except RegistryAway as error:
            raise RegistryAway(f"{error}; {base} is needed, which BUILDER_BASE_IMAGE names") from error

    def _push(self, name: str) -> None:
        """Push what is made while more is being made: the engine compresses a layer with one core."""
        try:
            self._engine.push(*name.rsplit(":", 1))
        except (DockerTrouble, DockerRefused) as error:
            log.info("not pushed ahead; all of it is pushed in the end", error=str(error))


def _tell_of_runtime() -> None:
    log.info("progress", step="runtime image, once per set of packages")


class Runtime:
    """What a runtime image is made of, and named by.

    Args:
        lock: hash-locked requirements.
        base: image it is based on.
        extra: the project's own requirements, a line each.
        uv: the program, which is used if it runs where the engine is.
    """

    def __init__(self, lock: bytes, base: str, extra: str, uv: Path = UV) -> None:
        self.base, self._uv = base, uv
        locks = dict(zip((*PARTS, LAST), parted(lock.decode(), list(PARTS.values())), strict=True))
        self._files = {
            "settings": SETTINGS.encode(),
            "runtime.sh": SCRIPT.read_bytes(),
            "furnish.py": (HERE / "furnish.py").read_bytes(),
            "bill.py": (HERE / "sbom.py").read_bytes(),
            "uv.txt": UV_LOCK.read_bytes(),
            **{f"{part}.txt": lines.encode() for part, lines in locks.items()},
            "extra": extra.encode(),
        }
        made_of = hashlib.sha256(base.encode())
        for name, content in self._files.items():
            made_of.update(f"\n{name} {len(content)}\n".encode() + content)
        self.key = made_of.hexdigest()[:16]

    def making(self) -> Making:
        """How its layers are made: its files, our own uv, and how the index is reached, certificates included."""
        index = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in index_arguments(os.environ).items())
        found = next((Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name)), None)
        certificates = found.read_bytes() if found and found.is_file() else b""
        more = {"uv": self._uv.read_bytes(), "index": index.encode(), "ca.pem": certificates}
        files = layers.files({f"build/{name}": content for name, content in (self._files | more).items()})
        script = ["sh", "-euc", SCRIPT.read_text(), "runtime"]
        labels = {RUNTIME: self.key}
        return Making("/opt/serving", [*script, "make", *PARTS, LAST], files, [*script, "take"], SETTINGS, labels)
