"""Images of few layers: a runtime per lock, then the code that serves, then the model."""

import hashlib
import os
import platform
import shlex
import threading
from pathlib import Path

from contracts.events import ModelApproved
from services.builder import layers
from services.builder.domain import index_arguments
from services.builder.engine import Engine
from services.builder.pushed import minor
from services.docker_errors import DockerRefused, ImageMissing, RegistryAway, Unauthorized
from services.environments import BASE_LOCK

HERE = Path(__file__).parent
SCRIPT = HERE / "runtime.sh"
UV_LOCK = HERE.parents[1] / "requirements" / "uv.txt"
RUNTIME = "dev.bentobelt.runtime"
NAME = "bentobelt-runtime"
BILL = "/opt/serving/sbom.cdx.json"
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class Layered:
    """Puts Bentos on runtime images, which it makes and pushes once.

    Args:
        engine: where images are made.
        base: name of the image that runtimes are based on, with {python} in it.
        folder: for build contexts.
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
        image = self.provide(runtime)
        with layers.context(bento, self._folder) as context:
            self._engine.build(name, context, {"RUNTIME": image}, labels | {RUNTIME: runtime.key})

    def prepare(self) -> None:
        base = self.base.format(python=minor(platform.python_version()))
        self.provide(Runtime(BASE_LOCK.read_bytes(), base, ""))

    def bill(self, image: str, labels: dict[str, str]) -> bytes:
        key = labels.get(RUNTIME, "")
        if key not in self._bills:
            self._bills[key] = self._engine.read(image, BILL)
        return self._bills[key]

    def provide(self, runtime: "Runtime") -> str:
        """Name of the runtime image: one that is here, in the registry, or made and pushed now."""
        with self._one:
            return self._provide(runtime)

    def _provide(self, runtime: "Runtime") -> str:
        name = f"{self._engine.registry}/{NAME}"
        image = f"{name}:{runtime.key}"
        local = self._engine.local(image)
        if local is None and not self._engine.pull(name, runtime.key):
            # Of another registry, say: its name tells what is in it.
            if not self._engine.rename([f"*/{NAME}:{runtime.key}", f"*/*/{NAME}:{runtime.key}"], name, runtime.key):
                self._make(runtime, image)
            local = self._engine.local(image)
        if local is not None and not any(digest.startswith(f"{name}@") for digest in local.digests):
            self._engine.push(name, runtime.key)  # made, by this process or one that was killed before it could push
        return image

    def _make(self, runtime: "Runtime", image: str) -> None:
        try:
            with layers.files(runtime.dockerfile()) as context:
                plain = self._engine.build(image, context, {"BASE": runtime.base}, {RUNTIME: runtime.key}, named=False)
        except (ImageMissing, Unauthorized) as error:
            raise DockerRefused(
                f"{error.args[0]}. The image that runtimes are based on is not to be had: BUILDER_BASE_IMAGE names it"
            ) from error
        except RegistryAway as error:
            raise RegistryAway(f"{error}; {runtime.base} is needed, which BUILDER_BASE_IMAGE names") from error
        with layers.files(runtime.context()) as context:
            command = ["sh", "-euc", SCRIPT.read_text(), "runtime"]
            self._engine.extend(plain, image, context, [[*command, layer] for layer in ("half", "rest")])


class Runtime:
    """What a runtime image is made of, and named by.

    Args:
        lock: hash-locked requirements.
        base: image it is based on.
        extra: the project's own requirements, a line each.
    """

    def __init__(self, lock: bytes, base: str, extra: str) -> None:
        self.base = base
        self._files = {
            "Dockerfile": (HERE / "runtime.Dockerfile").read_bytes(),
            "runtime.sh": SCRIPT.read_bytes(),
            "furnish.py": (HERE / "furnish.py").read_bytes(),
            "bill.py": (HERE / "bill.py").read_bytes(),
            "uv.txt": UV_LOCK.read_bytes(),
            "lock.txt": lock,
            "extra": extra.encode(),
        }
        made_of = hashlib.sha256(base.encode())
        for name, content in self._files.items():
            made_of.update(f"\n{name} {len(content)}\n".encode() + content)
        self.key = made_of.hexdigest()[:16]

    def dockerfile(self) -> dict[str, bytes]:
        """What says how it is run."""
        return {"Dockerfile": self._files["Dockerfile"]}

    def context(self) -> dict[str, bytes]:
        """The files that its commands need, and how the index is reached, certificates included."""
        index = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in index_arguments(os.environ).items())
        found = next((Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name)), None)
        certificates = found.read_bytes() if found and found.is_file() else b""
        return self._files | {"index": index.encode(), "ca.pem": certificates}
