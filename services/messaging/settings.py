"""Settings of every worker. A service adds its own in a subclass with its own prefix."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound="BusSettings")
SECRETS = Path("/run/secrets")
"""Folder of a container's secrets, one file per setting, such as `nats_url`. Environment variables take precedence."""


class BusSettings(BaseSettings):
    """Settings, read once from the environment at start."""

    model_config = SettingsConfigDict(extra="ignore", secrets_dir=SECRETS if SECRETS.is_dir() else None)

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        validation_alias=AliasChoices("NATS_URL", "nats_url"),
        description="how to reach the bus, credentials included",
    )
    home: Path = Field(
        default=Path(".belt"),
        validation_alias=AliasChoices("BENTOBELT_HOME", "home"),
        description="folder for the worker's caches and scratch files",
    )
    envs: Path | None = Field(
        default=None,
        validation_alias=AliasChoices("BENTOBELT_ENVS", "envs"),
        description="folder of Python environments for projects with extra requirements; default: envs under the home",
    )
    artifacts_url: str = Field(
        default="nats://artifacts",
        validation_alias=AliasChoices("ARTIFACTS_URL", "artifacts_url"),
        description="where artifacts are kept: the bus's object store, or any fsspec URL such as s3://bucket/belt",
    )
    http_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        validation_alias=AliasChoices("HTTP_PORT", "http_port"),
        description="port of /health and /metrics; 0 takes a free one",
    )
    http_host: str = Field(
        default="127.0.0.1",
        validation_alias=AliasChoices("HTTP_HOST", "http_host"),
        description="address /health and /metrics listen on",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        validation_alias=AliasChoices("LOG_LEVEL", "log_level"),
        description="debug, info, warning or error",
    )

    @field_validator("nats_url")
    @classmethod
    def _no_web_sockets(cls, value: str) -> str:
        if value.startswith(("ws://", "wss://")):  # services/__init__.py keeps nats-py from what it needs for them
            raise ValueError("a bus is reached at nats:// or tls://, not by WebSockets")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


def from_environment(settings: type[S]) -> S:
    """Return a service's settings from the environment.

    Raises:
        SystemExit: a setting is invalid. The message has a line for each, with the name of the variable.
    """
    try:
        return settings()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        raise SystemExit(
            "\n".join(_error_line(prefix, found["loc"], found["msg"]) for found in error.errors())
        ) from None


def _error_line(prefix: str, place: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    name = ".".join(map(str, place))
    # A setting of all services has its variable as its alias. An error of several settings together has no name.
    return ": ".join(filter(None, [name if name.isupper() or not name else f"{prefix}{name}".upper(), reason]))
