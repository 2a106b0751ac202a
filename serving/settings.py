"""What can be set for a serving process. Read once, when it starts."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """From the environment; everything has a working default."""

    model_config = SettingsConfigDict(env_prefix="SERVING_")

    nats_url: str = Field(
        default="nats://127.0.0.1:4222", validation_alias="NATS_URL", description="where the bus is; it may be away"
    )
    image: str = Field(
        default="", validation_alias="BENTOBELT_IMAGE", description="the image this process runs, as `/info` tells it"
    )
    max_body: int = Field(default=8 * MIB, ge=1, description="largest request body in bytes; beyond it: 413")
    waiting_rows: int = Field(
        default=50_000, ge=1, description="rows that may wait for the model; beyond it requests get 503"
    )
    log_seconds: float = Field(default=0.1, gt=0, description="how long a prediction waits before it is published")
    log_rows: int = Field(default=1000, ge=1, description="rows that make the prediction log publish sooner")
    log_bytes: int = Field(
        default=64 * MIB, ge=0, description="predictions kept while the bus is away; the oldest are dropped and counted"
    )
    ack_seconds: float = Field(default=2.0, gt=0, description="how long to wait for the bus to confirm a message")
    stop_seconds: float = Field(default=3.0, ge=0, description="how long a stopping process tries to empty its log")
