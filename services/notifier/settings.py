"""Settings of the notifier, each read from the environment variable NOTIFIER_<NAME>."""

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from services.messaging import BusSettings


class Settings(BusSettings):
    """Settings of the notifier."""

    model_config = SettingsConfigDict(env_prefix="NOTIFIER_")

    urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="channels as apprise URLs, separated by spaces, e.g. slack://… mailto://… json://…; "
        "without one, alerts are only logged and published",
    )
    send_seconds: float = Field(default=20.0, gt=0, description="seconds that a channel may take to accept an alert")

    @field_validator("urls", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split()) if isinstance(value, str) else value
