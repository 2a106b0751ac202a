"""What runs the versions of one target, whatever it runs them as: processes of this machine, or containers."""

from dataclasses import dataclass
from typing import Protocol

from contracts.values import Frozen
from services.storage import Deployed


class Server(Frozen):
    """A started server.

    `id` is its own and never another's; `since` (unix seconds) is when what runs under it was started, the last time if
    it was more than once. What else there is to know of it is its adapter's affair.
    """

    model: str
    version: str
    image: str
    id: str
    url: str
    since: float


class BackendAway(Exception):
    """What runs the servers does not answer. They may well go on answering, so nothing is to be undone for it."""

    attempts = 20
    """About eight minutes."""


@dataclass(frozen=True)
class Ending:
    """How a server ended, when it did, and the end of its log."""

    words: str
    again: bool = False
    """Whether something outside ended it, so that another start may do."""


class Servers(Protocol):
    """What runs the versions of one target.

    What `all`, `alive` and `was_checked` tell is what was seen at the last `look`: a choice between servers is made
    without waiting in between.
    """

    async def look(self) -> None:
        """See what runs now.

        Raises:
            EngineAway: what runs them does not say; what was seen last stands.
        """
        ...

    def all(self) -> list[Server]:
        """Every recorded server, dead ones too."""
        ...

    def alive(self, server: Server) -> bool: ...

    async def start(self, deployed: Deployed) -> Server:
        """Start a version beside whatever runs; recorded before this returns, not yet ready."""
        ...

    async def stop(self, server: Server) -> None:
        """Let it finish its requests, end it, forget it."""
        ...

    async def note_checked(self, server: Server) -> None:
        """Record that it has passed its checks: only then may it be adopted."""
        ...

    def was_checked(self, server: Server) -> bool: ...

    def is_anothers(self, server: Server) -> bool:
        """Whether another replica of the deployer has started it just now: what it is for will be seen soon."""
        ...

    async def ending(self, server: Server) -> Ending:
        """How it ended, when it did, and the end of its log."""
        ...
