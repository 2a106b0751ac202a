"""Servers as containers of a Docker engine: the image that was pushed, by digest, in a sandbox.

The record of a server is its container; nothing is on disk. Labels hold the model, the version and the address. Labels
cannot be changed later, so the restart policy records whether the server was checked: `no` before, `always` after. So
the engine restarts a checked server by itself, even without a deployer, and never one that was not checked.
"""

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.types import EndpointConfig, LogConfig

from contracts.runtime import Limits
from services.deployer.backends.container_exit import exit_report
from services.deployer.backends.engine import ServingEngine
from services.deployer.backends.images import MODEL, VERSION, ImageCache
from services.deployer.backends.protocol import ExitReport, Server
from services.docker_engine import DockerEngine
from services.host import free_port
from services.messaging import Permanent
from services.storage import Deployed

BELT, TARGET, STARTER = "dev.bentobelt.belt", "dev.bentobelt.target", "dev.bentobelt.deployer"
IMAGE, URL = "dev.bentobelt.image", "dev.bentobelt.url"
HOST = "host"
"""The network of a deployer that is no container itself: servers share the machine's."""
PORT = 3000
"""Port of a server on a network of the engine."""
ALIAS = "serving"
"""Network name that all servers of a network share, for the collection of metrics."""
USER = "1034:1034"
STARTING = 60.0
"""Seconds in which a container that another replica has started is left to that replica."""
NEVER, ALWAYS = "no", "always"
SANDBOX: Mapping[str, Any] = {
    "user": USER,
    "read_only": True,
    "tmpfs": {"/tmp": "rw,noexec,nosuid,nodev,size=64m,mode=1777"},  # noqa: S108  # the container's own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 256,
    "restart_policy": {"Name": NEVER},
    "log_config": LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "2"}),
}


class NoImage(Permanent):
    """The version has no image in a registry, so this deployer cannot run it."""


class Gone(Exception):
    """The container was removed while it was being started."""


@dataclass(frozen=True)
class ContainerState:
    """A container at the last refresh.

    While `listed_status`, its state in the engine's list, is unchanged, the other fields are unchanged too.
    """

    server: Server
    runs: bool
    checked: bool
    starter: str
    created: float
    listed_status: tuple[str, str]


