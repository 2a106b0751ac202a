"""Error texts made of the end of a child's log."""

from pathlib import Path

import pytest

from services.messaging.errors import Permanent
from services.sandbox.client import JobFailed, JobKilled, JobTimedOut
from services.sandbox.diagnostics import ChildKilled, explained, frames_of_the_project

SERVICES = Path(__file__).parents[4] / "services"
TRACEBACK = f'''Traceback (most recent call last):
  File "{SERVICES}/template.py", line 82, in _work
    result = _function(request["job"])(request["argument"])
             ^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{SERVICES}/trainer/job.py", line 95, in fit
    made = estimators.build(spec.estimator, project, spec.task)
  File "<frozen importlib._bootstrap>", line 1204, in _gcd_import
  File "/anywhere/scratch/tmpab12/fit/pipeline.py", line 1, in <module>
    import nothing
  File "/venv/sklearn/base.py", line 7, in wrapper
    return fit()
ModuleNotFoundError: No module named 'nothing'
'''


def test_only_the_frames_of_the_project_and_of_libraries_are_shown() -> None:
    assert frames_of_the_project(TRACEBACK).splitlines() == [
        "Traceback (most recent call last):",
        '  File "pipeline.py", line 1, in <module>',
        "    import nothing",
        '  File "/venv/sklearn/base.py", line 7, in wrapper',
        "    return fit()",
        "ModuleNotFoundError: No module named 'nothing'",
    ]


def test_without_a_frame_of_theirs_there_is_nothing_to_show() -> None:
    ours = "".join(TRACEBACK.splitlines(keepends=True)[:7])
    assert frames_of_the_project(f"{ours}ValueError: no luck\n") == ""


def ended_by(error: Exception, memory: str = "") -> str:
    with (
        pytest.raises((Permanent, ChildKilled)) as shown,
        explained("the build", Permanent, seconds="BUILDER_SECONDS", memory=memory),
    ):
        raise error
    return str(shown.value)


@pytest.mark.parametrize("kind", ["MemoryError", "_ArrayMemoryError", "ArrowMemoryError"])
def test_every_kind_of_too_little_memory_is_one(kind: str) -> None:
    said = ended_by(JobFailed(kind, "", "", ""), "500 MiB of memory (X_MEMORY)")
    assert said == "the build wanted more than 500 MiB of memory (X_MEMORY)"
    assert ended_by(JobFailed(kind, "", "", "")) == "the build wanted more memory than there is"


def test_step_and_setting_are_named() -> None:
    assert ended_by(JobTimedOut(5)) == "the build did not end within 5 s and was stopped (BUILDER_SECONDS)"
    assert ended_by(JobKilled(-9, "")) == "the process of the build was ended by signal 9"
    assert ended_by(JobFailed("KeyError", "'x'", "", "")) == "the build failed with KeyError: 'x'"
