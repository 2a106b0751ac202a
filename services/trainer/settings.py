"""Settings of the trainer; each is read from TRAINER_<NAME>."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings


class Settings(BusSettings):
    model_config = SettingsConfigDict(env_prefix="TRAINER_", extra="ignore")

    seconds: float = Field(default=3600.0, gt=0, description="time a training may take before it is stopped")
    test_seconds: float = Field(default=600.0, gt=0, description="time the project's own tests may take")
    read_seconds: float = Field(default=900.0, gt=0, description="time reading and checking a dataset may take")
    memory: int = Field(
        default=4 * 1024**3,
        gt=0,
        description="bytes that reading, the project's tests and a training may each allocate",
    )
    min_rows: int = Field(default=30, ge=2, description="datasets with fewer rows are rejected")
