"""Settings of a serving process. They are read once, when it starts."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Values from the environment; each has a working default."""

    model_config = SettingsConfigDict(env_prefix="SERVING_")

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        validation_alias="NATS_URL",
        description="address of the bus; a server starts without it",
    )
    image: str = Field(
        default="", validation_alias="BENTOBELT_IMAGE", description="image of this process, as `/info` shows it"
    )
    max_body: int = Field(default=8 * MIB, ge=1, description="largest request body in bytes; a larger one gets 413")
    waiting_rows: int = Field(
        default=50_000, ge=1, description="most rows that wait for the model; further requests get 503"
    )
    log_seconds: float = Field(default=0.1, gt=0, description="seconds that a prediction waits before it is published")
    log_rows: int = Field(
        default=1000, ge=1, description="number of waiting predictions that are published without that wait"
    )
    log_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        description="bytes of predictions kept while the bus is unavailable; the oldest are dropped and counted",
    )
    ack_seconds: float = Field(default=2.0, gt=0, description="seconds to wait until the bus confirms a message")
    stop_seconds: float = Field(
        default=3.0, ge=0, description="seconds that a stopping process has to publish the predictions that wait"
    )
