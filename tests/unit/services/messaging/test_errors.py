"""Number of attempts after each kind of error."""

import nats.errors
import pytest

from services.messaging.errors import MAX_ERRORS, Permanent, attempts_of
from services.sandbox.client import JobFailed, JobKilled, JobTimedOut
from services.sandbox.diagnostics import ChildKilled, OutOfMemory, TimedOut


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (OSError("the disk is on holiday"), MAX_ERRORS),
        (JobKilled(-9, ""), 2),
        (ChildKilled("signal 9"), 2),
        (JobFailed("ValueError", "no luck", "", ""), 1),
        (JobTimedOut(5), 1),
        (TimedOut("the build"), 1),
        (OutOfMemory("the build"), 1),
        (Permanent("never"), 1),
        (nats.errors.MaxPayloadError(), 1),
    ],
)
def test_what_may_succeed_is_tried_again(error: Exception, attempts: int) -> None:
    assert attempts_of(error) == attempts
