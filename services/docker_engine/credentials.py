"""The registry's credentials, for those who talk to an engine about images."""

from pathlib import Path

from services.docker_engine.errors import Unauthorized


def login(file: Path | None, setting: str) -> dict[str, str] | None:
    """What the Docker SDK takes as `auth_config`: None leaves it to Docker's own configuration.

    Args:
        file: one line, `user:password`; read at each call, for a person may just have mended it.
        setting: what names the file, for messages.

    Raises:
        Unauthorized: there is no such file, or it holds something else.
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
