"""Requests to the gateway, and what it refuses in words for a person."""

import json
import re
from typing import Any

import httpx

from belt.output import Failed

SECONDS = 60.0
SAID_BY_THE_SERVER = 3
"""Of all that is wrong with a request, its `error` tells the first three; `details` lists more."""
_LONG_LIST = re.compile(r"(?:[^\s,;:]+, ){10,}(?:and )?[^\s,;:]+")
NAMED = 5
HINTS = {
    404: "; `belt deployments` lists what is live",
    502: "; its server has just ended and is started again: try again in some seconds",
    503: "; if it has just been started try again in some seconds, else `belt doctor`",
}
"""What to do about an answer of the gateway."""


def call(method: str, url: str, body: Any = None, *, verbatim: bool = False) -> Any:
    """The JSON that the gateway answers.

    Args:
        method: of HTTP.
        url: all of it.
        body: what is sent, as JSON.
        verbatim: show an error as the server wrote it, not in short.

    Raises:
        Failed: nobody answers there, or it answered an error.
    """
    try:
        answer = httpx.request(method, url, json=body, timeout=SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Failed(
            f"no answer from {url}: {error}. Is `belt up` running? BELT_GATEWAY names another gateway"
        ) from None
    if answer.is_success:
        return answer.json()
    hint = HINTS.get(answer.status_code, "")
    said = answer.text.strip() if verbatim else in_short(answer.text)
    raise Failed(f"{url} answered {answer.status_code}: {said}{hint}")


def in_short(text: str) -> str:
    """The `error` of an answer and how much else is wrong; an answer of another make as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()
    if not isinstance(found, dict) or not isinstance(found.get("error"), str):
        return text.strip()
    more = len(found.get("details") or ()) - SAID_BY_THE_SERVER
    return _LONG_LIST.sub(_cut, found["error"]) + (f"; and {more} more" if more > 0 else "")


def names(all: list[str]) -> str:
    """The first names and how many more there are."""
    return ", ".join(all[:NAMED]) + (f", … {len(all) - NAMED} more" if len(all) > NAMED else "")


def _cut(found: re.Match[str]) -> str:
    return names(found[0].split(", "))
