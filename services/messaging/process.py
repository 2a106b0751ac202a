"""The life of a worker process: connect, consume, stop; `/health`, `/metrics` and logs beside it."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import structlog
from faststream.nats import NatsBroker

from contracts import subjects
from services.messaging import health, log_shipping
from services.messaging.connection import RECONNECT_SECONDS, Bus
from services.messaging.consumers import CHECK_SECONDS, Consumers
from services.messaging.settings import BusSettings

LOG_SECONDS = 0.1
CONNECT_WARNING_SECONDS = 3.0
"""Pause between two warnings that there is no connection yet."""

log = structlog.get_logger()


class WorkerProcess:
    """A process with consumers on the bus. When it has to stop, it returns the messages that it handles to the bus."""

    def __init__(self, service: str, consumer: str, settings: BusSettings) -> None:
        self.service, self.settings, self.bus = service, settings, Bus()
        self.broker = NatsBroker(
            settings.nats_url,
            name=consumer,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # nats-py takes fractions
            connect_timeout=3,
            # The decoders of the subscriptions make the handlers' arguments: there is nothing to convert or to check.
            apply_types=False,
            serializer=None,
            logger=None,
            graceful_timeout=5.0,
            inbox_prefix=subjects.inbox_prefix(consumer),
            closed_cb=self._closed,
            error_cb=_on_error,
        )
        self.consumers = Consumers(self.broker, self.bus, consumer)
        self.running: set[asyncio.Future[Any]] = set()
        """Running handlers; they are cancelled when the process has to stop."""
        self._background: list[Callable[[], Awaitable[None]]] = []
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._failures: list[Callable[[], Mapping[str, str]]] = []
        self._stop = asyncio.Event()
        self._exit_code = 0

    def background(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` beside the consumers while the worker lives. If it ends or fails, the worker ends."""
        self._background.append(task)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Call `close` when the worker stops."""
        self._closers.append(close)

    def on_health(self, failures: Callable[[], Mapping[str, str]]) -> None:
        """Let `/health` report what fails at present: `failures` returns errors by the name of what fails."""
        self._failures.append(failures)

    def run(self) -> NoReturn:
        """Run until SIGTERM or SIGINT, then exit with 0; exit with 1 when the connection or a background task ends."""
        shipper = log_shipping.LogShipper(self.service, self.bus)
        log_shipping.configure(self.service, self.settings.log_level, shipper)
        asyncio.run(self._live(shipper))
        sys.exit(self._exit_code)

    def health(self) -> dict[str, Any]:
        """Return the body of `/health`; healthy means connected, every consumer exists and is polled, nothing fails."""
        failing = {name: error for failures in self._failures for name, error in failures().items()}
        healthy = self.bus.is_connected and self.consumers.healthy() and not self._stop.is_set() and not failing
        return {
            "healthy": healthy,
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
        await self._stop_working(working)
        shipping.cancel()
        await shipper.flush()
        await self.broker.stop()
        server.should_exit = True
        await serving

    async def _work(self) -> None:
        await self._connect()
        await self.consumers.ready()
        await self.broker.start()
        # Objects made by imports live until the end. Python would count them before each full collection of cycles,
        # and hours would pass between two of these.
        gc.collect()
        gc.freeze()
        log.info("started", pid=os.getpid(), consumers=self.consumers.subjects)
        async with asyncio.TaskGroup() as group:
            group.create_task(every(CHECK_SECONDS, self.consumers.check))
            for task in self._background:
                group.create_task(_run_endless(task))

    async def _connect(self) -> None:
        """Connect to the bus. nats-py tries without end and without a message, so warn while there is no connection."""
        connecting = asyncio.create_task(self.broker.connect())
        try:
            while not (await asyncio.wait({connecting}, timeout=CONNECT_WARNING_SECONDS))[0]:
                url = self.settings.nats_url.rsplit("@", 1)[-1]  # without credentials
                log.warning(f"no bus at {url} yet; the worker tries until there is one")
            self.bus.connected(connecting.result())
        finally:
            connecting.cancel()

    async def _stop_working(self, working: asyncio.Task[None]) -> None:
        """Stop at once: return the messages that are handled to the bus, for another replica."""
        failed = working.done() and working.exception()
        if failed:
            log.error("worker failed", exc_info=failed)
            self._exit_code = 1
        self._stop.set()
        self.consumers.stop()  # otherwise this process would receive the returned messages again
        handlers = list(self.running)
        for handler in handlers:
            handler.cancel()
        working.cancel()
        await asyncio.wait({working, *handlers})
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


async def _run_endless(task: Callable[[], Awaitable[None]]) -> None:
    await task()
    raise RuntimeError("a background task ended")


async def _on_error(error: Exception) -> None:
    log.debug("bus", error=str(error))