class ContainerBackend:
    """Servers of one target as containers.

    Args:
        engine: Docker engine that runs them.
        images: images on that engine.
        belt: name of the installation, in a label of each container: several may share an engine.
        target: name of the deployment target, also in a label.
        network: `host`, or a network of the engine that gateway, bus and deployer are on too.
        nats_url: address of the bus for the servers.
        grace: seconds in which a server may finish its requests before it is killed.
        pick_port: returns a free port for a server on the host's network.
    """

    def __init__(
        self,
        engine: ServingEngine,
        images: ImageCache,
        *,
        belt: str,
        target: str,
        network: str,
        nats_url: str,
        grace: float,
        pick_port: Callable[[], int] = free_port,
    ) -> None:
        self._host = socket.gethostname()  # replicas are containers of their own, which differ in it
        self._engine, self._images, self._pick_port = engine, images, pick_port
        self._own_labels = {BELT: belt, TARGET: target}
        self._target, self._network, self._nats_url, self._grace = target, network, nats_url, grace
        self._states: dict[str, ContainerState] = {}
        self._refresh_lock = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the containers from the engine.

        Raises:
            BackendAway: the engine does not answer; the states of the last refresh stay.
        """
        async with self._refresh_lock:  # one at a time: an older answer never replaces a newer one
            self._states = await self._engine.call(self._list, "listing containers")

    def all(self) -> list[Server]:
        return [state.server for state in self._states.values()]

    def is_alive(self, server: Server) -> bool:
        return server.id in self._states and self._states[server.id].runs

    def is_checked(self, server: Server) -> bool:
        return server.id in self._states and self._states[server.id].checked

    def owned_by_other_replica(self, server: Server) -> bool:
        state = self._states.get(server.id)
        return state is not None and state.starter != self._host and time.time() - state.created < STARTING

    async def start(self, deployed: Deployed) -> Server:
        image = deployed.image
        if "@sha256:" not in image.image:
            raise NoImage(
                f"{image.image} is not an image in a registry, which is all that this deployer runs: set "
                "BUILDER_IMAGES=docker for the builder, or DEPLOYER_SERVERS=processes here"
            )
        name = f"bentobelt-{self._target}-{image.model}-{image.version}-{uuid4().hex[:8]}"
        with self._images.held(image.image):
            await self._images.fetch(image.image)
            options = self._options(deployed, name)
            what = f"starting {image.image} on the network {self._network} (DEPLOYER_NETWORK)"
            await self._engine.call(lambda client: _run(client, name, options), what)
        await self.refresh()
        if name not in self._states:
            raise Gone(f"somebody removed the container {name} while it was being started")
        return self._states[name].server

    async def stop(self, server: Server) -> None:
        # The server cancels open requests after the grace; it has one more second to end.
        await self._engine.call(lambda client: _end(client, server.id, round(self._grace) + 1), f"ending {server.id}")
        await self.refresh()
        await self._images.prune(server.model, server.image.partition("@")[0])

    async def mark_checked(self, server: Server) -> None:
        async with self._refresh_lock:
            await self._engine.call(
                lambda client: client.api.update_container(server.id, restart_policy={"Name": ALWAYS}),
                f"noting that {server.id} was checked",
            )
            self._states.pop(server.id, None)  # its status in the list does not change, so it would not be read again
        await self.refresh()

    async def exit_report(self, server: Server) -> ExitReport:
        return await self._engine.call(lambda client: exit_report(client, server), f"reading the log of {server.id}")

    def _list(self, client: DockerClient) -> dict[str, ContainerState]:
        found = {}
        mine = [f"{label}={value}" for label, value in self._own_labels.items()]
        for listed in client.api.containers(all=True, filters={"label": mine}):
            name, listed_status = listed["Names"][0].removeprefix("/"), (listed["State"], listed["Status"])
            known = self._states.get(name)
            state = known if known and known.listed_status == listed_status else _inspect(client, name, listed_status)
            if state is not None:
                found[name] = state
        return found

    def _options(self, deployed: Deployed, name: str) -> dict[str, Any]:
        image, limits = deployed.image, deployed.image.limits or Limits()
        hosted = self._network == HOST
        port = self._pick_port() if hosted else PORT
        url = f"http://127.0.0.1:{port}" if hosted else f"http://{name}:{port}"
        place = {"network_mode": HOST} if hosted else _on(self._network)
        return {
            **SANDBOX,
            **place,
            "image": image.image,
            "labels": {
                **self._own_labels,
                STARTER: self._host,
                MODEL: image.model,
                VERSION: image.version,
                IMAGE: image.image,
                URL: url,
            },
            "environment": {
                **(image.env or {}),
                **{key: value for key, value in os.environ.items() if key.startswith("SERVING_")},
                "HOST": "127.0.0.1" if hosted else "0.0.0.0",  # noqa: S104  # inside its own network
                "PORT": str(port),
                "NATS_URL": self._nats_url,
                "BENTOBELT_IMAGE": image.image,
                "SERVING_GRACE_SECONDS": str(round(self._grace)),
            },
            "mem_limit": limits.memory,
            "memswap_limit": limits.memory,  # no swap: it makes a server too slow to use
            "nano_cpus": int(limits.cpus * 1e9),
        }


def remove_all(belt: str, grace: float = 0.0) -> None:
    """End every container of a belt that no deployer runs for any more. For `belt up`, which leaves nothing behind.

    Args:
        belt: value of their label.
        grace: seconds in which they may finish their requests.

    Raises:
        DockerTrouble, DockerRefused: the engine does not answer, or refuses.
    """
    engine = DockerEngine("DEPLOYER")
    with engine.calling(f"ending the containers of the belt {belt}") as client, ThreadPoolExecutor() as threads:
        found = client.api.containers(all=True, filters={"label": f"{BELT}={belt}"})
        for _ in threads.map(lambda listed: _end(client, listed["Id"], round(grace)), found):
            pass


def _on(network: str) -> dict[str, Any]:
    return {"network": network, "networking_config": {network: EndpointConfig("1.44", aliases=[ALIAS])}}


def _run(client: DockerClient, name: str, options: dict[str, Any]) -> None:
    client.containers.create(name=name, **options)
    try:
        client.api.start(name)
    except APIError:
        _remove(client, name)
        raise


def _end(client: DockerClient, name: str, seconds: int) -> None:
    try:
        client.api.stop(name, timeout=seconds)
    except NotFound:
        return
    _remove(client, name)


def _remove(client: DockerClient, name: str) -> None:
    try:
        client.api.remove_container(name, v=True, force=True)
    except APIError as error:
        if error.status_code not in (404, 409):  # removed already, or being removed by another program
            raise


def _inspect(client: DockerClient, name: str, listed_status: tuple[str, str]) -> ContainerState | None:
    try:
        found = client.api.inspect_container(name)
        labels = found["Config"]["Labels"]
        server = Server(
            model=labels[MODEL],
            version=labels[VERSION],
            image=labels[IMAGE],
            id=name,
            url=labels[URL],
            since=datetime.fromisoformat(found["State"]["StartedAt"]).timestamp(),
        )
    except (NotFound, KeyError):  # removed meanwhile, or not started by a deployer
        return None
    created = datetime.fromisoformat(found["Created"]).timestamp()
    checked = found["HostConfig"]["RestartPolicy"]["Name"] == ALWAYS
    runs = found["State"]["Status"] == "running"
    return ContainerState(server, runs, checked, labels[STARTER], created, listed_status)
