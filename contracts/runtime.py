"""What a model needs to run: its Python environment, memory and CPUs."""

from pydantic import Field

from contracts.values import Frozen

MIN_MEMORY = 256 * 1024**2
"""Bytes; with less, a server of the smallest model is killed while it starts."""


class Limits(Frozen):
    """What a serving container may use.

    1 GiB: a server with scikit-learn and pandas takes about a quarter of it, the rest is for the model and its
    requests. One CPU: a server is one process whose model answers from one thread.
    """

    memory: int = Field(default=1024**3, ge=MIN_MEMORY, description="bytes")
    cpus: float = Field(default=1.0, ge=0.1, description="number of CPUs, fractions too")


class Environment(Frozen):
    """The Python environment a model was trained in and must be loaded in."""

    python: str = Field(description="interpreter version, e.g. 3.11.7")
    lock: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the hash-locked requirements")
    requirements: tuple[str, ...] = Field(default=(), description="the project's extra packages")
    locked: str | None = Field(
        default=None,
        description="URI of the locked requirements when there are extra packages (an artifact named by the digest)",
    )
