"""What stops a training, in words for the person who pushed. All but `TrainingKilled` are final."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.forks import JobFailed, JobKilled, JobTimedOut
from services.worker import Permanent

OWN = frozenset({"NoEstimator"})
"""Errors of ours that say all there is to know."""
TAIL_LINES = 40
TAIL_CHARACTERS = 8000
"""An event carries the message, and one line of output can be as long as it likes."""

MISSING = "name its package under requirements in model.yaml"
_FRAME = re.compile(r'^  File "(?P<path>[^"]*)".*\n(?:    .*\n)*', re.MULTILINE)
_OURS = (str(Path(__file__).resolve().parents[1]), "<frozen importlib", str(Path(importlib.__file__).parent))
_COPY = re.compile(r'(?<=  File ")[^"]*/scratch/[^/"]+/(?:fit|tests)/')
"""Where the project is copied to; the person knows its files by their place in the project."""


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
    hint = f" ({MISSING})" if error.kind == "ModuleNotFoundError" else ""
    shown = _tail(frames_of_the_project(error.traceback))
    return ProjectCodeFailed(f"{step} failed with {error.kind}: {error.message}{hint}\n{shown}")


def frames_of_the_project(traceback: str) -> str:
    """The traceback without the frames of our own files and of the import machinery."""
    kept = _FRAME.sub(lambda frame: "" if frame["path"].startswith(_OURS) else frame[0], traceback)
    return _COPY.sub("", kept)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])[-TAIL_CHARACTERS:]
