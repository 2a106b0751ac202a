"""Settings of the evaluator; each is read from EVALUATOR_<NAME>."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings


class Settings(BusSettings):
    """Read once, at the start of the worker."""

    model_config = SettingsConfigDict(env_prefix="EVALUATOR_")

    champion_target: str = Field(
        default="local", description="target whose live version a candidate is compared with, as DEPLOYER_TARGET there"
    )
    bentoml_home: Path | None = Field(
        default=None, description="BENTOML_HOME that approved models are registered in; default: bentoml under the home"
    )
    job_seconds: float = Field(default=600.0, gt=0, description="how long a model may take for the held-out rows")
    job_memory_mb: int = Field(default=4096, gt=0, description="memory, in MB, a model may use for the held-out rows")
    report_seconds: float = Field(
        default=120.0, gt=0, description="how long the page on a rejected model may take; it is left out after that"
    )

    @property
    def store(self) -> Path:
        """The BENTOML_HOME: the setting, or its default."""
        return self.bentoml_home or self.home / "bentoml"
