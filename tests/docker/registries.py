"""A registry in a container of the test's own."""

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import docker

# Its reaper is an image that has to be pulled; what is started here, is ended here.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from testcontainers.core.container import DockerContainer

from services.host import free_port
from tests.waiting import until

IMAGE = "registry:3"
USER, PASSWORD = "belt", "s3cret"
HASHED = "$2b$05$bentobeltbentobeltbeneJttE5qZf/gImOaGVF051C.6AVVCGsZu"
"""The password as bcrypt, which is all that registries take."""
PRIVATE = {
    "REGISTRY_AUTH": "htpasswd",
    "REGISTRY_AUTH_HTPASSWD_REALM": "test",
    "REGISTRY_AUTH_HTPASSWD_PATH": "/auth/htpasswd",
}
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


class Registry:
    """A registry on 127.0.0.1 which keeps its port and its content when it is stopped and started.

    Args:
        private: only USER may use it.
        content: folder that it keeps its content in, together with other registries; default: one of its own.
    """

    def __init__(self, *, private: bool = False, content: Path | None = None) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.private = private
        self._folder = TemporaryDirectory(prefix="registry-")
        (Path(self._folder.name) / "htpasswd").write_text(f"{USER}:{HASHED}\n")
        self._container = (
            DockerContainer(IMAGE, labels={"dev.bentobelt.test": "registry"})
            .with_volume_mapping(self._folder.name, "/auth")
            .with_envs(**(PRIVATE if private else {}))
        )
        if content is not None:
            self._container.with_volume_mapping(str(content), "/var/lib/registry", "rw")
        self._container.ports["5000/tcp"] = ("127.0.0.1", self.port)  # type: ignore[assignment]  # with_bind_ports knows no address

    def __enter__(self) -> Self:
        self._container.start()
        until(self.answers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._container.stop(force=True, delete_volume=True)
        self._folder.cleanup()

    def stop(self) -> None:
        """As if it had crashed."""
        self._container.get_wrapped_container().kill()

    def start(self) -> None:
        """It comes back."""
        self._container.get_wrapped_container().start()
        until(self.answers)

    def answers(self) -> bool:
        """Return whether the registry answers."""
        try:
            self.get("/v2/")
        except OSError:
            return False
        return True

    def digest(self, name: str, tag: str) -> str:
        """Return the digest of an image in the registry."""
        return str(self._open(f"/v2/{name}/manifests/{tag}", MANIFESTS).headers["Docker-Content-Digest"])

    def tags(self, name: str) -> list[str]:
        """Tags of a repository."""
        try:
            return sorted(self.get(f"/v2/{name}/tags/list")["tags"] or [])
        except urllib.error.HTTPError:
            return []

    def layers(self, name: str, tag: str) -> dict[str, int]:
        """Digest → bytes of everything an image consists of here, its configuration included."""
        manifest = self.get(f"/v2/{name}/manifests/{tag}", MANIFESTS)
        return {one["digest"]: int(one["size"]) for one in (manifest["config"], *manifest["layers"])}

    def get(self, path: str, accept: str = "application/json") -> Any:
        """Return the registry's answer, parsed from JSON."""
        return json.load(self._open(path, accept))

    def _open(self, path: str, accept: str) -> Any:
        request = urllib.request.Request(f"http://{self.address}{path}", headers={"Accept": accept})
        if self.private:
            token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        return urllib.request.urlopen(request, timeout=10)


def forget(engine: docker.DockerClient, registry: Registry) -> None:
    """Remove a registry's images from the engine; the steps of runtimes stay in the cache of its BuildKit."""
    for image in engine.api.images():
        for tag in image["RepoTags"] or ():
            if tag.startswith(f"{registry.address}/"):
                engine.api.remove_image(tag, force=True)
