"""Errors of failed jobs, in words for the person who waits for the result. All but `ChildKilled` are final."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.messaging import Permanent
from services.sandbox.client import JobFailed, JobKilled, JobTimedOut

TAIL_LINES = 40
TAIL_CHARACTERS = 8000
"""An event carries the message, and one line of output can be of any length."""

MISSING = "name its package under requirements in model.yaml"
_FRAME = re.compile(r'^  File "(?P<path>[^"]*)".*\n(?:    .*\n)*', re.MULTILINE)
_OURS = (str(Path(__file__).resolve().parents[1]), "<frozen importlib", str(Path(importlib.__file__).parent))
_COPY = re.compile(r'(?<=  File ")[^"]*/(?:scratch/[^/"]+/(?:fit|tests)|[0-9a-f]{64}\.d)/')
"""Folders that a project is copied or unpacked to: a person knows a file by its place in the project."""


class TimedOut(Permanent):
    """A step took longer than its time limit."""


class OutOfMemory(Permanent):
    """A step needed more memory than its limit."""


class ChildKilled(Exception):
    """The child process was ended by a signal that we did not send, or ended itself: it is tried once more."""

    attempts = 2


@contextmanager
def explained(step: str, failed: type[Permanent], *, seconds: str, memory: str = "") -> Iterator[None]:
    """Raise an error for a person when a job fails.

    Args:
        step: the job in words, e.g. "the training".
        failed: error to raise when the job's code raised.
        seconds: name of the setting with the job's time limit, e.g. TRAINER_SECONDS.
        memory: the memory limit with its setting, e.g. "4096 MiB of memory (TRAINER_MEMORY)"; empty without a limit.

    Raises:
        TimedOut, OutOfMemory, ChildKilled: the job was ended.
    """
    try:
        yield
    except JobTimedOut as error:
        raise TimedOut(f"{step} did not end within {error.seconds:g} s and was stopped ({seconds})") from None
    except JobKilled as error:
        end = f"signal {-error.code}" if error.code < 0 else f"exit code {error.code}"
        output = f"; its last output:\n{_tail(error.output)}" if error.output else ""
        raise ChildKilled(f"the process of {step} was ended by {end}{output}") from None
    except JobFailed as error:
        if error.kind.endswith("MemoryError"):  # numpy and Arrow have their own
            raise OutOfMemory(f"{step} wanted more {f'than {memory}' if memory else 'memory than there is'}") from None
        raise failed(f"{step} failed with {_explanation(error)}") from None


def _explanation(error: JobFailed) -> str:
    hint = f" ({MISSING})" if error.kind == "ModuleNotFoundError" else ""
    frames = frames_of_the_project(error.traceback)
    shown = f"\n{_tail(frames)}" if frames else ""
    return f"{error.kind}: {error.message}{hint}{shown}"


def frames_of_the_project(traceback: str) -> str:
    """Return the traceback without the frames of our own files and of the import system; empty when none is left."""
    kept = _FRAME.sub(lambda frame: "" if frame["path"].startswith(_OURS) else frame[0], traceback)
    return "" if kept != traceback and not _FRAME.search(kept) else _COPY.sub("", kept)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])[-TAIL_CHARACTERS:]
