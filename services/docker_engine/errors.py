"""Errors of Docker, sorted into those that may pass and those that a person must mend.

The engine answers most failures with status 500 and a sentence, its own or the registry's. The sentence is all there is
to go by. Texts were collected from Docker 26 and 28, distribution 2.8 and 3, Docker Hub, ECR and GHCR.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import requests.exceptions
from docker.errors import APIError, DockerException
from urllib3.exceptions import HTTPError

from services.host import without_passwords
from services.messaging import Permanent


class DockerTrouble(Exception):
    """Docker failed in a way that may pass: worth another attempt."""

    attempts = 20
    """About eight minutes: engines and registries are also away for an upgrade, and disk space has to be freed."""


class EngineAway(DockerTrouble):
    """No engine answers."""


class RegistryAway(DockerTrouble):
    """The registry does not answer, or not now."""


class NoSpace(DockerTrouble):
    """The disk of engine or registry is full: a person has to free space, and until then it is tried again."""


class DockerRefused(Permanent):
    """Docker refuses every attempt: a person has to change something."""


class Unauthorized(DockerRefused):
    """The registry refuses the credentials, or wants some."""


class ImageMissing(DockerRefused):
    """There is no such image."""


class StreamError(DockerException):  # type: ignore[misc]
    """An error in the output of a build, pull or push: the request itself was answered with 200."""


@dataclass(frozen=True)
class Operation:
    """The operation that is under way, for messages.

    Args:
        what: description, such as "pushing 127.0.0.1:5000/digits:7-0a1b2c3d".
        registry: address of the registry.
        service: prefix of the service's settings, such as BUILDER.
    """

    what: str
    registry: str
    service: str


_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.I)
_UNAUTHORIZED = re.compile(
    r"unauthorized|no basic auth credentials|authentication required|incorrect username or password"
    r"|insufficient[_ ]scope|access to the resource is denied|authorization token has expired|403 forbidden"
    r"|\bdenied:|access forbidden|error getting credentials",
    re.I,
)
_MISSING = re.compile(
    r"manifest (for \S+ )?(not found|unknown)|name unknown|repository \S+ not found|no such image|not found: manifest"
    r"|repository does not exist|pull access denied|failed to resolve source metadata for .*: not found"
    r"|^(error: )?[\w./:-]+[:@][\w.:-]+: not found$",
    re.I | re.M,
)
_REGISTRY = re.compile(
    r"dial tcp|connection refused|connection reset|no such host|i/o timeout|timeout|deadline exceeded|\beof\b"
    r"|toomanyrequests|too many requests|received unexpected http status: 5\d\d|server misbehaving"
    r"|network is unreachable|service unavailable|bad gateway",
    re.I,
)
_ENGINE = re.compile(
    r"cannot connect to the docker daemon|error during connect|failed to receive status: rpc error|code = unavailable",
    re.I,
)
"""Output of the docker command after it lost the connection to the engine."""


@contextlib.contextmanager
def explained(operation: Operation) -> Iterator[None]:
    """Turn an error of the Docker SDK into one that a person, and the worker's retries, can go by.

    Raises:
        DockerTrouble, DockerRefused: one of the kinds above.
    """
    try:
        yield
    # An error in the middle of a stream of output comes through the SDK as urllib3 raises it.
    except (DockerException, requests.exceptions.RequestException, HTTPError) as error:
        raise explain(error, operation) from error


def explain(error: Exception, operation: Operation) -> DockerTrouble | DockerRefused:
    """Return the same failure as one of the kinds above."""
    message = readable(error)
    about = f"{operation.what}: {message}"
    if _engine_away(error):
        return EngineAway(f"{about}. No Docker engine answers; is it running, and does DOCKER_HOST name it?")
    if _NO_SPACE.search(message):
        return NoSpace(
            f"{about}. The disk is full: free space where Docker keeps its data (`docker system df` shows it)"
        )
    registry = f"registry {operation.registry}".rstrip()
    # A registry hides from strangers whether it has a repository: for them a missing one is forbidden.
    if _UNAUTHORIZED.search(message):
        return Unauthorized(
            f"{about}. The {registry} refuses the credentials: put `user:password` into the file that "
            f"{operation.service}_REGISTRY_CREDENTIALS names, or run `docker login` as the user of this service "
            "(DOCKER_CONFIG)"
        )
    if _MISSING.search(message):
        return ImageMissing(about)
    if _REGISTRY.search(message):
        return RegistryAway(f"{about}. Is the {registry} up, and reached from the Docker engine?")
    return DockerTrouble(about)


def readable(error: Exception) -> str:
    """Return the text of an error, without the passwords of addresses."""
    message = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return without_passwords(str(message).strip().rstrip("."))


def _engine_away(error: Exception) -> bool:
    if isinstance(error, APIError):
        return False
    lost = isinstance(error, requests.exceptions.RequestException | HTTPError)
    command = isinstance(error, StreamError) and _ENGINE.search(str(error)) is not None
    return lost or command or "while fetching server API version" in str(error)
