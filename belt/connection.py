"""Addresses of the bus and the gateway: from the environment, else from the files that `belt up` wrote."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nats.errors
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from pydantic import TypeAdapter, ValidationError

from belt.output import Failed
from contracts.events import ModelName, Version
from services.messaging import Bus, BusSettings, connect
from services.storage import ArtifactStore, open_artifact_store

DEFAULT_GATEWAY = "http://127.0.0.1:8080"
_MODEL: TypeAdapter[str] = TypeAdapter(ModelName)
_VERSION: TypeAdapter[str] = TypeAdapter(Version)


def nats_url(home: Path) -> str:
    """Return the URL of the bus, credentials included.

    Raises:
        Failed: NATS_URL is not set and no `belt up` runs on this home.
    """
    file = home / "nats.url"
    if url := _address("NATS_URL", file):
        return url
    raise Failed(
        f"no bus: there is no {file}. Start one with `belt up`, "
        "or name one with NATS_URL=nats://host:4222 or --home DIR"
    )


def gateway(home: Path) -> str:
    """Return the URL of the gateway, without a slash at the end.

    Raises:
        Failed: no address is known. A guess could reach the gateway of another user.
    """
    file = home / "gateway.url"
    if url := _address("BELT_GATEWAY", file):
        return url.rstrip("/")
    if os.environ.get("NATS_URL"):  # in containers NATS_URL is set and the gateway has its usual address
        return DEFAULT_GATEWAY
    raise Failed(f"no gateway: there is no {file}. Start one with `belt up`, or set BELT_GATEWAY or --home")


def _address(variable: str, file: Path) -> str | None:
    with suppress(OSError):
        return os.environ.get(variable) or file.read_text().strip()
    return None


def model_name(given: str) -> str:
    """Return the name of a model as it is; fail when no model can have it."""
    try:
        return _MODEL.validate_python(given)
    except ValidationError:
        raise Failed(f"no model {given!r}: a name has only a-z, 0-9 and -; `belt models` lists the models") from None


def is_version(given: str) -> bool:
    """Return whether `given` has the form of a version, `<generation>-<hash>`."""
    try:
        _VERSION.validate_python(given)
    except ValidationError:
        return False
    return True


@asynccontextmanager
async def bus(home: Path, *, reconnect: bool = False) -> AsyncIterator[Bus]:
    """Connect to the bus.

    Args:
        home: home of the `belt up` to connect to, unless NATS_URL is set.
        reconnect: connect again after an outage, for commands that follow events; the first attempt has to succeed.

    Raises:
        Failed: the bus does not answer, refuses the credentials, or has no streams of Bentobelt.
    """
    url = nats_url(home)
    connection = await _connect(url)
    if reconnect:
        await connection.close()
        connection = await connect(url, name="belt")
    try:
        yield connection
    except NotFoundError as error:
        raise Failed(
            f"the bus at {without_credentials(url)} lacks a stream or bucket of ours ({error}): is `belt up` ready?"
        ) from error
    except (nats.errors.Error, ServiceUnavailableError, APIError, TimeoutError) as error:
        raise Failed(
            f"the bus at {without_credentials(url)} did not answer: {type(error).__name__} {error}".rstrip()
        ) from error
    finally:
        await connection.close()


@contextmanager
def artifacts(bus: Bus) -> Iterator[ArtifactStore]:
    """Open the artifact store; files fetched from it are removed when the block ends."""
    with TemporaryDirectory(prefix="belt-") as scratch:
        yield open_artifact_store(bus, BusSettings().model_copy(update={"home": Path(scratch)}))


def without_credentials(url: str) -> str:
    """Return a bus URL without user and password."""
    scheme, found, rest = url.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


async def _connect(url: str) -> Bus:
    try:
        return await asyncio.wait_for(connect(url, name="belt", reconnect=False), 5)
    except (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError) as error:
        raise Failed(f"the bus at {without_credentials(url)} refuses these credentials: {error}") from error
    except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
        raise Failed(f"no bus at {without_credentials(url)}: start one with `belt up`, or set NATS_URL") from error
