"""Two families of errors: what can never succeed, and what may the next time. A worker tries again by family."""

import nats.errors

from contracts import subjects


class Permanent(Exception):
    """What can never succeed, however often it is tried; the text is for a person."""

    permanent = True


def is_permanent(error: Exception) -> bool:
    """Whether it cannot succeed: the error says so, or the bus never takes so large a message."""
    return getattr(error, "permanent", False) or isinstance(error, nats.errors.MaxPayloadError)


def attempts_of(error: Exception) -> int:
    """How often in all an event is tried that raised this; an error may say so itself, with `attempts`."""
    return 1 if is_permanent(error) else getattr(error, "attempts", subjects.MAX_ERRORS)


def text(error: Exception) -> str:
    """Kind and words of an error in one line."""
    return f"{type(error).__name__}: {error}"
