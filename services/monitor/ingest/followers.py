"""Which models are followed: every one that is live anywhere."""

import asyncio
from collections.abc import Callable
from functools import partial

import nats.errors
import nats.js.errors

from services.messaging import Leases
from services.messaging.worker import log, restart_on_error
from services.monitor.ingest.model_reader import ModelReader
from services.storage import Registry


class ModelReaders:
    """A follower for each of them. What ends one follower starts it anew, and touches no other."""

    def __init__(
        self, make: Callable[[str], ModelReader], leases: Leases, registry: Registry, scan: float = 5.0
    ) -> None:
        self._make, self._leases, self._registry, self._scan = make, leases, registry, scan
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self.failing: dict[str, str] = {}
        """Errors of those that fail again and again, by model."""

    def follow(self, model: str) -> None:
        """Follow this model too, from now on."""
        self._wanted.put_nowait(model)

    async def run(self) -> None:
        """Run all followers; look for models that another replica has heard of."""
        known: set[str] = set()
        async with asyncio.TaskGroup() as group:
            group.create_task(restart_on_error(self._look, self.failing, about="new models"))
            while True:
                model = await self._wanted.get()
                if model not in known:
                    known.add(model)
                    group.create_task(restart_on_error(partial(self._follow, model), self.failing, model=model))

    async def _follow(self, model: str) -> None:
        await self._make(model).run(self._leases)

    async def _look(self) -> None:
        while True:
            try:
                for model in {live.model for live in await self._registry.lives()}:
                    self.follow(model)
            except (TimeoutError, nats.errors.Error, nats.js.errors.Error) as error:
                log.warning("the registry does not answer", error=str(error))
            await asyncio.sleep(self._scan)
