"""A worker's durable consumers: made when missing, looked at all the time, reported by `/health`."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.errors import NotFoundError

from contracts import subjects
from services.messaging import health
from services.messaging.connection import RECONNECT_SECONDS, Bus
from services.messaging.streams import ACK_WAIT, ensure_consumer

WATCH_SECONDS = 5.0
"""Between two looks at the consumers: a deleted one would otherwise be polled in vain for ever."""
WARN_EVERY = 40
PULL = PullSub(batch_size=1, timeout=5.0)

log = structlog.get_logger()


class Consumers:
    """One durable pull consumer per subject, shared with the replicas of the service."""

    def __init__(self, broker: NatsBroker, bus: Bus, consumer: str) -> None:
        self._broker, self._bus, self._consumer = broker, bus, consumer
        self.subjects: list[str] = []
        self.heartbeat = ACK_WAIT / 3
        """Seconds between signs of life of a handler: a third of the shortest ack_wait."""
        self._seen: dict[str, float] = {}

    def add(self, subject: str, consume: Callable[..., Any]) -> None:
        """Subscribe `consume`, which acknowledges by returning and rejects or returns a message by raising."""
        self.subjects.append(subject)
        self._broker.subscriber(
            subject,
            stream=JStream(subjects.stream_of(subject), declare=False),
            durable=subjects.consumer_of(self._consumer, subject),
            pull_sub=PULL,
            # FastStream does not hand the connection's own prefix on: what answers would never arrive.
            inbox_prefix=f"{subjects.inbox_prefix(self._consumer)}.".encode(),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
        )(consume)

    async def ready(self) -> None:
        """Wait until all consumers exist; they are made as soon as there is a stream for them."""
        for subject in self.subjects:
            for attempt in itertools.count():
                if await self._made(subject, attempt):
                    break
                await asyncio.sleep(RECONNECT_SECONDS / 2)

    async def watch(self) -> None:
        """See that every consumer still exists.

        Raises:
            RuntimeError: one was deleted; a new start makes it again.
        """
        for subject in self.subjects:
            durable = subjects.consumer_of(self._consumer, subject)
            try:
                info = await self._bus.js.consumer_info(subjects.stream_of(subject), durable)
                health.PENDING.labels(self._consumer, subject).set(info.num_pending or 0)
            except NotFoundError:
                raise RuntimeError(f"consumer {durable} was deleted") from None
            except (nats.errors.Error, TimeoutError):
                return  # the bus is away: the age of the last look says so
            self._seen[subject] = time.monotonic()

    def stop(self) -> None:
        """Ask for no more messages."""
        for pull in self._broker.subscribers:
            pull.running = False

    def report(self) -> dict[str, dict[str, Any]]:
        """Per subject, seconds since its consumer was last seen and whether it is being polled."""
        now = time.monotonic()
        pulls: dict[str, Any] = dict(zip(self.subjects, self._broker.subscribers, strict=True))
        return {
            subject: {
                "seen_seconds_ago": round(now - self._seen[subject], 1) if subject in self._seen else None,
                "polled": _is_polled(pulls[subject]),
            }
            for subject in self.subjects
        }

    def healthy(self) -> bool:
        """Whether every consumer was seen lately and is being polled."""
        oldest = 3 * WATCH_SECONDS
        return all(
            state["polled"] and state["seen_seconds_ago"] is not None and state["seen_seconds_ago"] < oldest
            for state in self.report().values()
        )

    async def _made(self, subject: str, attempt: int) -> bool:
        try:
            ack_wait = await ensure_consumer(self._bus.js, self._consumer, subject)
        except (NotFoundError, nats.errors.Error, TimeoutError) as error:
            if attempt % WARN_EVERY == 0:
                stream = subjects.stream_of(subject)
                log.warning(
                    f"waiting for stream {stream}; `python -m services.messaging.streams` makes it", error=str(error)
                )
            return False
        self.heartbeat = min(self.heartbeat, ack_wait / 3)
        self._seen[subject] = time.monotonic()
        return True


def _is_polled(pull: Any) -> bool:
    return bool(pull.running and pull.tasks and not any(task.done() for task in pull.tasks))
