"""The record of handled messages, per consumer: a repeated message gets the outcome that was recorded.

The bus drops repetitions for an hour; the inbox remembers for as long as the stream keeps the message.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

from contracts import subjects
from services.messaging.connection import Bus
from services.messaging.errors import Permanent


class TooLarge(Permanent):
    """An event, or its record, that is larger than the bus accepts in one message."""


@dataclass(frozen=True)
class Output:
    """A message as it is published."""

    subject: str
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Entry:
    """The state of one message at one consumer."""

    outputs: tuple[Output, ...] | None = None
    """The messages that followed from it; None until it is handled."""
    errors: int = 0
    """Attempts that ended in a transient error."""
    returned: int = 0
    """Deliveries that a worker returned because it had to stop."""
    failed_sequence: int = 0
    """Sequence of the message if the outputs report its failure; otherwise 0."""

    def at_delivery(self, sequence: int) -> "Entry":
        """Return the entry that applies to the message at `sequence`.

        A failed message that was sent again has a later sequence and starts anew. A redelivery has the same.
        """
        return Entry() if 0 < self.failed_sequence < sequence else self

    def with_error(self) -> "Entry":
        """Return the entry after one more transient error."""
        return replace(self, errors=self.errors + 1)

    def with_return(self) -> "Entry":
        """Return the entry after one more delivery that was returned."""
        return replace(self, returned=self.returned + 1)


class Inbox(Protocol):
    """The record of handled messages."""

    async def entry(self, consumer: str, identity: str) -> Entry:
        """Return the entry of a message; of a new message an empty one."""
        ...

    async def record(self, consumer: str, identity: str, entry: Entry) -> None:
        """Store the entry of a message."""
        ...

    async def first_generation(self, run: str, generation: int) -> int:
        """Return the generation that was stored first for a run; store `generation` if there is none."""
        ...


class KvInbox:
    """The inbox in its bucket on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def entry(self, consumer: str, identity: str) -> Entry:
        try:
            found = await (await self._bus.bucket(subjects.INBOX)).get(_key(consumer, identity))
        except KeyNotFoundError:
            return Entry()
        return _decode(found.value or b"{}")

    async def record(self, consumer: str, identity: str, entry: Entry) -> None:
        await (await self._bus.bucket(subjects.INBOX)).put(_key(consumer, identity), _encode(entry))

    async def first_generation(self, run: str, generation: int) -> int:
        bucket = await self._bus.bucket(subjects.INBOX)
        try:
            await bucket.create(f"run.{run}", str(generation).encode())
        except KeyWrongLastSequenceError:
            return int((await bucket.get(f"run.{run}")).value or b"0")
        return generation


def completed(outputs: Sequence[Output]) -> Entry:
    """Return the entry of a message that was handled."""
    return Entry(outputs=tuple(outputs))


def failed(outputs: Sequence[Output], sequence: int) -> Entry:
    """Return the entry of a message that failed; `outputs` report that."""
    return Entry(outputs=tuple(outputs), failed_sequence=sequence)


def check_size(outputs: Sequence[Output], limit: int | None) -> None:
    """Check that the record of these outputs can be stored; it is larger than any of them with its headers.

    To be checked before they are published: otherwise a failure would follow an event that is already out.

    Args:
        outputs: the messages to be published.
        limit: bytes that the bus accepts in one message; None when that is not known.

    Raises:
        TooLarge: the bus would refuse the record.
    """
    needed = len(_encode(failed(outputs, sequence=10**18)))
    if limit is not None and needed > limit:
        names = ", ".join(output.subject for output in outputs)
        raise TooLarge(
            f"{names} and its record take {needed:,} bytes, and the bus accepts {limit:,} in one message: raise "
            "max_payload in the configuration of nats-server, or use fewer columns"
        )


def _key(consumer: str, identity: str) -> str:
    return f"{consumer}.{sha256(identity.encode()).hexdigest()[:32]}"


def _encode(entry: Entry) -> bytes:
    # Existing records have `failed_sequence` under its former name.
    state = {"errors": entry.errors, "returned": entry.returned, "given_up": entry.failed_sequence}
    outputs = None if entry.outputs is None else [vars(output) for output in entry.outputs]
    return json.dumps({"outputs": outputs, **state}).encode()


def _decode(data: bytes) -> Entry:
    state = json.loads(data)
    outputs = state.get("outputs")
    return Entry(
        outputs=None if outputs is None else tuple(Output(**output) for output in outputs),
        errors=state.get("errors", 0),
        returned=state.get("returned", 0),
        failed_sequence=state.get("given_up", 0),
    )
