"""The monitor's bucket: one state per model, written by revision, and news that wait for whoever holds the model.

A state can be larger than a message may be, so it lies in chunks under a token of its own; the one record that names
the token is written last and by revision. Whoever lost the model meanwhile cannot write it: a zombie is fenced.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from uuid import uuid4

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError

from contracts import subjects
from services.messaging import Bus

CHUNK = 512 * 1024
_STREAM = f"KV_{subjects.MONITOR}"


class Fenced(Exception):
    """Another one wrote the state since it was read: this one's is no longer the truth."""


class Store(Protocol):
    """Where states and news are kept."""

    async def load(self, model: str) -> bytes | None:
        """The newest state, or None when there is none or it is damaged; `save` continues from here."""
        ...

    async def save(self, model: str, state: bytes) -> None:
        """Replace what `load` or the last `save` saw.

        Raises:
            Fenced: it was replaced by another one.
        """
        ...

    async def tell(self, model: str, name: str, news: Mapping[str, Any]) -> None:
        """Leave news for the holder of the model; the same name is the same news."""
        ...

    async def news(self, model: str) -> dict[str, dict[str, Any]]:
        """What was left, in the order of the names."""
        ...

    async def forget(self, model: str, names: Iterable[str]) -> None:
        """These are in the saved state now."""
        ...


class KvStore:
    """The store on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._revisions: dict[str, int] = {}

    async def load(self, model: str) -> bytes | None:
        bucket = await self._bus.bucket(subjects.MONITOR)
        try:
            entry = await bucket.get(f"{model}.state")
        except KeyNotFoundError as gone:
            self._revisions[model] = _revision_of(gone)
            return None
        self._revisions[model] = entry.revision or 0
        head = json.loads(entry.value or b"{}")
        try:
            names = [f"{model}.chunk.{head['token']}.{number}" for number in range(head["chunks"])]
            state = b"".join([(await bucket.get(name)).value or b"" for name in names])
        except KeyNotFoundError:
            return None
        return state if hashlib.sha256(state).hexdigest() == head["sha256"] else None

    async def save(self, model: str, state: bytes) -> None:
        bucket, token = await self._bus.bucket(subjects.MONITOR), uuid4().hex[:12]
        parts = [state[start : start + CHUNK] for start in range(0, len(state), CHUNK)]
        for number, part in enumerate(parts):
            await bucket.put(f"{model}.chunk.{token}.{number}", part)
        head = {"token": token, "chunks": len(parts), "sha256": hashlib.sha256(state).hexdigest()}
        try:
            # Revision 0 is a key that was never there.
            last = self._revisions[model]
            self._revisions[model] = await bucket.update(f"{model}.state", json.dumps(head).encode(), last=last)
        except KeyWrongLastSequenceError as error:
            await self._purge(f"{model}.chunk.{token}.>")
            raise Fenced(f"the state of {model} was written by another monitor") from error
        await self._sweep(model, token)

    async def tell(self, model: str, name: str, news: Mapping[str, Any]) -> None:
        bucket = await self._bus.bucket(subjects.MONITOR)
        await bucket.put(f"{model}.news.{name}", json.dumps(news).encode())

    async def news(self, model: str) -> dict[str, dict[str, Any]]:
        bucket, keys = await self._bus.bucket(subjects.MONITOR), sorted(await self._keys(f"{model}.news.*"))
        entries = {key.rsplit(".", 1)[1]: await bucket.get(key) for key in keys}
        return {name: json.loads(entry.value or b"{}") for name, entry in entries.items()}

    async def forget(self, model: str, names: Iterable[str]) -> None:
        for name in names:
            await self._purge(f"{model}.news.{name}")

    async def _sweep(self, model: str, token: str) -> None:
        """Remove the chunks of earlier states, those of a killed writer among them."""
        tokens = {key.split(".")[2] for key in await self._keys(f"{model}.chunk.>")}
        for old in tokens - {token}:
            await self._purge(f"{model}.chunk.{old}.>")

    async def _keys(self, pattern: str) -> list[str]:
        # One request, where listing a bucket's keys would make a consumer each time.
        prefix = f"$KV.{subjects.MONITOR}."
        info = await self._bus.js.stream_info(_STREAM, subjects_filter=prefix + pattern)
        return [subject.removeprefix(prefix) for subject in info.state.subjects or {}]

    async def _purge(self, pattern: str) -> None:
        try:
            await self._bus.js.purge_stream(_STREAM, subject=f"$KV.{subjects.MONITOR}.{pattern}")
        except NotFoundError:
            return


def _revision_of(gone: KeyNotFoundError) -> int:
    """Of a deleted key its marker's, so that the next write follows it; 0 when there never was one."""
    entry = getattr(gone, "entry", None)
    return int(entry.revision or 0) if entry is not None else 0
