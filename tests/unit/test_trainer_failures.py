"""What a person is shown of a child's last words."""

from pathlib import Path

from services.trainer.failures import frames_of_the_project

SERVICES = Path(__file__).parents[2] / "services"
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
