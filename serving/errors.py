"""Errors that a request can end with.

Refused              the request is invalid, or cannot be accepted now: 4xx, 503
PredictionFailed     the model raised an exception on these rows: 500
"""

from typing import Any


class Refused(Exception):
    """A request that is answered with an error status.

    Args:
        status: HTTP status, 4xx or 503.
        message: the reason, for a person.
        details: one entry per invalid field: `row` or `label` (its index), `field`, `message`.
    """

    def __init__(self, status: int, message: str, details: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.details = details or []


class PredictionFailed(Exception):
    """An exception of the model on these rows, which is the cause of this one."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the model failed on this input: {type(cause).__name__}: {cause}")
        self.__cause__ = cause
