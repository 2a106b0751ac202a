"""Chat, mail and webhooks, through apprise: it is imported when there is something to send and somewhere to send it."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from contracts.events import AlertRaised
from services.worker import Permanent

TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


class ChannelFailed(Exception):
    """A channel did not take the alert; it may the next time."""


class BadChannel(Permanent):
    """A configured URL that apprise cannot read."""


class Channels(Protocol):
    """Where a person is reached."""

    async def send(self, alert: AlertRaised) -> None:
        """Hand the alert to every channel.

        Raises:
            ChannelFailed: at least one did not take it.
            BadChannel: a URL makes no sense.
        """
        ...


class Apprise:
    """The configured channels.

    Args:
        urls: apprise URLs; they may hold secrets and are never logged.
        seconds: how long one may take.
    """

    def __init__(self, urls: Sequence[str], seconds: float = 20.0) -> None:
        self._urls, self._seconds = tuple(urls), seconds
        self._sent: dict[str, set[int]] = {}

    async def send(self, alert: AlertRaised) -> None:
        """Hand the alert to every channel that has not taken it yet; a retry goes to the failed ones only."""
        taken = self._sent.setdefault(alert.about, set())
        waiting = [place for place in range(len(self._urls)) if place not in taken]
        results = await asyncio.gather(*(self._one(place, alert) for place in waiting))
        taken.update(place for place, fine in zip(waiting, results, strict=True) if fine)
        if not all(results):
            failed = ", ".join(
                _scheme(self._urls[place]) for place, fine in zip(waiting, results, strict=True) if not fine
            )
            raise ChannelFailed(f"not delivered to {failed}")
        del self._sent[alert.about]

    async def _one(self, place: int, alert: AlertRaised) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.to_thread(_notify, self._urls[place], alert)
        except TimeoutError:
            return False


def _notify(url: str, alert: AlertRaised) -> bool:
    import apprise

    channel = apprise.Apprise()
    if not channel.add(url):
        raise BadChannel(f"NOTIFIER_URLS holds a {_scheme(url)} URL that apprise cannot read")
    body = f"{alert.body}\n\n$ {alert.command}" if alert.command else alert.body
    return bool(channel.notify(title=alert.title, body=body, notify_type=TYPES[alert.severity]))


def _scheme(url: str) -> str:
    return url.split(":", 1)[0]
