"""A worker's durable consumers: create the missing ones, poll them, check that they still exist, report on them."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import structlog
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, NatsRouter, PullSub
from faststream.types import BrokerMiddleware
from nats.js.errors import NotFoundError

from contracts import subjects
from services.messaging import health
from services.messaging.connection import RECONNECT_SECONDS, Bus
from services.messaging.streams import ACK_WAIT, ensure_consumer

Decoder = Callable[[NatsMessage], Awaitable[tuple[Any, Any]]]

CHECK_SECONDS = 5.0
"""Pause between two checks of the consumers. FastStream polls a deleted consumer in a busy loop and reports nothing."""
ATTEMPTS_PER_WARNING = 40
PULL = PullSub(batch_size=1, timeout=5.0)

log = structlog.get_logger()


class Consumers:
    """One durable pull consumer per subject, shared with the replicas of the service."""

    def __init__(self, broker: NatsBroker, bus: Bus, consumer: str) -> None:
        self._broker, self._bus, self._consumer = broker, bus, consumer
        self.subjects: list[str] = []
        self.heartbeat = ACK_WAIT / 3
        """Seconds between the heartbeats of a running handler: a third of the shortest ack_wait."""
        self._seen: dict[str, float] = {}

    def add(
        self,
        subject: str,
        handler: Callable[..., Awaitable[Any]],
        decoder: Decoder,
        middleware: "BrokerMiddleware[Any, Any]",
    ) -> None:
        """Subscribe `handler` to `subject`, with what `decoder` returns as its arguments, inside of `middleware`."""
        self.subjects.append(subject)
        # FastStream has middlewares per broker and per router, none per subscriber.
        router = NatsRouter(middlewares=(middleware,))
        router.subscriber(
            subject,
            stream=JStream(subjects.stream_of(subject), declare=False),
            durable=subjects.consumer_of(self._consumer, subject),
            pull_sub=PULL,
            # FastStream does not pass on the prefix of the connection: no reply would arrive.
            inbox_prefix=f"{subjects.inbox_prefix(self._consumer)}.".encode(),
            ack_policy=AckPolicy.NACK_ON_ERROR,
            no_reply=True,
            decoder=decoder,
        )(handler)
        self._broker.include_router(router)

    async def ready(self) -> None:
        """Wait until all consumers exist. Each is created as soon as its stream exists."""
        for subject in self.subjects:
            for attempt in itertools.count():
                if await self._ensure(subject, attempt):
                    break
                await asyncio.sleep(RECONNECT_SECONDS / 2)

    async def check(self) -> None:
        """Check that every consumer still exists.

        Raises:
            RuntimeError: a consumer was deleted. A restart of the worker creates it again.
        """
        for subject in self.subjects:
            durable = subjects.consumer_of(self._consumer, subject)
            try:
                info = await self._bus.js.consumer_info(subjects.stream_of(subject), durable)
                health.PENDING.labels(self._consumer, subject).set(info.num_pending or 0)
            except NotFoundError:
                raise RuntimeError(f"consumer {durable} was deleted") from None
            except (nats.errors.Error, TimeoutError):
                return  # the bus is away: `report` shows how long ago the last check was
            self._seen[subject] = time.monotonic()

    def stop(self) -> None:
        """Request no more messages."""
        for subscriber in self._broker.subscribers:
            subscriber.running = False

    def report(self) -> dict[str, dict[str, Any]]:
        """Return per subject the seconds since the last check that found its consumer, and whether it is polled."""
        now = time.monotonic()
        subscribers: dict[str, Any] = dict(zip(self.subjects, self._broker.subscribers, strict=True))
        return {
            subject: {
                "seen_seconds_ago": round(now - self._seen[subject], 1) if subject in self._seen else None,
                "polled": _is_polled(subscribers[subject]),
            }
            for subject in self.subjects
        }

    def healthy(self) -> bool:
        """Return whether every consumer was found lately and is polled."""
        oldest = 3 * CHECK_SECONDS
        return all(
            state["polled"] and state["seen_seconds_ago"] is not None and state["seen_seconds_ago"] < oldest
            for state in self.report().values()
        )

    async def _ensure(self, subject: str, attempt: int) -> bool:
        """Create the consumer if it is missing; return whether it exists now."""
        try:
            ack_wait = await ensure_consumer(self._bus.js, self._consumer, subject)
        except (NotFoundError, nats.errors.Error, TimeoutError) as error:
            if attempt % ATTEMPTS_PER_WARNING == 0:
                stream = subjects.stream_of(subject)
                log.warning(
                    f"waiting for stream {stream}; `python -m services.messaging.streams` creates it", error=str(error)
                )
            return False
        self.heartbeat = min(self.heartbeat, ack_wait / 3)
        self._seen[subject] = time.monotonic()
        return True


def _is_polled(subscriber: Any) -> bool:
    return bool(subscriber.running and subscriber.tasks and not any(task.done() for task in subscriber.tasks))
