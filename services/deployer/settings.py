"""Settings of the deployer, each read from the environment variable DEPLOYER_<NAME>."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings


class Settings(BusSettings):
    """Settings of the deployer."""

    model_config = SettingsConfigDict(env_prefix="DEPLOYER_")

    target: str = Field(
        default="local",
        pattern=r"^[a-z0-9-]{1,40}$",
        description="name of the place it deploys to; each target gets every version",
    )
    gateway_url: str = Field(
        default="http://127.0.0.1:8080", description="base URL of the gateway, under which every model answers"
    )
    public_url: str | None = Field(
        default=None, description="base URL of the gateway for people; default: the one of the deployer"
    )
    routes: Path | None = Field(
        default=None,
        description="folder of Traefik's dynamic configuration, a file per model; default: routes in the home folder",
    )
    servers: Literal["processes", "containers"] = Field(
        default="processes",
        description="how versions are served: as processes of this machine, or as containers of the builder's images",
    )
    network: str = Field(
        default="host",
        description="network of the containers: host, where each takes a free port of 127.0.0.1, or the name of a "
        "Docker network that gateway and deployer are on too",
    )
    belt: str = Field(
        default="bentobelt",
        pattern=r"^[a-zA-Z0-9._-]{1,64}$",
        description="name in the labels of the containers; two installations on one engine need different names "
        "(`belt up` and compose set one)",
    )
    registry_credentials: Path | None = Field(
        default=None,
        description="file with the line user:password for the registry; default: the credentials of docker login",
    )
    serving_nats_url: str | None = Field(
        default=None, description="address of the bus for servers; default: the one of the deployer"
    )
    ready_seconds: float = Field(
        default=60.0, gt=0, description="seconds that a new version may take until it is ready"
    )
    switch_seconds: float = Field(
        default=10.0, gt=0, description="seconds that the gateway may take until it answers with the new version"
    )
    grace_seconds: float = Field(
        default=10.0, gt=0, description="seconds that a server gets to finish its requests before it is killed"
    )
    watch_seconds: float = Field(default=0.5, gt=0, description="seconds between two passes of the reconciler")

    @property
    def routes_folder(self) -> Path:
        """The folder of the dynamic configuration, set or default."""
        return self.routes or self.home / "routes"
