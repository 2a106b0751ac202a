"""The Docker engine, as far as the builder asks it: layers, push, pull, look. Every call blocks.

A client lives for one call: credentials that a person has just mended are read again, and an engine that was away is
found again.
"""

import contextlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker
from docker.auth import resolve_repository_name
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import Mount
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException

from services.builder.scratch import never_run, new_name, remove_abandoned, remove_making, run
from services.docker_engine.credentials import login
from services.docker_engine.errors import Doing, ImageMissing, StreamError, Unauthorized, explained

CLOSE_SECONDS = 5


@dataclass(frozen=True)
class LocalImage:
    """An image that the engine has. `digests` are its names in registries that it was pushed to or pulled from."""

    id: str
    size: int
    labels: Mapping[str, str]
    digests: Sequence[str]


@dataclass(frozen=True)
class Making:
    """How the content of layers is made.

    Attributes:
        folder: where it comes to be, on a volume.
        make: the command that makes it, and prints `made <part>` for each part that is whole.
        files: what that needs, a tar that is unpacked at /.
        take: given a part's name, puts it from the volume, which it has as /build, where it belongs.
        settings: how an image of it is run, in the words of a Dockerfile.
        labels: of the image.
    """

    folder: str
    make: Sequence[str]
    files: IO[bytes]
    take: Sequence[str]
    settings: str
    labels: Mapping[str, str]


