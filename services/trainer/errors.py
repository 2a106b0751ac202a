"""Errors that end a training, in words for the person who pushed."""

from collections.abc import Iterator
from contextlib import contextmanager

from services.messaging import Permanent
from services.sandbox import JobFailed, diagnostics

MEBIBYTE = 1024**2
ESTIMATOR_MISSING = "EstimatorMissing"
"""The exception of `jobs.estimators` by its name: the worker does not import that module, for it loads scikit-learn."""


class BadProject(Permanent):
    """The pushed project cannot be used: its archive or its model.yaml is wrong."""


class ProjectTestsFailed(Permanent):
    """The project's own tests fail, so nothing was trained."""


class ProjectCodeFailed(Permanent):
    """The project's code raised."""


class NoEstimator(Permanent):
    """The project's function returns no estimator."""


@contextmanager
def explained(step: str, seconds: str, memory: int) -> Iterator[None]:
    """Raise an error for the person who pushed when a job fails: see `services.sandbox.diagnostics`.

    Args:
        step: the job in words, e.g. "the training".
        seconds: name of the setting with the job's time limit.
        memory: bytes that the job may allocate.
    """
    allowed = f"{memory / MEBIBYTE:.0f} MiB of memory (TRAINER_MEMORY)"
    with diagnostics.explained(step, ProjectCodeFailed, seconds=seconds, memory=allowed):
        try:
            yield
        except JobFailed as error:
            if error.kind == ESTIMATOR_MISSING:  # its message needs no traceback
                raise NoEstimator(error.message) from None
            raise
