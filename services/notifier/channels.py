"""Channels of alerts: chat, mail and webhooks, through apprise. It is imported only if a channel is configured."""

import asyncio
from collections.abc import Sequence
from typing import Any

from contracts.events import AlertRaised
from services.messaging import Permanent

TYPES = {"info": "info", "warning": "warning", "critical": "failure"}


class ChannelFailed(Exception):
    """A channel did not accept the alert. The next attempt may succeed."""


class BadChannel(Permanent):
    """A configured URL that apprise cannot read. It is raised at the start, before there is an alert."""


class Apprise:
    """The configured channels.

    Args:
        urls: apprise URLs. They may contain secrets and are never logged.
        seconds: how long a channel may take to accept an alert.

    Raises:
        BadChannel: apprise cannot read one of the URLs.
    """

    def __init__(self, urls: Sequence[str], seconds: float = 20.0) -> None:
        self._urls, self._seconds = tuple(urls), seconds
        for url in urls:
            _channel(url)

    async def send(self, alert: AlertRaised, delivered: set[int]) -> None:
        """Send the alert to every channel whose index is not in `delivered`, and add those that accept it.

        Raises:
            ChannelFailed: at least one did not accept it.
        """
        waiting = [index for index in range(len(self._urls)) if index not in delivered]
        # An exception of one channel must not hide that the others accepted the alert.
        results = await asyncio.gather(*(self._send(index, alert) for index in waiting), return_exceptions=True)
        delivered.update(index for index, accepted in zip(waiting, results, strict=True) if accepted is True)
        if failed := [_scheme(self._urls[index]) for index in waiting if index not in delivered]:
            raise ChannelFailed(f"not delivered to {', '.join(failed)}")

    async def _send(self, index: int, alert: AlertRaised) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.to_thread(_notify, self._urls[index], alert)
        except TimeoutError:
            return False


def _notify(url: str, alert: AlertRaised) -> bool:
    body = f"{alert.body}\n\n$ {alert.command}" if alert.command else alert.body
    return bool(_channel(url).notify(title=alert.title, body=body, notify_type=TYPES[alert.severity]))


def _channel(url: str) -> Any:
    import apprise

    channel = apprise.Apprise()
    if not channel.add(url):
        raise BadChannel(f"NOTIFIER_URLS contains a {_scheme(url)} URL that apprise cannot read")
    return channel


def _scheme(url: str) -> str:
    return url.split(":", 1)[0]
