"""Steady traffic of a camera that reads digits: asks the gateway, and learns the truth a while later.

The images are real and the model has never seen them. Turning the camera upside down rotates what it sends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

CLIENTS = 4
PAUSE_SECONDS = 0.04
"""Between two questions of one client: a steady load, not a race."""
LABEL_SECONDS = 2.0
"""How much later than the answer its label becomes known."""
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class DigitImage:
    """An 8×8 image, row by row, and the digit it shows."""

    pixels: tuple[float, ...]
    digit: int

    def turned(self) -> "DigitImage":
        """The same image upside down: rotating by 180° reverses the order of the pixels."""
        return DigitImage(self.pixels[::-1], self.digit)


@dataclass(frozen=True)
class CameraAnswer:
    """What came back for one image, and when."""

    time: float
    version: str
    right: bool
    upside_down: bool


@dataclass
class CameraTraffic:
    """Asks for predictions until it is told to stop.

    Args:
        gateway: URL of the gateway.
        model: which model to ask.
        names: feature names, in the order of the pixels.
        images: what the camera sees, over and over.
    """

    gateway: str
    model: str
    names: Sequence[str]
    images: Sequence[DigitImage]
    upside_down: bool = False
    answers: list[CameraAnswer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    labels: int = 0
    _late: deque[tuple[float, str, int]] = field(default_factory=deque)
    _next: int = 0
    _stopped: bool = False

    async def run(self) -> None:
        """Ask and label until `stop`."""
        limits = httpx.Limits(max_connections=CLIENTS + 1)
        async with httpx.AsyncClient(base_url=self.gateway, timeout=ANSWER_SECONDS, limits=limits) as http:
            await asyncio.gather(self._label(http), *(self._ask(http) for _ in range(CLIENTS)))

    def stop(self) -> None:
        """Let the questions under way be answered, then end."""
        self._stopped = True

    def accuracy(self, *, version: str, upside_down: bool) -> tuple[float, int]:
        """Share of right answers of a version to images of one orientation, and their number."""
        right = [a.right for a in self.answers if (a.version, a.upside_down) == (version, upside_down)]
        return (sum(right) / len(right) if right else float("nan")), len(right)

    async def _ask(self, http: httpx.AsyncClient) -> None:
        while not self._stopped:
            turned = self.upside_down
            image = self.images[self._next % len(self.images)]
            self._next += 1
            shown = image.turned() if turned else image
            body = {"rows": [dict(zip(self.names, shown.pixels, strict=True))]}
            if found := await self._post(http, "predict", body):
                [prediction] = found["predictions"]
                right = prediction["prediction"] == image.digit
                self.answers.append(CameraAnswer(time.time(), found["version"], right, turned))
                self._late.append((time.monotonic() + LABEL_SECONDS, prediction["id"], image.digit))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _label(self, http: httpx.AsyncClient) -> None:
        while not self._stopped:
            known = []
            while self._late and self._late[0][0] <= time.monotonic():
                _, id, digit = self._late.popleft()
                known.append({"id": id, "label": digit})
            if known and await self._post(http, "feedback", {"labels": known}):
                self.labels += len(known)
            await asyncio.sleep(0.2)

    async def _post(self, http: httpx.AsyncClient, what: str, body: object) -> dict[str, Any] | None:
        """The answer; anything but a 200 is a failure, and is counted."""
        try:
            response = await http.post(f"/{self.model}/{what}", json=body)
        except httpx.HTTPError as error:
            self.failures.append(f"{what}: {type(error).__name__} {error}")
            return None
        if response.status_code != 200:
            self.failures.append(f"{what}: {response.status_code} {response.text[:200]}")
            return None
        found: dict[str, Any] = response.json()
        return found
