"""The keys of a model.yaml that say how the model is served: `serve` and `env`."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from contracts.runtime import MIN_MEMORY, Limits

_MEMORY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(MB|GB|MiB|GiB)\s*$")
_BYTES = {"MB": 1000**2, "GB": 1000**3, "MiB": 1024**2, "GiB": 1024**3}
_OURS = re.compile(
    r"(PATH|HOME|HOST|PORT|HOSTNAME|NATS_URL|PROMETHEUS_MULTIPROC_DIR)"
    r"|(LD_|PYTHON|BENTOML|BELT_|BENTOBELT|SERVING_).*"
)
"""Variables that Bentobelt sets for the server, or that would change which code it runs."""


def _variable(name: str) -> str:
    """Check the name of an environment variable.

    Raises:
        ValueError: it is no such name, or a project may not set it.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is not the name of an environment variable; use letters, digits and _")
    if _OURS.fullmatch(name):
        raise ValueError(f"{name} is set by Bentobelt or decides how Python starts; a project cannot set it")
    return name


def _text(value: object) -> object:
    """Return a number of YAML as the text that an environment variable holds.

    Raises:
        ValueError: it is neither text nor a number, or has more than one line.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is not text; put it in quotes, e.g. 'true'")  # noqa: TRY004  # pydantic reports it
    if not re.fullmatch(r"[^\x00\r\n]*", str(value)):
        raise ValueError("the value of an environment variable has one line")
    return str(value)


Variables = dict[Annotated[str, AfterValidator(_variable)], Annotated[str, BeforeValidator(_text)]]
"""Environment variables by name."""


def size(value: object) -> object:
    """Return an amount of memory in bytes: `512MiB` → 536870912. Plain numbers are bytes.

    Raises:
        ValueError: neither a number nor a number with MB, GB, MiB or GiB.
    """
    if not isinstance(value, str):
        return value
    found = _MEMORY.match(value)
    if not found:
        raise ValueError(f"{value!r} is no amount of memory; write e.g. 512MiB or 2GiB")
    return int(float(found[1]) * _BYTES[found[2]])


class Section(BaseModel):
    """A part of a model.yaml: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Serve(Section):
    """How the model is served."""

    max_rows: int = Field(default=10_000, ge=1, description="largest number of rows in one request")
    memory: Annotated[int, BeforeValidator(size)] = Field(
        default=Limits().memory,
        ge=MIN_MEMORY,
        description="bytes (or 512MiB, 2GiB) a serving container may use; above that the kernel ends it",
    )
    cpus: float = Field(default=Limits().cpus, ge=0.1, description="CPUs a serving container may use, fractions too")
    system_packages: tuple[
        Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9][A-Za-z0-9.+:~-]*)?$")], ...
    ] = Field(default=(), description="Debian packages that are installed in the image")
    base_image: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][A-Za-z0-9._:/@-]*$",
        description="image that the serving image is based on: Debian or alike, with the Python that the model was "
        "trained with",
    )
    dockerfile: str | None = Field(
        default=None,
        description="a Dockerfile in the project; it is built first, and the serving image is based on the result",
    )

    @field_validator("dockerfile")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = PurePosixPath(value).parts
        if not parts or value.startswith("/") or ".." in parts or "\0" in value:
            raise ValueError(f"{value!r} is not inside the project, or no file; write e.g. Dockerfile")
        return value

    @model_validator(mode="after")
    def _one_base(self) -> Self:
        if self.base_image and self.dockerfile:
            raise ValueError("base_image and dockerfile exclude each other: name the base image in the Dockerfile")
        return self

    @property
    def limits(self) -> Limits:
        """Return the limits for the deployer."""
        return Limits(memory=self.memory, cpus=self.cpus)
