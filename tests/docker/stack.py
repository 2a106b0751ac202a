"""A whole compose project of the tests' own: its name, ports, target and images are nobody else's."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import docker
import httpx
from docker.errors import NotFound

from contracts.subjects import WORKERS
from services.host import free_ports

ROOT = Path(__file__).resolve().parents[2]
ONCE = ("first-run", "topology")
SERVICES = (*ONCE, "nats", "registry", "traefik", "prometheus", *WORKERS)
"""All but Grafana, which cannot be had where no image is pulled."""
IMAGES = "bentobelt-test"
UP_SECONDS = 240


class Stack:
    """One compose project.

    Args:
        folder: for its .env, its `.belt` and its data.
        file: which compose file.
        settings: of .env, besides ports and names.
    """

    def __init__(self, folder: Path, file: str = "compose.yaml", **settings: str) -> None:
        self.name = f"belt{secrets.token_hex(4)}"
        self.target = self.name
        self.home, self.data = folder / "belt", folder / "data"
        self.home.mkdir(parents=True)
        self.data.mkdir()
        gateway, nats, registry, prometheus = free_ports(4)
        self.ports = {"gateway": gateway, "nats": nats, "registry": registry, "prometheus": prometheus}
        written = {
            "IMAGES": IMAGES,
            "TARGET": self.target,
            "TARGETS": self.target,
            "BELT_HOME": str(self.home),
            "DATA": str(self.data),
            "DOCKER_CONFIG_FOLDER": str(folder / "docker"),
            **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
        } | settings
        self.target = written["TARGET"]
        self._settings, self._env = written, folder / "env"
        self.configure()
        self._command = [
            "docker", "compose", "--project-name", self.name, "--project-directory", str(ROOT),
            "--env-file", str(folder / "env"), "--file", str(ROOT / file),
        ]  # fmt: skip
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{gateway}", timeout=20)

    def configure(self, **settings: str) -> None:
        """Change .env; it counts with the next command."""
        self._settings |= settings
        self._env.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))

    def compose(self, *arguments: str) -> str:
        """Run a compose command, which must succeed, and return its output."""
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"compose {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def up(self, *arguments: str) -> None:
        """Start it, and wait until every service that stays is healthy."""
        self.compose("up", "--detach", *arguments)
        deadline = time.monotonic() + UP_SECONDS
        while sick := self._not_healthy():
            assert time.monotonic() < deadline, f"{sick}\n{self.logs(*sick)}"
            time.sleep(0.5)

    def containers(self) -> list[dict[str, Any]]:
        """Every container of the project, as compose lists it."""
        return [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]

    def down(self, engine: docker.DockerClient) -> None:
        """End it as docs/operating.md says, and remove what it has pushed."""
        self.http.close()
        self.compose("stop", "deployer")
        for serving in self.serving(engine):
            serving.remove(force=True)
        self.compose("down", "--volumes", "--remove-orphans")
        for image in engine.api.images():
            for name in (*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())):
                if name.startswith(f"127.0.0.1:{self.ports['registry']}/"):
                    with contextlib.suppress(NotFound):  # gone with its other name
                        engine.images.remove(name, force=True)

    def serving(self, engine: docker.DockerClient) -> list[Any]:
        """Containers of models that this project's deployer has started."""
        return list(engine.containers.list(all=True, filters={"label": f"dev.bentobelt.target={self.target}"}))

    def belt(self, *arguments: str) -> str:
        """A belt command on the host, with nothing set but where `.belt` is."""
        environ = {key: value for key, value in os.environ.items() if key not in ("NATS_URL", "BELT_GATEWAY")}
        done = subprocess.run(
            [sys.executable, "-m", "belt.main", *arguments],
            env=environ | {"BENTOBELT_HOME": str(self.home)},
            capture_output=True, text=True, cwd=ROOT, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"belt {' '.join(arguments)}: {done.stdout}\n{done.stderr}\n{self.logs(*WORKERS)}"
        return done.stdout

    def push(self, project: str, *options: str) -> dict[str, Any]:
        """Push and wait until it is deployed."""
        told: dict[str, Any] = json.loads(self.belt("push", project, "--wait", "--json", *options))
        assert told["outcome"] == "deployed", told
        return told

    def logs(self, *services: str) -> str:
        """The end of the logs."""
        return self.compose("logs", "--no-color", "--tail", "15", *services)

    def version(self, model: str) -> str:
        """Return the version that answers through the gateway."""
        answer = self.http.get(f"/{model}/info")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["version"])

    def _not_healthy(self) -> dict[str, str]:
        """Services and what compose says of them, until they are as they should be."""
        staying = [one for one in self.containers() if one["Service"] not in ONCE]
        return {one["Service"]: one["Status"] for one in staying if one["Health"] != "healthy"}
