"""What can be answered instead of a prediction.

Refused            the request is wrong or cannot be taken: 4xx, 503
ModelFailed        the model raised on these rows: 500
"""

from typing import Any


class Refused(Exception):
    """A request that gets no answer but this.

    Args:
        status: HTTP status, 4xx or 503.
        message: what is wrong, for a person.
        details: one entry per wrong place: `row` or `label` (its index), `field`, `message`.
    """

    def __init__(self, status: int, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details or []


class PredictionFailed(Exception):
    """The model raised on these rows; the cause is the exception it raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the model failed on this input: {type(cause).__name__}: {cause}")
        self.__cause__ = cause
