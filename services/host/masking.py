"""Texts for events and logs, without the passwords of the addresses in them."""

import re

_CREDENTIALS = re.compile(r"(?<=//)[^/\s]+(?=@)")


def without_passwords(text: str) -> str:
    """Return the text with `***` for the user and the password of each URL. Call it before the text is cut."""
    return _CREDENTIALS.sub("***", text)
