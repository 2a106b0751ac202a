"""All work on models: child processes in the Python environment that a model's lock names.

Rooms import these names from here. `client` starts jobs, `fork_server` is the warm process that they are forked from,
`environments` makes the environments, `diagnostics` says what a job died of.
"""

from services.sandbox.client import JobFailed, JobKilled, JobTimedOut, Sandbox
from services.sandbox.diagnostics import ChildKilled, OutOfMemory, TimedOut, explained
from services.sandbox.environments import BASE_LOCK, BadRequirements, Environments, IndexTrouble, InstallTimedOut

__all__ = [
    "BASE_LOCK",
    "BadRequirements",
    "ChildKilled",
    "Environments",
    "IndexTrouble",
    "InstallTimedOut",
    "JobFailed",
    "JobKilled",
    "JobTimedOut",
    "OutOfMemory",
    "Sandbox",
    "TimedOut",
    "diagnostics",
    "explained",
]
