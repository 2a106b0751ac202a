"""What a consumer has already done about each message: duplicates and replays get the recorded outcome.

The bus deduplicates for an hour; this remembers as long as the stream keeps the message.
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
    """What would be said is more than the bus takes in one message."""


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
    """What was said because of it; None while it is not done."""
    errors: int = 0
    """Attempts that ended in a transient error."""
    returned: int = 0
    """Deliveries that were given back unharmed, by a worker that was told to stop."""
    given_up: int = 0
    """Sequence of the message when what was said is that it failed; 0 otherwise."""


class Inbox(Protocol):
    """Memory of handled messages."""

    async def entry(self, consumer: str, identity: str) -> Entry:
        """What is known of a message; an empty entry for a new one."""
        ...

    async def record(self, consumer: str, identity: str, entry: Entry) -> None:
        """Remember it."""
        ...

    async def first_generation(self, run: str, generation: int) -> int:
        """The generation a run first had: this one, unless it was seen before."""
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


def failed_once_more(entry: Entry) -> Entry:
    """The entry after another transient error."""
    return replace(entry, errors=entry.errors + 1)


def handed_over(entry: Entry) -> Entry:
    """The entry after its work was given back."""
    return replace(entry, returned=entry.returned + 1)


def done(outputs: Sequence[Output]) -> Entry:
    """The entry of a message that was dealt with."""
    return Entry(outputs=tuple(outputs))


def given_up(outputs: Sequence[Output], sequence: int) -> Entry:
    """The entry of a message that failed for good."""
    return Entry(outputs=tuple(outputs), given_up=sequence)


def entry_for_delivery(entry: Entry, sequence: int) -> Entry:
    """The entry for the message at `sequence`: one after that given up is a new chance, a redelivery is not."""
    return Entry() if 0 < entry.given_up < sequence else entry


def check_size(outputs: Sequence[Output], limit: int | None) -> None:
    """See that the record of these outputs, which is larger than any of them with its headers, can be kept.

    To be asked before anything is said: a message without a record of it would be followed by a failure.

    Args:
        outputs: what is to be said.
        limit: bytes that the bus takes in one message; None when that is not known.

    Raises:
        TooLarge: it would be refused.
    """
    needed = len(_encode(given_up(outputs, sequence=10**18)))
    if limit is not None and needed > limit:
        said = ", ".join(output.subject for output in outputs)
        raise TooLarge(
            f"{said} and its record take {needed:,} bytes, and the bus takes {limit:,} in one message: raise "
            "max_payload in the configuration of nats-server, or use fewer columns"
        )


def _key(consumer: str, identity: str) -> str:
    return f"{consumer}.{sha256(identity.encode()).hexdigest()[:32]}"


def _encode(entry: Entry) -> bytes:
    outputs = None if entry.outputs is None else [vars(output) for output in entry.outputs]
    return json.dumps(vars(entry) | {"outputs": outputs}).encode()


def _decode(data: bytes) -> Entry:
    kept = json.loads(data)
    outputs = kept.get("outputs")
    return Entry(
        outputs=None if outputs is None else tuple(Output(**output) for output in outputs),
        errors=kept.get("errors", 0),
        returned=kept.get("returned", 0),
        given_up=kept.get("given_up", 0),
    )
