"""Chat, mail and webhooks, through apprise: it is imported when there is somewhere to send to."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from contracts.events import AlertRaised
from services.messaging import Permanent

TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


class ChannelFailed(Exception):
    """A channel did not take the alert; it may the next time."""


class BadChannel(Permanent):
    """A configured URL that apprise cannot read: said at start, not when there is something to tell."""


class Channels(Protocol):
    """Where a person is reached."""

    async def send(self, alert: AlertRaised, taken: set[int]) -> None:
        """Hand the alert to every channel but those that have `taken` it, and note there who takes it now.

        Raises:
            ChannelFailed: at least one did not take it.
        """
        ...


class Apprise:
    """The configured channels.

    Args:
        urls: apprise URLs; they may hold secrets and are never logged.
        seconds: how long one may take.

    Raises:
        BadChannel: one cannot be read.
    """

    def __init__(self, urls: Sequence[str], seconds: float = 20.0) -> None:
        self._urls, self._seconds = tuple(urls), seconds
        for url in urls:
            _channel(url)

    async def send(self, alert: AlertRaised, taken: set[int]) -> None:
        waiting = [place for place in range(len(self._urls)) if place not in taken]
        # What one of them raises keeps nobody from being noted as reached.
        results = await asyncio.gather(*(self._one(place, alert) for place in waiting), return_exceptions=True)
        taken.update(place for place, took in zip(waiting, results, strict=True) if took is True)
        if failed := [_scheme(self._urls[place]) for place in waiting if place not in taken]:
            raise ChannelFailed(f"not delivered to {', '.join(failed)}")

    async def _one(self, place: int, alert: AlertRaised) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.to_thread(_notify, self._urls[place], alert)
        except TimeoutError:
            return False


def _notify(url: str, alert: AlertRaised) -> bool:
    body = f"{alert.body}\n\n$ {alert.command}" if alert.command else alert.body
    return bool(_channel(url).notify(title=alert.title, body=body, notify_type=TYPES[alert.severity]))


def _channel(url: str) -> Any:
    import apprise

    channel = apprise.Apprise()
    if not channel.add(url):
        raise BadChannel(f"NOTIFIER_URLS holds a {_scheme(url)} URL that apprise cannot read")
    return channel


def _scheme(url: str) -> str:
    return url.split(":", 1)[0]
