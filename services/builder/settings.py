"""Settings of the builder: BUILDER_<NAME>."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from services.messaging import BusSettings

REGISTRY = re.compile(r"[a-z0-9][a-z0-9.:-]*(/[a-z0-9._-]+)*")
"""Allowed prefixes of image names."""


class Settings(BusSettings):
    """Settings of the builder."""

    model_config = SettingsConfigDict(env_prefix="BUILDER_")

    seconds: float = Field(default=300.0, gt=0, description="how long one build may take")
    keep: int = Field(
        default=5, ge=1, description="versions of a model kept in the builder's own BentoML store, and in its engine"
    )
    images: Literal["packed", "docker", "containerize"] = Field(
        default="packed",
        description="what is made of a Bento: `packed` the Bento itself, `docker` an image on a runtime image that is "
        "built once per set of packages, `containerize` the image of `bentoml containerize`; the last two need the "
        "docker command with Buildx",
    )
    registry: str = Field(
        default="",
        description="where images are pushed, e.g. 127.0.0.1:5000 or ghcr.io/acme; needed unless `packed`",
    )
    registry_credentials: Path | None = Field(
        default=None,
        description="file with one line `user:password` for the registry; default: Docker's own configuration "
        "(DOCKER_CONFIG), credential helpers included",
    )
    base_image: str = Field(
        default="python:{python}-slim",
        description="what runtime images are based on: Debian or alike, with Python and pip; {python} is such as 3.11",
    )

    @field_validator("registry")
    @classmethod
    def _starts_names(cls, value: str) -> str:
        if value and not REGISTRY.fullmatch(value):
            raise ValueError("a registry is a host, with or without port and path, such as 127.0.0.1:5000; no http://")
        return value

    @model_validator(mode="after")
    def _has_registry(self) -> Self:
        if self.images != "packed" and not self.registry:
            raise ValueError(f"BUILDER_IMAGES={self.images} needs BUILDER_REGISTRY, such as 127.0.0.1:5000")
        return self
