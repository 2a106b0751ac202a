"""Two families of errors, permanent and transient, and how often a message is tried again after each."""

import nats.errors

RETRY_DELAYS = (0.5, 2.0, 8.0, 30.0)
"""Seconds before the attempt after the 1st, 2nd, … error; the last one applies to all further attempts."""
MAX_ERRORS = 5
"""Attempts that may end in a transient error before the message becomes a dead letter."""
MAX_LOST = 10
"""Deliveries of one message that may be lost because a worker was killed before the message fails."""


class Permanent(Exception):
    """An error that no further attempt can mend; its text is for a person."""

    permanent = True


def is_permanent(error: Exception) -> bool:
    """Return whether no further attempt can succeed: the error says so, or the message is too large for the bus."""
    return getattr(error, "permanent", False) or isinstance(error, nats.errors.MaxPayloadError)


def attempts_of(error: Exception) -> int:
    """Return how often a message is tried in all when it raises `error`, which may set its own `attempts`."""
    return 1 if is_permanent(error) else getattr(error, "attempts", MAX_ERRORS)


def retry_delay(failures: int) -> float:
    """Return the seconds to wait after the `failures`-th failure in a row, counted from 1."""
    return RETRY_DELAYS[min(failures, len(RETRY_DELAYS)) - 1]


def text(error: Exception) -> str:
    """Return type and message of an error in one line."""
    return f"{type(error).__name__}: {error}"
