"""The backend that runs the servers of one target: processes of this machine, or containers."""

from dataclasses import dataclass
from typing import Protocol

from contracts.values import Frozen
from services.storage import Deployed


class Server(Frozen):
    """A started server of one model version.

    `id` is unique and never used again. `since` (unix seconds) is the last start of the program under this id: an
    engine may start it again. Anything else about the server is known to its backend alone.
    """

    model: str
    version: str
    image: str
    id: str
    url: str
    since: float


class BackendAway(Exception):
    """The backend does not answer. Its servers may still serve, so nothing is ended or rerouted because of it."""

    attempts = 20
    """About eight minutes."""


@dataclass(frozen=True)
class ExitReport:
    """The end of a server's log, preceded by how the server ended if it did."""

    log_tail: str
    retryable: bool = False
    """True when something outside ended the server, so that another start may succeed."""


class ServerBackend(Protocol):
    """Starts, ends and lists the servers of one target.

    `all`, `is_alive` and `is_checked` report the state at the last `refresh`. So a choice between servers needs no
    waiting, and the state cannot change in the middle of it.
    """

    async def refresh(self) -> None:
        """Read which servers run now.

        Raises:
            BackendAway: the backend does not answer; the state of the last refresh stays.
        """
        ...

    def all(self) -> list[Server]:
        """Every recorded server, dead ones too."""
        ...

    def is_alive(self, server: Server) -> bool: ...

    async def start(self, deployed: Deployed) -> Server:
        """Start a server of this version beside those that run.

        The server is recorded when this returns, but is not ready yet.
        """
        ...

    async def stop(self, server: Server) -> None:
        """Let the server finish its requests, end it, remove its record."""
        ...

    async def mark_checked(self, server: Server) -> None:
        """Record that the server has passed its checks. Only a checked server is adopted by the next deployer."""
        ...

    def is_checked(self, server: Server) -> bool: ...

    def owned_by_other_replica(self, server: Server) -> bool:
        """Return whether another replica of the deployer started the server a short time ago and still checks it."""
        ...

    async def exit_report(self, server: Server) -> ExitReport:
        """Return how the server ended, if it did, and the end of its log."""
        ...
