"""What stops a training, in words for the person who pushed."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.messaging import Permanent
from services.sandbox import JobFailed, diagnostics

MEBIBYTE = 1024**2


class BadProject(Permanent):
    """The pushed project cannot be used: its archive or its model.yaml."""


class ProjectTestsFailed(Permanent):
    """The project's own tests fail, so nothing was trained."""


class ProjectCodeFailed(Permanent):
    """The project's code raised."""


class NoEstimator(Permanent):
    """The project's function gives no estimator."""


@contextmanager
def explained(step: str, seconds: str, memory: int) -> Iterator[None]:
    """Turn what a child died of into what a person should know: see `services.sandbox.diagnostics`.

    Args:
        step: what was done, e.g. "the training".
        seconds: the setting that holds the step's time limit.
        memory: bytes it was allowed.
    """
    allowed = f"{memory / MEBIBYTE:.0f} MiB of memory (TRAINER_MEMORY)"
    with diagnostics.explained(step, ProjectCodeFailed, seconds=seconds, memory=allowed):
        try:
            yield
        except JobFailed as error:
            if error.kind == NoEstimator.__name__:  # it says all there is to know
                raise NoEstimator(error.message) from None
            raise
