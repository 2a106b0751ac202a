"""Where the bus and the gateway are: the environment, else what `belt up` wrote into its home."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import nats.errors
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from pydantic import TypeAdapter, ValidationError

from belt import output
from belt.output import Failed
from contracts.events import ModelName, Version
from services.messaging import Bus, BusSettings, connect
from services.storage import ArtifactStore, open_artifact_store

DEFAULT_GATEWAY = "http://127.0.0.1:8080"
Answer = TypeVar("Answer")
_MODEL: TypeAdapter[str] = TypeAdapter(ModelName)
_VERSION: TypeAdapter[str] = TypeAdapter(Version)


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Do the asynchronous part of a command; what cannot be done is said and exits with 1."""
    try:
        return asyncio.run(work)
    except Failed as error:
        output.fail(str(error))


def nats_url(home: Path) -> str:
    """How to reach the bus, credentials included.

    Raises:
        Failed: neither NATS_URL nor a bus started on this home.
    """
    if url := os.environ.get("NATS_URL"):
        return url
    file = home / "nats.url"
    try:
        return file.read_text().strip()
    except OSError:
        raise Failed(
            f"no bus: there is no {file}. Start one with `belt up`, "
            "or name one with NATS_URL=nats://host:4222 or --home DIR"
        ) from None


def gateway(home: Path) -> str:
    """URL of the gateway, without a slash at the end.

    Raises:
        Failed: nothing says where it is. Guessing would talk to somebody else's belt.
    """
    if url := os.environ.get("BELT_GATEWAY"):
        return url.rstrip("/")
    file = home / "gateway.url"
    try:
        return file.read_text().strip().rstrip("/")
    except OSError:
        if os.environ.get("NATS_URL"):  # in containers the bus is named, and the gateway is where it always is
            return DEFAULT_GATEWAY
    raise Failed(f"no gateway: there is no {file}. Start one with `belt up`, or set BELT_GATEWAY or --home")


def model(given: str) -> str:
    """`given`, when a model can be called so.

    Raises:
        Failed: it cannot: there is no such model anywhere.
    """
    try:
        return _MODEL.validate_python(given)
    except ValidationError:
        raise Failed(f"no model {given!r}: names are a-z, 0-9 and - between them; `belt models` lists them") from None


def is_version(given: str) -> bool:
    """Whether a version can be called so."""
    try:
        _VERSION.validate_python(given)
    except ValidationError:
        return False
    return True


@asynccontextmanager
async def bus(home: Path, *, patient: bool = False) -> AsyncIterator[Bus]:
    """A connection to the bus.

    Args:
        home: of the `belt up` to talk to, unless NATS_URL is set.
        patient: come back after an outage, for commands that follow; the first connection has to succeed all the same.

    Raises:
        Failed: nobody answers, the credentials are wrong, or the bus has no streams of ours.
    """
    url = nats_url(home)
    connection = await _connect(url)
    if patient:
        await connection.close()
        connection = await connect(url, name="belt")
    try:
        yield connection
    except NotFoundError as error:
        raise Failed(
            f"the bus at {shown(url)} lacks a stream or bucket of ours ({error}): is `belt up` ready?"
        ) from error
    except (nats.errors.Error, ServiceUnavailableError, APIError, TimeoutError) as error:
        raise Failed(f"the bus at {shown(url)} did not answer: {type(error).__name__} {error}".rstrip()) from error
    finally:
        await connection.close()


@contextmanager
def artifacts(bus: Bus) -> Iterator[ArtifactStore]:
    """The artifact store; what is fetched from it is gone afterwards."""
    with TemporaryDirectory(prefix="belt-") as scratch:
        yield open_artifact_store(bus, BusSettings().model_copy(update={"home": Path(scratch)}))


def shown(url: str) -> str:
    """A bus URL without its credentials."""
    scheme, found, rest = url.rpartition("://")
    return f"{scheme}{found}{rest.rpartition('@')[2]}"


async def _connect(url: str) -> Bus:
    try:
        return await asyncio.wait_for(connect(url, name="belt", patient=False), 5)
    except (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError) as error:
        raise Failed(f"the bus at {shown(url)} refuses these credentials: {error}") from error
    except (OSError, nats.errors.Error, TimeoutError, ValueError) as error:
        raise Failed(f"no bus at {shown(url)}: start one with `belt up`, or set NATS_URL") from error
