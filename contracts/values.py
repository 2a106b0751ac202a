"""What all contracts are made of: immutable models, and the values of a cell."""

from pydantic import BaseModel, ConfigDict

Value = bool | int | float | str | None
"""One cell of a row, or one label, as JSON knows it. Order matters: a bool is not an int."""


class Frozen(BaseModel):
    """An immutable value. Unknown keys are ignored: additive changes only within v1."""

    model_config = ConfigDict(frozen=True, strict=False)
