"""Traefik's routes: one file for all models of this deployer, replaced as a whole by rename.

Traefik watches the folder (file provider) and applies a change within milliseconds, without dropping a connection.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml

VERSION_HEADER = "X-Model-Version"
POLL = 0.02


class NotSwitched(Exception):
    """The gateway does not answer with the version its file names; it may be down or still starting."""


class Gateway(Protocol):
    """Who gets the requests of a model."""

    def url(self, model: str) -> str:
        """Where people reach the model."""
        ...

    def address(self, model: str) -> str | None:
        """The server that a model's requests go to now."""
        ...

    def route(self, model: str, address: str) -> None:
        """Send a model's requests to `address` from now on."""
        ...

    async def wait_for(self, model: str, version: str) -> None:
        """Return once `version` answers through the gateway.

        Raises:
            NotSwitched: it does not in time.
        """
        ...


class Traefik:
    """The gateway that reads `file` and answers at `url`."""

    def __init__(self, url: str, file: Path, seconds: float) -> None:
        self._url, self._file, self._seconds = url.rstrip("/"), file, seconds
        self._addresses = _addresses(file)
        self._client = httpx.AsyncClient(timeout=2.0)

    def url(self, model: str) -> str:
        return f"{self._url}/{model}"

    def address(self, model: str) -> str | None:
        return self._addresses.get(model)

    def route(self, model: str, address: str) -> None:
        self._addresses[model] = address
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_name(f".{self._file.name}.partial")  # no extension that Traefik reads
        partial.write_text(yaml.safe_dump(configuration(self._addresses), sort_keys=True))
        partial.replace(self._file)

    async def wait_for(self, model: str, version: str) -> None:
        deadline, answered = time.monotonic() + self._seconds, "nothing"
        while time.monotonic() < deadline:
            try:
                answer = await self._client.get(f"{self.url(model)}/info")
                answered = answer.headers.get(VERSION_HEADER, f"status {answer.status_code}")
            except httpx.TransportError as error:
                answered = repr(error)
            if answered == version:
                return
            await asyncio.sleep(POLL)
        raise NotSwitched(f"{self.url(model)} should be answered by {version}, got {answered}")

    async def close(self) -> None:
        await self._client.aclose()


def configuration(addresses: dict[str, str]) -> dict[str, Any]:
    """Traefik's dynamic configuration: `/<model>/…` goes to the model's address as `/…`."""
    if not addresses:
        return {}
    return {
        "http": {
            "routers": {
                model: {
                    "rule": f"PathPrefix(`/{model}/`) || Path(`/{model}`)",
                    "service": model,
                    "middlewares": [model],
                }
                for model in addresses
            },
            "middlewares": {model: {"stripPrefix": {"prefixes": [f"/{model}"]}} for model in addresses},
            "services": {
                model: {"loadBalancer": {"servers": [{"url": address}], "passHostHeader": True}}
                for model, address in addresses.items()
            },
        }
    }


def _addresses(file: Path) -> dict[str, str]:
    try:
        services = (yaml.safe_load(file.read_text()) or {})["http"]["services"]
        return {model: service["loadBalancer"]["servers"][0]["url"] for model, service in services.items()}
    except (FileNotFoundError, KeyError, yaml.YAMLError):
        return {}
