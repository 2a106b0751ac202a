"""Needs of a running model: its Python environment, memory and CPUs."""

from pydantic import Field

from contracts.values import Frozen

MIN_MEMORY = 256 * 1024**2
"""Bytes; with less memory, even the smallest model's server is killed while it starts."""


class Limits(Frozen):
    """Limits of a serving container.

    1 GiB: a server with scikit-learn and pandas takes about a quarter of it, the rest is for the model and its
    requests. One CPU: a server is one process, and its model predicts in one thread.
    """

    memory: int = Field(default=1024**3, ge=MIN_MEMORY, description="bytes")
    cpus: float = Field(default=1.0, ge=0.1, description="number of CPUs, fractions too")


class Environment(Frozen):
    """The Python environment that a model was trained in and must be loaded in."""

    python: str = Field(description="interpreter version, e.g. 3.11.7")
    lock: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the hash-locked requirements")
    requirements: tuple[str, ...] = Field(default=(), description="the project's extra packages")
    locked: str | None = Field(
        default=None,
        description="URI of the locked requirements when there are extra packages (an artifact named by the digest)",
    )
