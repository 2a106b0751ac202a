"""Leases in a key-value bucket: one replica at a time acts on something, across machines.

A lease alone is not safe: a holder that was paused may go on after another replica took the lease. The record that a
holder writes is therefore fenced by its revision (`Registry.put_live`).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from uuid import uuid4

from nats.errors import Error as NatsError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from pydantic import BaseModel

from contracts import subjects
from services.messaging.connection import Bus

TTL = 10.0
"""Seconds after the last renewal until another replica may take the lease."""
POLL_SECONDS = 0.05


class LeaseTaken(Exception):
    """The lease is held by another replica; a later attempt may succeed."""


class LeaseLost(Exception):
    """The lease ran out while it was held: the bus was away too long, or another replica took it."""


class _Holder(BaseModel):
    id: str
    until: float


class Leases:
    """Leases by name, such as `deployer.local.digits`."""

    def __init__(self, bus: Bus, ttl: float = TTL) -> None:
        self._bus, self._ttl = bus, ttl

    @contextlib.asynccontextmanager
    async def hold(self, name: str, wait: float = 0.0) -> AsyncIterator[None]:
        """Hold the lease while the body runs: renew it meanwhile and release it at the end.

        Args:
            name: name of the lease.
            wait: seconds to wait while another replica holds it.

        Raises:
            LeaseTaken: another replica still holds it.
            LeaseLost: it could not be renewed; the body was cancelled.
        """
        bucket = await self._bus.bucket(subjects.LEASES)
        holder, deadline = f"{os.getpid()}-{uuid4().hex[:12]}", time.monotonic() + wait
        while (revision := await _take(bucket, name, holder, self._ttl)) is None:
            if time.monotonic() >= deadline:
                raise LeaseTaken(f"another replica holds the lease {name}")
            await asyncio.sleep(POLL_SECONDS)
        held = _Held(bucket, name, holder, revision, self._ttl)
        async with held.renewed():
            yield


class _Held:
    def __init__(self, bucket: KeyValue, name: str, holder: str, revision: int, ttl: float) -> None:
        self._bucket, self._name, self._holder, self._revision = bucket, name, holder, revision
        self._ttl = ttl
        self._lost = False

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        body = asyncio.current_task()
        assert body is not None
        renewing = asyncio.create_task(self._renew(body))
        try:
            yield
        except asyncio.CancelledError:
            if self._lost and body.uncancel() == 0:
                raise LeaseLost(f"{self._name} could not be renewed") from None
            raise
        finally:
            renewing.cancel()
            # A wrong revision here means that another replica has the lease. Without a bus it runs out by itself.
            with contextlib.suppress(NatsError):
                await self._bucket.delete(self._name, last=self._revision)

    async def _renew(self, body: "asyncio.Task[object]") -> None:
        deadline = time.monotonic() + self._ttl
        while time.monotonic() < deadline:
            await asyncio.sleep(self._ttl / 3)
            try:
                value = _value(self._holder, self._ttl)
                self._revision = await self._bucket.update(self._name, value, last=self._revision)
                deadline = time.monotonic() + self._ttl
            except KeyWrongLastSequenceError:
                break
            except NatsError:
                continue
        self._lost = True
        body.cancel()


async def _take(bucket: KeyValue, name: str, holder: str, ttl: float) -> int | None:
    """Take the lease for `holder`; return its revision, or None while another replica holds it."""
    try:
        entry = await bucket.get(name)
        if _Holder.model_validate_json(entry.value or b"").until > time.time():
            return None
        return await bucket.update(name, _value(holder, ttl), last=entry.revision)
    except KeyNotFoundError:
        with contextlib.suppress(KeyWrongLastSequenceError):
            return await bucket.create(name, _value(holder, ttl))
    except KeyWrongLastSequenceError:
        pass
    return None


def _value(holder: str, ttl: float) -> bytes:
    return _Holder(id=holder, until=time.time() + ttl).model_dump_json().encode()
