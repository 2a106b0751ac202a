"""The monitor's bucket on the bus: one state per model, and notices for the replica that reads the model.

A state is JSON for small values and raw bytes for arrays; nothing is ever unpickled. It can be larger than a message
may be. Therefore it is stored in chunks under a token of its own. One record names the token. It is written last, and
only if its revision is still the one that the writer has seen: a replica that has lost the model cannot write it.
"""

import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NotFoundError

from contracts import subjects
from services.messaging import Bus

FORMAT = 1
CHUNK = 512 * 1024
_STREAM = f"KV_{subjects.MONITOR}"


class UnreadableState(Exception):
    """A saved state is damaged or of another format. The model then starts from the traffic that the bus still has."""


class StateConflict(Exception):
    """Another replica has written the state since it was read."""


def pack(state: dict[str, Any]) -> bytes:
    """Serialize a nested dict of JSON values and numpy arrays."""
    arrays: list[np.ndarray[Any, Any]] = []

    def encode(value: object) -> object:
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value))
            return {"$array": len(arrays) - 1, "dtype": value.dtype.str, "shape": value.shape}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"a state cannot contain a value of type {type(value).__name__}")

    header = json.dumps({"format": FORMAT, "state": state}, default=encode).encode()
    body = b"".join(array.tobytes() for array in arrays)
    return zlib.compress(len(header).to_bytes(8, "big") + header + body, level=1)


def unpack(data: bytes) -> dict[str, Any]:
    """Return what `pack` was given.

    Raises:
        UnreadableState: another format, or damaged.
    """
    try:
        raw = memoryview(zlib.decompress(data))
        size = int.from_bytes(raw[:8], "big")
        header, at = json.loads(bytes(raw[8 : 8 + size])), 8 + size
    except (zlib.error, ValueError) as error:
        raise UnreadableState(f"the saved state is damaged: {error}") from None
    if header.get("format") != FORMAT:
        raise UnreadableState(f"the saved state has format {header.get('format')}, expected {FORMAT}")

    def decode(value: Any) -> Any:
        nonlocal at
        if isinstance(value, dict) and "$array" in value:
            dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(raw, dtype=dtype, count=count, offset=at).reshape(shape).copy()
            at += array.nbytes
            return array
        if isinstance(value, dict):
            return {name: decode(inner) for name, inner in value.items()}
        return value

    state: dict[str, Any] = decode(header["state"])
    return state


class StateStore(Protocol):
    """Storage of states and notices."""

    async def load(self, model: str) -> bytes | None:
        """Return the newest state, or None when there is none or it is incomplete; `save` continues from here."""
        ...

    async def save(self, model: str, state: bytes) -> None:
        """Replace the state that the last `load` or `save` has seen.

        Raises:
            StateConflict: another replica has replaced it.
        """
        ...

    async def add_notice(self, model: str, name: str, notice: Mapping[str, Any]) -> None:
        """Leave a notice for the replica that reads the model. A notice with a known name replaces the earlier one."""
        ...

    async def notices(self, model: str) -> dict[str, dict[str, Any]]:
        """Return all notices by name, in the order of the names."""
        ...

    async def delete_notices(self, model: str, names: Iterable[str]) -> None:
        """Delete notices whose effect is in the saved state."""
        ...


class KvStateStore:
    """The store in a key-value bucket of the bus.

    Keys: `<model>.state` (the record), `<model>.chunk.<token>.<number>` and `<model>.news.<name>` (a notice).
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._revisions: dict[str, int] = {}

    async def load(self, model: str) -> bytes | None:
        bucket = await self._bus.bucket(subjects.MONITOR)
        try:
            entry = await bucket.get(f"{model}.state")
        except KeyNotFoundError as error:
            self._revisions[model] = _revision_of(error)
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
            # Revision 0 stands for a key that has never existed.
            last = self._revisions[model]
            self._revisions[model] = await bucket.update(f"{model}.state", json.dumps(head).encode(), last=last)
        except KeyWrongLastSequenceError as error:
            await self._purge(f"{model}.chunk.{token}.>")
            raise StateConflict(f"another replica of the monitor has written the state of {model}") from error
        await self._delete_old_chunks(model, token)

    async def add_notice(self, model: str, name: str, notice: Mapping[str, Any]) -> None:
        bucket = await self._bus.bucket(subjects.MONITOR)
        await bucket.put(f"{model}.news.{name}", json.dumps(notice).encode())

    async def notices(self, model: str) -> dict[str, dict[str, Any]]:
        bucket, keys = await self._bus.bucket(subjects.MONITOR), sorted(await self._keys(f"{model}.news.*"))
        entries = {key.rsplit(".", 1)[1]: await bucket.get(key) for key in keys}
        return {name: json.loads(entry.value or b"{}") for name, entry in entries.items()}

    async def delete_notices(self, model: str, names: Iterable[str]) -> None:
        for name in names:
            await self._purge(f"{model}.news.{name}")

    async def _delete_old_chunks(self, model: str, token: str) -> None:
        """Delete the chunks of earlier states, including those of a writer that was killed."""
        tokens = {key.split(".")[2] for key in await self._keys(f"{model}.chunk.>")}
        for old in tokens - {token}:
            await self._purge(f"{model}.chunk.{old}.>")

    async def _keys(self, pattern: str) -> list[str]:
        # This is one request. The client's own listing of keys would create a consumer each time.
        prefix = f"$KV.{subjects.MONITOR}."
        info = await self._bus.js.stream_info(_STREAM, subjects_filter=prefix + pattern)
        return [subject.removeprefix(prefix) for subject in info.state.subjects or {}]

    async def _purge(self, pattern: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self._bus.js.purge_stream(_STREAM, subject=f"$KV.{subjects.MONITOR}.{pattern}")


def _revision_of(missing: KeyNotFoundError) -> int:
    """Return the revision of a deleted key's marker, which the next write must follow; 0 for a key never written."""
    entry = getattr(missing, "entry", None)
    return int(entry.revision or 0) if entry is not None else 0
