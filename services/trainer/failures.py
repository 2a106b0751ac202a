"""What stops a training, in words for the person who pushed. All but `TrainingKilled` are final."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.forks import JobFailed, JobKilled, JobTimedOut
from services.worker import Permanent

OWN = frozenset({"NoEstimator"})
"""Errors of ours that say all there is to know."""
TAIL_LINES = 40
TAIL_CHARACTERS = 8000
"""An event carries the message, and one line of output can be as long as it likes."""


class BadProject(Permanent):
    """The pushed project cannot be used: its archive or its model.yaml."""


class ProjectTestsFailed(Permanent):
    """The project's own tests fail, so nothing was trained."""


class ProjectCodeFailed(Permanent):
    """The project's code raised."""


class NoEstimator(Permanent):
    """The project's function gives no estimator."""


class TimedOut(Permanent):
    """A step took longer than it may."""


class OutOfMemory(Permanent):
    """A step wanted more memory than it may have."""


class TrainingKilled(Exception):
    """The child was ended by a signal that we did not send, or ended itself: tried once more."""

    attempts = 2


@contextmanager
def explained(step: str, setting: str, memory: int) -> Iterator[None]:
    """Turn what a child died of into what a person should know.

    Args:
        step: what was done, e.g. "the training".
        setting: environment variable that holds the step's time limit.
        memory: bytes it was allowed.
    """
    try:
        yield
    except JobTimedOut as error:
        raise TimedOut(f"{step} did not end within {error.seconds:g} s and was stopped ({setting})") from None
    except JobKilled as error:
        end = f"signal {-error.code}" if error.code < 0 else f"exit code {error.code}"
        said = f"; its last output:\n{_tail(error.output)}" if error.output else ""
        raise TrainingKilled(f"the process of {step} was ended by {end}{said}") from None
    except JobFailed as error:
        raise _failure(step, memory, error) from None


def _failure(step: str, memory: int, error: JobFailed) -> Permanent:
    if error.kind in OWN:
        return NoEstimator(error.message)
    if error.kind == "MemoryError" or error.kind.endswith("ArrayMemoryError"):
        return OutOfMemory(f"{step} wanted more than {memory / 1024**2:.0f} MiB of memory (TRAINER_MEMORY)")
    return ProjectCodeFailed(f"{step} failed with {error.kind}: {error.message}\n{_tail(error.traceback)}")


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])[-TAIL_CHARACTERS:]
