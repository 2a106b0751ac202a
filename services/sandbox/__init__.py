"""All work on models: child processes in the Python environment that a model's lock names.

Services import these names from here. `client` starts jobs; `fork_server` is the process that jobs are forked from;
`environments` makes the Python environments; `diagnostics` turns a failed job into an error that a person understands.
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