class Engine:
    """What the builder asks of the engine that DOCKER_HOST names, with the registry's credentials.

    Args:
        registry: prefix of image names.
        credentials: file with `user:password`; None leaves it to Docker's configuration.
        seconds: how long the engine may be silent.

    Raises of every method: what `services.docker_engine.errors` sorts.
    """

    def __init__(self, registry: str, credentials: Path | None, seconds: float) -> None:
        self.registry, self._credentials, self._seconds = registry, credentials, seconds
        self._makings: dict[str, list[str]] = {}
        """What `extend` has made, and not removed yet: names of images by the name of a volume."""
        self._closed = False

    def local(self, name: str) -> LocalImage | None:
        """The image as the engine has it."""
        with self._asked(f"looking for {name}") as client:
            try:
                found = client.api.inspect_image(name)
            except ImageNotFound:
                return None
            labels = found["Config"].get("Labels") or {}
            return LocalImage(found["Id"], found["Size"], labels, found.get("RepoDigests") or ())

    def digest(self, name: str, tag: str) -> str | None:
        """What the registry calls the image; None when it has none."""
        with (
            _missing_is_none(),
            self._asked(f"looking for {name}:{tag} in the registry") as client,
        ):
            found = client.images.get_registry_data(f"{name}:{tag}", auth_config=self._auth())
            return str(found.id)
        return None

    def pull(self, name: str, tag: str) -> bool:
        """Fetch an image, by tag or digest; whether the registry has it."""
        with _missing_is_none(), self._asked(f"pulling {name}:{tag}") as client:
            _follow(client.api.pull(name, tag=tag, stream=True, decode=True, auth_config=self._auth()))
            return True
        return False

    def need(self, image: str) -> None:
        """Fetch an image of whatever registry, as Docker's own configuration allows, unless it is here."""
        if self.local(image) is None:
            name, tag = parse_repository_tag(image)
            with self._asked(f"pulling {image}", resolve_repository_name(name)[0]) as client:
                _follow(client.api.pull(name, tag=tag or "latest", stream=True, decode=True))

    def name(self, image: str, name: str) -> None:
        """Call an image so, too."""
        with self._asked(f"naming {image}") as client:
            client.api.tag(image, *name.rsplit(":", 1))

    def push(self, name: str, tag: str) -> str:
        """Push an image; its digest in the registry's own words."""
        with self._asked(f"pushing {name}:{tag}") as client:
            lines = client.api.push(name, tag, stream=True, decode=True, auth_config=self._auth())
            digests = [aux["Digest"] for line in _follow(lines) if "Digest" in (aux := line.get("aux", {}))]
            if not digests:
                raise StreamError("the registry gave no digest")
            return str(digests[-1])

    def layer(self, image: str, name: str, files: IO[bytes], labels: Mapping[str, str]) -> None:
        """One more layer on `image`: `files`, a tar that is unpacked at /; and more labels. It is called `name`.

        What COPY in a Dockerfile does, in a fifth of the time: the classic builder makes a container per instruction
        and reads every file twice.
        """
        with self._asked(f"building {name}") as client:
            config = _labelled(client.api, image, labels)
            with never_run(client.api, image) as container:
                client.api.put_archive(container, "/", files)
                client.api.commit(container, *name.rsplit(":", 1), conf=config)

    def extend(self, image: str, making: Making, names: Mapping[str, str], made: Callable[[str], None]) -> None:
        """Make an image of one more layer per part, called what `names` says, which `made` is told.

        While a part is put into its layer, the next one is being made in another container. `clear` removes what is
        used for that, and all names but the last, the one of `image` included.
        """
        *begun, last = names.values()
        with self._asked(f"building {last}") as client:
            api, making_name = client.api, new_name()
            self._makings[making_name] = [image, *begun]
            config = _labelled(api, image, making.labels)
            settings: str | None = making.settings  # for the first layer; the others go on from there
            volume = api.create_volume(making_name)["Name"]
            self._check_open()
            expected = iter(names)
            mount, seconds = Mount(making.folder, volume), self._seconds
            lines = run(api, image, making_name, making.make, mount, seconds=seconds, files=making.files)
            for part in (line.removeprefix("made ") for line in lines if line.startswith("made ")):
                if part != next(expected, None):
                    raise StreamError(f"{part} is made before what is below it")
                self._check_open()
                taker = f"{making_name}-{part}"
                for _ in run(api, image, taker, [*making.take, part], Mount("/build", volume), seconds=seconds):
                    pass
                # Gone on from by its id: another builder may give the same name to an image of its own.
                image = api.commit(taker, *names[part].rsplit(":", 1), changes=settings, conf=config)["Id"]
                config, settings = api.inspect_image(image)["Config"], None
                made(names[part])
            if missing := list(expected):
                raise StreamError(f"the engine said no more after a part; {', '.join(missing)} were not made")

    def clear(self) -> None:
        """Remove what `extend` used, without waiting for it: it takes seconds."""
        threading.Thread(target=self._clear, args=(dict(self._makings), self._seconds), daemon=True).start()

    def tidy(self) -> None:
        """Remove what builders left in the engine that were killed."""
        with self._asked("looking for what was left") as client:
            remove_abandoned(client.api)

    def rename(self, patterns: Sequence[str], name: str, tag: str) -> bool:
        """Give an image whose name fits one of the patterns another one; whether there was any."""
        with self._asked(f"looking for {patterns[0]}") as client:
            found = client.api.images(filters={"reference": list(patterns)})
            return bool(found) and bool(client.api.tag(found[0]["Id"], name, tag))

    def read(self, image: str, path: str) -> bytes:
        """A file of an image."""
        with self._asked(f"reading {path} in {image}") as client, never_run(client.api, image) as container:
            chunks, _ = client.api.get_archive(container, path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
                file = tar.extractfile(tar.next() or path)
                assert file is not None, "it is a file"
                return file.read()

    def output(self, image: str, command: Sequence[str]) -> bytes:
        """What a program of an image prints; it reaches no network."""
        with self._asked(f"running {command[0]} in {image}") as client:
            said: bytes = client.containers.run(
                image, list(command[1:]), entrypoint=command[0], network_mode="none", remove=True
            )
            return said

    def prune(self, name: str, keep: int) -> None:
        """Forget all but the newest images of a repository; what a container uses stays."""
        with self._asked(f"removing old images of {name}") as client:
            # Not `client.images.list`, which fails when someone removes one meanwhile.
            found = sorted(client.api.images(name), key=lambda image: _made(client.api, image["Id"]))[:-keep]
            used = {container["ImageID"] for container in client.api.containers(all=True)} if found else set()
            for image in found:
                for tag in (image["RepoTags"] or ()) if image["Id"] not in used else ():
                    with contextlib.suppress(APIError):  # someone uses it since, or was faster
                        client.api.remove_image(tag)

    def close(self) -> None:
        """Do nothing more, end what `extend` runs, and remove what it has left."""
        self._closed = True
        self._clear(dict(self._makings), CLOSE_SECONDS)

    def _clear(self, makings: Mapping[str, Sequence[str]], seconds: float) -> None:
        with (
            contextlib.suppress(DockerException, RequestException),  # what is left, the next start removes
            contextlib.closing(docker.from_env(timeout=seconds)) as client,
        ):
            for making in makings:
                remove_making(client.api, making)
            for making, images in makings.items():
                for image in images:
                    with contextlib.suppress(APIError):  # it never came to be, or somebody uses it
                        client.api.remove_image(image)
                self._makings.pop(making, None)

    @contextlib.contextmanager
    def _asked(self, what: str, registry: str = "") -> Iterator[docker.DockerClient]:
        with explained(Doing(what, registry or self.registry, "BUILDER")):
            self._check_open()
            client = docker.from_env(timeout=self._seconds)
            with contextlib.closing(client):
                yield client

    def _check_open(self) -> None:
        if self._closed:
            raise StreamError("the builder is being stopped")

    def _auth(self) -> dict[str, str] | None:
        return login(self._credentials, "BUILDER_REGISTRY_CREDENTIALS")


def _made(api: docker.APIClient, image: str) -> str:
    """When an image was made; the list of images only tells the second, in which a builder may make two."""
    try:
        return str(api.inspect_image(image)["Created"])
    except ImageNotFound:
        return ""


def _labelled(api: docker.APIClient, image: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of an image, and more labels."""
    config: dict[str, Any] = api.inspect_image(image)["Config"]
    return config | {"Labels": {**(config.get("Labels") or {}), **labels}}


@contextlib.contextmanager
def _missing_is_none() -> Iterator[None]:
    """Docker Hub and others deny even to their users what does not exist; a push tells whether they may."""
    try:
        yield
    except ImageMissing:
        return
    except Unauthorized as error:
        if "denied" not in str(error):
            raise


def _follow(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read a stream to its end.

    Raises:
        StreamError: there is an error in it.
    """
    read: list[dict[str, Any]] = []
    for line in lines:
        if "error" in line:
            raise StreamError(str(line["error"]))
        read.append(line)
    return read
