"""Steady traffic of a camera that reads digits: requests predictions, and sends the labels some seconds later.

The images are real and no model was trained on them. When the camera is upside down, its images are rotated by 180°.
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
"""Pause between two requests of one client."""
LABEL_SECONDS = 2.0
"""Time between a prediction and its label."""
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class DigitImage:
    """An 8×8 image, row by row, and the digit it shows."""

    pixels: tuple[float, ...]
    digit: int


@dataclass(frozen=True)
class CameraAnswer:
    """The answer for one image, and its time in unix seconds."""

    time: float
    version: str
    right: bool
    upside_down: bool


@dataclass
class CameraTraffic:
    """Requests predictions for the images, again and again, and sends labels until `stop`."""

    gateway: str
    model: str
    names: Sequence[str]
    """Feature names, in the order of the pixels."""
    images: Sequence[DigitImage]
    upside_down: bool = False
    answers: list[CameraAnswer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    labels: int = 0
    _due: deque[tuple[float, str, int]] = field(default_factory=deque)
    _next: int = 0
    _stopped: bool = False

    async def run(self) -> None:
        """Send requests and labels until `stop`."""
        limits = httpx.Limits(max_connections=CLIENTS + 1)
        async with httpx.AsyncClient(base_url=self.gateway, timeout=ANSWER_SECONDS, limits=limits) as http:
            await asyncio.gather(self._send_labels(http), *(self._predict(http) for _ in range(CLIENTS)))

    def stop(self) -> None:
        """End after the answers to open requests."""
        self._stopped = True

    def accuracy(self, *, version: str, upside_down: bool) -> tuple[float, int]:
        """Return the share of right answers of a version to images of one orientation, and the number of answers."""
        right = [a.right for a in self.answers if (a.version, a.upside_down) == (version, upside_down)]
        return (sum(right) / len(right) if right else float("nan")), len(right)

    async def _predict(self, http: httpx.AsyncClient) -> None:
        while not self._stopped:
            turned = self.upside_down
            image = self.images[self._next % len(self.images)]
            self._next += 1
            pixels = image.pixels[::-1] if turned else image.pixels  # reversed, the image is rotated by 180°
            body = {"rows": [dict(zip(self.names, pixels, strict=True))]}
            if found := await self._post(http, "predict", body):
                [prediction] = found["predictions"]
                right = prediction["prediction"] == image.digit
                self.answers.append(CameraAnswer(time.time(), found["version"], right, turned))
                self._due.append((time.monotonic() + LABEL_SECONDS, prediction["id"], image.digit))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _send_labels(self, http: httpx.AsyncClient) -> None:
        while not self._stopped:
            known = []
            while self._due and self._due[0][0] <= time.monotonic():
                _, id, digit = self._due.popleft()
                known.append({"id": id, "label": digit})
            if known and await self._post(http, "feedback", {"labels": known}):
                self.labels += len(known)
            await asyncio.sleep(0.2)

    async def _post(self, http: httpx.AsyncClient, endpoint: str, body: object) -> dict[str, Any] | None:
        """Return the answer; any status but 200 is counted as a failure and gives None."""
        try:
            response = await http.post(f"/{self.model}/{endpoint}", json=body)
        except httpx.HTTPError as error:
            self.failures.append(f"{endpoint}: {type(error).__name__} {error}")
            return None
        if response.status_code != 200:
            self.failures.append(f"{endpoint}: {response.status_code} {response.text[:200]}")
            return None
        found: dict[str, Any] = response.json()
        return found
