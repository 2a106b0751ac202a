"""The life of a worker's process: connect, run, hand over, stop; `/health` and logs beside it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import structlog
from faststream.message import StreamMessage
from faststream.nats import NatsBroker

from contracts import subjects
from services.messaging import health, log_shipping
from services.messaging.connection import RECONNECT_SECONDS, Bus
from services.messaging.consumers import WATCH_SECONDS, Consumers
from services.messaging.settings import BusSettings

LOG_SECONDS = 0.1
PATIENCE_SECONDS = 3.0
"""Between two warnings that the bus does not answer."""

log = structlog.get_logger()


class WorkerProcess:
    """A process with consumers on the bus, which gives back what it is working on when it is told to stop."""

    def __init__(self, service: str, consumer: str, settings: BusSettings) -> None:
        self.service, self.settings, self.bus = service, settings, Bus()
        self.broker = NatsBroker(
            settings.nats_url,
            name=consumer,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # nats-py takes fractions
            connect_timeout=3,
            decoder=_whole,
            apply_types=False,
            logger=None,
            graceful_timeout=5.0,
            inbox_prefix=subjects.inbox_prefix(consumer),
            closed_cb=self._closed,
            error_cb=_on_error,
        )
        self.consumers = Consumers(self.broker, self.bus, consumer)
        self.running: set[asyncio.Task[Any]] = set()
        """Handlers at work: cancelled when the process is to stop."""
        self._background: list[Callable[[], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._troubles: list[Callable[[], Mapping[str, str]]] = []
        self._stop = asyncio.Event()
        self._exit_code = 0

    def background(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` beside the consumers for as long as the worker lives; its end, or failure, ends the worker."""
        self._background.append(task)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""
        self._closers.append(close)

    def on_health(self, troubles: Callable[[], Mapping[str, str]]) -> None:
        """Let `/health` ask what does not work just now: errors by the name of what fails, empty when all is well."""
        self._troubles.append(troubles)

    def run(self) -> NoReturn:
        """Live until SIGTERM or SIGINT; exits 0 then, 1 when something it needs is gone for good."""
        shipper = log_shipping.LogShipper(self.service, self.bus)
        log_shipping.configure(self.service, self.settings.log_level, shipper)
        asyncio.run(self._live(shipper))
        sys.exit(self._exit_code)

    def health(self) -> dict[str, Any]:
        """Whether every consumer exists and is polled, and nothing else fails; what `/health` answers."""
        failing = {name: error for troubles in self._troubles for name, error in troubles().items()}
        well = self.bus.is_connected and self.consumers.healthy() and not self._stop.is_set() and not failing
        return {
            "healthy": well,
            "service": self.service,
            "connected": self.bus.is_connected,
            "consumers": self.consumers.report(),
            "busy": len(self.running),
            "failing": failing,
        }

    async def _live(self, shipper: log_shipping.LogShipper) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        server, listening = health.server(self.health, self.settings.http_host, self.settings.http_port)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        shipping = asyncio.create_task(every(LOG_SECONDS, shipper.flush))
        stopped = asyncio.create_task(self._stop.wait())
        working = asyncio.create_task(self._work())
        await asyncio.wait({stopped, working}, return_when=asyncio.FIRST_COMPLETED)
        await self._hand_over(working)
        shipping.cancel()
        await shipper.flush()
        if self.broker._connection is not None:
            await self.broker.stop()
        server.should_exit = True
        await serving

    async def _work(self) -> None:
        await self._connect()
        await self.consumers.ready()
        await self.broker.start()
        # What imports made lives for ever. Counted in, it would keep Python from collecting cycles in full for hours.
        gc.collect()
        gc.freeze()
        log.info("started", pid=os.getpid(), consumers=self.consumers.subjects)
        async with asyncio.TaskGroup() as group:
            group.create_task(every(WATCH_SECONDS, self.consumers.watch))
            for task in self._background:
                group.create_task(_for_ever(task))

    async def _connect(self) -> None:
        """Connect, however long the bus takes to appear: nats-py tries for ever, and in silence."""
        connecting = asyncio.create_task(self.broker.connect())
        try:
            while not (await asyncio.wait({connecting}, timeout=PATIENCE_SECONDS))[0]:
                url = self.settings.nats_url.rsplit("@", 1)[-1]  # without credentials
                log.warning(f"no bus at {url} yet; it is tried again until there is one")
            self.bus.connected(connecting.result())
        finally:
            connecting.cancel()

    async def _hand_over(self, working: asyncio.Task[None]) -> None:
        """Stop at once: what runs is given back to the bus for another replica."""
        failed = working.done() and working.exception()
        if failed:
            log.error("worker failed", exc_info=failed)
            self._exit_code = 1
        self._stop.set()
        self.consumers.stop()  # or what is given back would come straight back here
        at_work = list(self.running)
        for task in at_work:
            task.cancel()
        working.cancel()
        await asyncio.wait({working, *at_work})
        for close in self._closers:
            await close()

    async def _closed(self) -> None:
        if not self._stop.is_set():
            log.error("the connection to the bus is closed for good; check the credentials in NATS_URL")
            self._exit_code = 1
            self._stop.set()


async def every(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Call `action` again and again, with a pause before each call."""
    while True:
        await asyncio.sleep(seconds)
        await action()


async def _whole(message: StreamMessage[Any]) -> StreamMessage[Any]:
    """FastStream's decoder: none. The worker reads messages itself, so that a bad payload is its own affair."""
    return message


async def _for_ever(task: Callable[[], Awaitable[None]]) -> None:
    await task()
    raise RuntimeError("a background task ended")


async def _on_error(error: Exception) -> None:
    log.debug("bus", error=str(error))
