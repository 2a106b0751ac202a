"""HTTP requests to the gateway; its errors are shortened for a person."""

import json
import re
from typing import Any

import httpx

from belt.output import Failed

SECONDS = 60.0
ERRORS_IN_MESSAGE = 3
"""Number of errors that the server writes into `error`; `details` lists them all."""
_LONG_LIST = re.compile(r"(?:[^\s,;:]+, ){10,}(?:and )?[^\s,;:]+")
NAMES_SHOWN = 5
HINTS = {
    404: "; `belt deployments` lists the live models",
    502: "; its server has just ended and is being restarted: try again in some seconds",
    503: "; try again in some seconds if it has just been started; else run `belt doctor`",
}
"""Advice for each status of the gateway."""


def call(method: str, url: str, body: Any = None, *, verbatim: bool = False) -> Any:
    """Send a request and return the JSON of the answer.

    With `verbatim` an error is shown exactly as the server wrote it, not shortened.

    Raises:
        Failed: the gateway does not answer, or answers with an error.
    """
    try:
        answer = httpx.request(method, url, json=body, timeout=SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Failed(
            f"no answer from {url}: {error}. Is `belt up` running? Set BELT_GATEWAY to use another gateway"
        ) from None
    if answer.is_success:
        return answer.json()
    hint = HINTS.get(answer.status_code, "")
    message = answer.text.strip() if verbatim else short_error(answer.text)
    raise Failed(f"{url} answered {answer.status_code}: {message}{hint}")


def short_error(text: str) -> str:
    """Return the `error` of an answer and the number of further errors; any other text as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()
    if not isinstance(found, dict) or not isinstance(found.get("error"), str):
        return text.strip()
    more = len(found.get("details") or ()) - ERRORS_IN_MESSAGE
    return _LONG_LIST.sub(_shorten, found["error"]) + (f"; and {more} more" if more > 0 else "")


def first_names(all: list[str]) -> str:
    """Return the first names and the number of the others."""
    return ", ".join(all[:NAMES_SHOWN]) + (f", … {len(all) - NAMES_SHOWN} more" if len(all) > NAMES_SHOWN else "")


def _shorten(found: re.Match[str]) -> str:
    return first_names(found[0].split(", "))
