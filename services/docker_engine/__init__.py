"""The Docker engine, for the services that build, push and run images.

Services import these names from here. `client` calls the engine, `errors` sorts what it answers into failures that may
pass and failures that a person must mend, `credentials` reads the password of a registry.
"""

from services.docker_engine.client import DockerEngine, LocalImage
from services.docker_engine.errors import (
    DockerRefused,
    DockerTrouble,
    EngineAway,
    ImageMissing,
    NoSpace,
    Operation,
    RegistryAway,
    StreamError,
    Unauthorized,
    explain,
    explained,
    readable,
)

__all__ = [
    "DockerEngine",
    "DockerRefused",
    "DockerTrouble",
    "EngineAway",
    "ImageMissing",
    "LocalImage",
    "NoSpace",
    "Operation",
    "RegistryAway",
    "StreamError",
    "Unauthorized",
    "explain",
    "explained",
    "readable",
]
