"""What can be set from outside; each as BUILDER_<NAME>."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.settings import BusSettings


class Settings(BusSettings):
    """Settings of the builder."""

    model_config = SettingsConfigDict(env_prefix="BUILDER_")

    seconds: float = Field(default=300.0, gt=0, description="how long one build may take")
    keep: int = Field(default=5, ge=1, description="Bentos and models kept in the builder's own BentoML store")
