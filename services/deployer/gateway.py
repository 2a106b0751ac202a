"""Routes of the Traefik gateway: a folder with one file per model, each replaced as a whole by a rename.

Traefik watches the folder (file provider) and applies a change within milliseconds, without dropping a connection. The
file of a model is read each time it is needed, so that replicas of a deployer never undo each other's routes.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any, Protocol

import httpx

from services.host import write_atomically

VERSION_HEADER = "X-Model-Version"
POLL = 0.02


class NotSwitched(Exception):
    """The gateway does not answer with the version of its route; it may be down or still starting."""


class Gateway(Protocol):
    """Routes of models: which server gets the requests of a model."""

    def url(self, model: str) -> str:
        """Return the URL at which people reach the model."""
        ...

    def address(self, model: str) -> str | None:
        """Return the URL of the server that gets the model's requests; None: they are refused."""
        ...

    def route(self, model: str, address: str | None) -> None:
        """Send a model's requests to `address` from now on; None: refuse them with 503, no available server."""
        ...

    async def wait_for(self, model: str, version: str) -> None:
        """Wait until `version` answers through the gateway.

        Raises:
            NotSwitched: it does not answer in time.
        """
        ...


class Traefik:
    """The gateway that reads `folder` and answers at `url`; people reach it at `public` if that differs.

    `seconds` limits how long it may take to follow a change.
    """

    def __init__(self, url: str, folder: Path, seconds: float, public: str | None = None) -> None:
        self._url, self._folder, self._seconds = url.rstrip("/"), folder, seconds
        self._public = (public or url).rstrip("/")
        self._client = httpx.AsyncClient(timeout=2.0)

    def url(self, model: str) -> str:
        return f"{self._public}/{model}"

    def address(self, model: str) -> str | None:
        try:
            balancer = json.loads(self._file(model).read_text())["http"]["services"][model]["loadBalancer"]
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return next((str(server["url"]) for server in balancer["servers"]), None)

    def route(self, model: str, address: str | None) -> None:
        # The unfinished file lies in another folder: Traefik neither watches nor reads it there.
        text = json.dumps(configuration(model, address), indent=2)
        write_atomically(self._file(model), text, partial_in=self._folder / ".partial")

    def has_routes(self) -> bool:
        """Return whether any model was ever routed."""
        return any(self._folder.glob("*.yml"))

    async def wait_for(self, model: str, version: str) -> None:
        deadline, answered = time.monotonic() + self._seconds, "nothing"
        while time.monotonic() < deadline:
            try:
                answer = await self._client.get(f"{self._url}/{model}/info")
                answered = answer.headers.get(VERSION_HEADER, f"status {answer.status_code}")
            except httpx.TransportError as error:
                answered = repr(error)
            if answered == version:
                return
            await asyncio.sleep(POLL)
        raise NotSwitched(f"{self._url}/{model} should answer with {version}, but the answer was {answered}")

    async def close(self) -> None:
        await self._client.aclose()

    def _file(self, model: str) -> Path:
        return self._folder / f"{model}.yml"  # JSON is YAML too, and quicker to read


def configuration(model: str, address: str | None) -> dict[str, Any]:
    """Build Traefik's dynamic configuration of a model: `/<model>/…` goes to `address` as `/…`."""
    servers = [] if address is None else [{"url": address}]
    rule = f"PathPrefix(`/{model}/`) || Path(`/{model}`)"
    return {
        "http": {
            "routers": {model: {"rule": rule, "service": model, "middlewares": [model]}},
            "middlewares": {model: {"stripPrefix": {"prefixes": [f"/{model}"]}}},
            "services": {model: {"loadBalancer": {"servers": servers, "passHostHeader": True}}},
        }
    }
