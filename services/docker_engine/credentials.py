"""Credentials of a registry, read from a file."""

from pathlib import Path

from services.docker_engine.errors import Unauthorized


def login(file: Path | None, setting: str) -> dict[str, str] | None:
    """Return `auth_config` for the Docker SDK; None leaves the choice to Docker's own configuration.

    Args:
        file: one line, `user:password`. It is read at each call, because a person may just have corrected it.
        setting: name of the setting that names the file, for messages.

    Raises:
        Unauthorized: the file is missing, or holds something else.
    """
    if file is None:
        return None
    try:
        user, colon, password = file.read_text().strip().partition(":")
    except OSError as error:
        raise Unauthorized(f"the file that {setting} names cannot be read: {error}") from error
    if not colon or not user:
        raise Unauthorized(f"{setting}: {file} has to be one line, user:password")
    return {"username": user, "password": password}
