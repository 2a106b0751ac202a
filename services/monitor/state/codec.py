"""State as bytes and back: JSON for what is small, raw arrays for what is not. Nothing is ever unpickled."""

import json
import zlib
from typing import Any

import numpy as np

FORMAT = 1


class Unknown(Exception):
    """Bytes of another format: the state starts anew, from the traffic that the bus still has."""


def pack(state: dict[str, Any]) -> bytes:
    """Bytes of a nested dict of JSON values and numpy arrays."""
    arrays: list[np.ndarray[Any, Any]] = []

    def place(value: object) -> object:
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value))
            return {"$array": len(arrays) - 1, "dtype": value.dtype.str, "shape": value.shape}
        if isinstance(value, np.generic):
            return value.item()
        raise TypeError(f"{type(value).__name__} has no place in a state")

    header = json.dumps({"format": FORMAT, "state": state}, default=place).encode()
    body = b"".join(array.tobytes() for array in arrays)
    return zlib.compress(len(header).to_bytes(8, "big") + header + body, level=1)


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given.

    Raises:
        Unknown: another format, or damaged.
    """
    try:
        raw = memoryview(zlib.decompress(data))
        size = int.from_bytes(raw[:8], "big")
        header, at = json.loads(bytes(raw[8 : 8 + size])), 8 + size
    except (zlib.error, ValueError) as error:
        raise Unknown(f"unreadable state: {error}") from None
    if header.get("format") != FORMAT:
        raise Unknown(f"a state of format {header.get('format')}")

    def restore(value: Any) -> Any:
        nonlocal at
        if isinstance(value, dict) and "$array" in value:
            dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
            count = int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(raw, dtype=dtype, count=count, offset=at).reshape(shape).copy()
            at += array.nbytes
            return array
        if isinstance(value, dict):
            return {name: restore(inner) for name, inner in value.items()}
        return value

    state: dict[str, Any] = restore(header["state"])
    return state
