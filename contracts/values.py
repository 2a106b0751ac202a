"""Base of all contracts: immutable models, and the type of a single value."""

from pydantic import BaseModel, ConfigDict

Value = bool | int | float | str | None
"""One cell of a row, or one label, as in JSON. The order matters: a bool must not become an int."""


class Frozen(BaseModel):
    """An immutable value. Unknown keys are ignored: additive changes only within v1."""

    model_config = ConfigDict(frozen=True, strict=False)
